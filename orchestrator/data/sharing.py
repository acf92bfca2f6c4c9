"""What processes that work together need of the system: semaphores, and room for batches in shared memory.

On Linux both lie in /dev/shm, whose size is the machine's affair: a container has 64 MB of it unless told otherwise, and some
have none. Whatever wants more processes asks here first, so that the place is named instead of a library's words.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
from contextlib import suppress
from multiprocessing.context import BaseContext
from pathlib import Path

from orchestrator.core.errors import ConfigError

__all__ = ["SHARED", "WIDEN", "check_jobs", "shared_room", "starting", "why_alone"]

SHARED = Path("/dev/shm")
WIDEN = "Containers get more by --shm-size=1g (docker run) or shm_size (compose)."


def starting() -> BaseContext:
    """How this process starts others: as was chosen for Python, else as Python itself does here.

    Inside a worker of joblib the chosen way is joblib's own, whose processes nobody else can start. There Python's own takes its
    place for good: processes that are spawned are told its name, and would not know the other.
    """
    chosen, methods = multiprocessing.get_start_method(allow_none=True), multiprocessing.get_all_start_methods()
    if chosen in methods:
        return multiprocessing.get_context(chosen)
    if chosen is not None:
        multiprocessing.set_start_method(methods[0], force=True)
    return multiprocessing.get_context(methods[0])


def why_alone(semaphores: int = 64) -> str:
    """Why processes cannot work together here, in words; empty where they can.

    Args:
        semaphores: how many they need at once; each takes a page of shared memory.
    """
    context, made = starting(), []
    try:
        for _ in range(semaphores):
            made.append(context.Lock())
    except (OSError, ImportError, AssertionError) as error:
        return f"processes that work together need semaphores, and {_state(error)}."
    return ""


def check_jobs(wanted: int) -> None:
    """Refuses a number of jobs that is none, or several where processes cannot work together.

    Args:
        wanted: `--jobs`; 0 leaves the choice to this machine.

    Raises:
        ConfigError: with what is allowed.
    """
    if wanted < 0:
        raise ConfigError(f"--jobs {wanted}; allowed: 1 or more, or 0 to choose by this machine.")
    if wanted > 1 and (alone := why_alone()):
        raise ConfigError(f"--jobs {wanted}: {alone} {WIDEN} --jobs 1 trains one member after the other.")


def _state(error: Exception) -> str:
    """What is wrong with shared memory, by the system's answer."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        size = ""
        with suppress(OSError):
            whole = os.statvfs(SHARED)
            size = f" ({whole.f_blocks * whole.f_frsize / 1024:,.0f} kB in all)"
        return f"{SHARED} is full{size}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{SHARED} may not be written to"
    if number == errno.ENOENT or not SHARED.is_dir():
        return f"{SHARED} is missing"
    return f"{SHARED} gives none ({error})"


def shared_room() -> int | None:
    """Bytes free in shared memory; None where the system has no such place and no such limit."""
    try:
        found = os.statvfs(SHARED)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize

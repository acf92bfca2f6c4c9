"""System resources that cooperating processes need: semaphores, and shared memory for batches.

On Linux both are in /dev/shm, whose size the system sets: a container has 64 MB by default, and some have none. Code
that starts processes checks here first, so that the error names the cause instead of quoting a library.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = [
    "SHARED",
    "WIDEN",
    "check_jobs",
    "shared_room",
    "signals_blocked",
    "start_context",
    "start_trackers",
    "why_no_parallelism",
]

SHARED = Path("/dev/shm")
WIDEN = "Containers get more by --shm-size=1g (docker run) or shm_size (compose)."


def start_context() -> BaseContext:
    """The start method for child processes: the one chosen for this process, else Python's default.

    Inside a joblib worker the chosen method is joblib's own, which only joblib can use. It is then replaced by Python's
    default permanently: spawned processes receive the method's name, and would not know joblib's.
    """
    import multiprocessing

    chosen, methods = multiprocessing.get_start_method(allow_none=True), multiprocessing.get_all_start_methods()
    if chosen in methods:
        return multiprocessing.get_context(chosen)
    if chosen is not None:
        multiprocessing.set_start_method(methods[0], force=True)
    return multiprocessing.get_context(methods[0])


@contextmanager
def signals_blocked(*numbers: signal.Signals) -> Iterator[None]:
    """A block in which signals are blocked; processes that are started in it never receive them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_trackers() -> None:
    """Starts the processes that clean up after loky and Python, so that a terminal that is closed does not kill them.

    They ignore Ctrl-C and SIGTERM themselves.
    """
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    with signals_blocked(signal.SIGHUP):
        loky_tracker.ensure_running()
        resource_tracker.ensure_running()


def why_no_parallelism(semaphores: int = 64) -> str:
    """Why processes cannot cooperate here, as a sentence; empty if they can.

    Args:
        semaphores: number of semaphores needed at once; each takes a page of shared memory.
    """
    if multiprocessing.current_process().daemon:
        return "this process is a daemon's (of multiprocessing.Pool, say), which may start no others."
    if os.environ.get("JOBLIB_MULTIPROCESSING", "1").strip() == "0":
        return "JOBLIB_MULTIPROCESSING=0 forbids processes that work together."
    context, locks = start_context(), []
    try:
        for _ in range(semaphores):
            locks.append(context.Lock())
    except (OSError, ImportError, AssertionError) as error:
        return f"processes that work together need semaphores, and {_state(error)}."
    return ""


def check_jobs(jobs: int) -> None:
    """Refuses an invalid number of jobs, or several jobs where processes cannot cooperate.

    Args:
        jobs: `--jobs`; 0 leaves the choice to this machine.

    Raises:
        ConfigError: the number of jobs is not allowed here; says which ones are.
    """
    if not isinstance(jobs, int) or jobs < 0:
        raise ConfigError(f"--jobs {jobs}; allowed: 1 or more, or 0 to choose by this machine.")
    if jobs > 1 and (reason := why_no_parallelism()):
        raise ConfigError(f"--jobs {jobs}: {reason} {WIDEN} --jobs 1 trains one member after the other.")


def _state(error: Exception) -> str:
    """What is wrong with shared memory, by the system's answer."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC:
        size = ""
        with suppress(OSError):
            status = os.statvfs(SHARED)
            size = f" ({status.f_blocks * status.f_frsize / 1024:,.0f} kB in all)"
        return f"{SHARED} is full{size}"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{SHARED} may not be written to"
    if number == errno.ENOENT or not SHARED.is_dir():
        return f"{SHARED} is missing"
    return f"{SHARED} gives none ({error})"


def shared_room() -> int | None:
    """Bytes free in shared memory; None on a system without /dev/shm, which has no such limit."""
    try:
        status = os.statvfs(SHARED)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize

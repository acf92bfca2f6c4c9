"""Locks between commands, on files in the workspace; they end with the process that holds them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import WorkspaceError

if TYPE_CHECKING:
    from filelock import FileLock

    from orchestrator.artifacts.run import RunRecord

__all__ = ["check_not_deleted", "lock_run", "run_lock", "workspace_lock"]

RUN_LOCK = "run.lock"


def workspace_lock(root: Path) -> FileLock:
    """The lock that is held for moments: while ids are assigned, runs are looked up, and records are changed.

    A thread that holds it may take it again.
    """
    from filelock import FileLock

    return FileLock(root / "workspace.lock", is_singleton=True)


def check_not_deleted(folder: Path) -> None:
    """Refuses to work on a run that another command has deleted; the caller holds a lock under which that cannot happen.

    A lock that was taken in the meantime makes the folder again, with nothing but itself in it: that is removed.

    Raises:
        WorkspaceError: the run was deleted.
    """
    if folder.is_dir() and any(path.name != RUN_LOCK for path in folder.iterdir()):
        return
    shutil.rmtree(folder, ignore_errors=True)
    raise WorkspaceError(f"{folder.name} was deleted by another command.")


def run_lock(folder: Path) -> FileLock:
    """The lock of a run's folder, which is held as long as a command works on its members: waiting for it is an error.

    Raises:
        Timeout: at acquiring; another command holds it.
    """
    from filelock import FileLock

    return FileLock(folder / RUN_LOCK, blocking=False)


def lock_run(locks: ExitStack, run: RunRecord) -> None:
    """Locks a run for this command; the lock ends with the process.

    Raises:
        WorkspaceError: another command holds the lock, or has deleted the run.
    """
    from filelock import Timeout

    lock = run_lock(run.folder)
    try:
        lock.acquire()
    except Timeout:
        raise WorkspaceError(f"{run.id}: another orch command is training this run. Wait for it, or stop it.") from None
    locks.callback(lock.release)
    check_not_deleted(run.folder)

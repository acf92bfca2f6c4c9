"""Locks between commands, on files in the workspace; they end with the process that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["run_lock", "workspace_lock"]


def workspace_lock(root: Path) -> FileLock:
    """The lock that is held for moments: while ids are assigned, runs are looked up, and records are changed.

    A thread that holds it may take it again.
    """
    from filelock import FileLock

    return FileLock(root / "workspace.lock", is_singleton=True)


def run_lock(folder: Path) -> FileLock:
    """The lock of a run's folder, which is held as long as a command works on its members: waiting for it is an error.

    Raises:
        Timeout: at acquiring; another command holds it.
    """
    from filelock import FileLock

    return FileLock(folder / "run.lock", blocking=False)

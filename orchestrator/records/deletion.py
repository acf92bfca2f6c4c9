"""Runs that go for good, without pulling anything down with them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from filelock import FileLock, Timeout

from orchestrator.errors import Problem, WorkspaceError
from orchestrator.records.run import RunRecord
from orchestrator.records.workspace import Workspace

__all__ = ["check_unused", "delete"]


def check_unused(workspace: Workspace, runs: Sequence[RunRecord]) -> None:
    """Refuses runs that an ensemble answers with, or that are being trained.

    A run that shares members with one of them is no obstacle: shared files stay until the last run that has them goes.

    Raises:
        WorkspaceError: naming the ensembles, all at once.
    """
    problems = []
    for run in runs:
        users = [
            name
            for name in workspace.ensembles()
            if any(
                one["folder"].split("/")[0] == run.id
                for members in workspace.ensemble(name)[1]["members"].values()
                for one in members
            )
        ]
        if users:
            problems.append(
                Problem(run.id, f"{', '.join(users)} answers with it.", "Delete the ensemble's folder first.")
            )
        lock = FileLock(run.folder / "run.lock")
        try:
            lock.acquire(blocking=False)
            lock.release()
        except Timeout:
            problems.append(Problem(run.id, "another orch command is training it."))
    if problems:
        raise WorkspaceError("nothing was deleted.", problems)


def delete(workspace: Workspace, run: RunRecord) -> None:
    """Deletes a run; its id is never given out again, and a kill on the way leaves no half of it among the runs."""
    with workspace.lock():
        workspace.retire(run.id)
        if workspace.current(run.task) == run.id:
            workspace.clear_current(run.task)
        hidden = workspace.root / f".deleted-{run.id}"
        run.folder.rename(hidden)
    for left_over in workspace.root.glob(".deleted-*"):
        shutil.rmtree(left_over, ignore_errors=True)

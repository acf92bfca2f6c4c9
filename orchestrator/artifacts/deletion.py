"""Deletes runs and ensembles for good, without breaking anything that uses them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from orchestrator.artifacts.run import RUN_LOCK, RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import Problem, WorkspaceError

__all__ = ["check_unused", "delete", "delete_ensemble"]


def check_unused(workspace: Workspace, runs: Sequence[RunRecord]) -> None:
    """Refuses runs that an ensemble uses, or that another command is working on.

    Runs that share members can be deleted: shared files stay until the last run that has them is deleted.

    Raises:
        WorkspaceError: naming the ensembles, all at once.
    """
    from filelock import FileLock, Timeout

    problems = []
    for run in runs:
        problems += _users(workspace, run)
        try:
            with FileLock(run.folder / RUN_LOCK, blocking=False):
                pass
        except Timeout:
            problems.append(_busy(run))
    if problems:
        raise WorkspaceError("nothing was deleted.", problems)


def delete(workspace: Workspace, run: RunRecord) -> None:
    """Deletes a run; its id is never used again, and a kill never leaves a half-deleted run.

    Whether it is in use is checked again under the lock: it may have changed while the user was asked to confirm.

    Raises:
        WorkspaceError: an ensemble uses it, or another command is working on it.
    """
    from filelock import FileLock, Timeout

    hidden = workspace.deleted / run.id
    with workspace.lock():
        problems = _users(workspace, run)
        if problems:
            raise WorkspaceError(f"{run.id} was not deleted.", problems)
        try:
            with FileLock(run.folder / RUN_LOCK, blocking=False):
                workspace.retire(run.id)
                if workspace.current_or_none(run.task) == run.id:
                    workspace.clear_current(run.task)
                hidden.parent.mkdir(exist_ok=True)
                run.folder.rename(hidden)
        except Timeout:
            raise WorkspaceError(f"{run.id} was not deleted.", [_busy(run)]) from None
    shutil.rmtree(workspace.deleted, ignore_errors=True)  # with what a killed command left there


def delete_ensemble(workspace: Workspace, name: str) -> None:
    """Deletes an ensemble; its id is never given out again. The runs that it answers with stay.

    Raises:
        WorkspaceError: there is none of that name.
    """
    with workspace.lock():
        folder = workspace.ensemble_folder(name)
        workspace.retire(name)
        if workspace.current_or_none("ensemble") == name:
            workspace.clear_current("ensemble")
        hidden = workspace.deleted / name
        hidden.parent.mkdir(exist_ok=True)
        folder.rename(hidden)
    shutil.rmtree(workspace.deleted, ignore_errors=True)


def _users(workspace: Workspace, run: RunRecord) -> list[Problem]:
    users = [name for name in workspace.ensembles() if run.id in workspace.ensemble(name).run_ids]
    if not users:
        return []
    release = orch("ensembles", "delete", *users, workspace=workspace.root)
    return [
        Problem(
            run.id,
            f"{', '.join(users)} use{'s' * (len(users) == 1)} it.",
            f"To delete the run, delete {'these ensembles' if len(users) > 1 else 'this ensemble'} first: `{release}`.",
        )
    ]


def _busy(run: RunRecord) -> Problem:
    return Problem(run.id, "another orch command is working on it.")

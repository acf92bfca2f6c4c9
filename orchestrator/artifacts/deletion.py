"""Deletes runs and ensembles for good, without breaking anything that uses them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.artifacts.locks import run_lock
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import Problem, WorkspaceError

__all__ = ["check_unused", "delete", "delete_ensemble", "noting_choices"]

log = logging.getLogger(__name__)

ENSEMBLE = "ensemble"
"""The kind that an ensemble is current as; a run is current as its task."""


def check_unused(workspace: Workspace, runs: Sequence[RunRecord]) -> None:
    """Refuses runs that an ensemble uses, or that another command is working on.

    Runs that share members can be deleted: shared files stay until the last run that has them is deleted.

    Raises:
        WorkspaceError: naming the ensembles, all at once.
    """
    from filelock import Timeout

    problems = []
    for run in runs:
        problems += _users(workspace, run)
        try:
            with run_lock(run.folder):
                pass
        except Timeout:
            problems.append(_busy(run))
    if problems:
        raise WorkspaceError("nothing was deleted.", problems)


def delete(workspace: Workspace, run: RunRecord) -> str | None:
    """Deletes a run; its id is never used again, and a kill never leaves a half-deleted run.

    Whether it is in use is checked again under the lock: it may have changed while the user was asked to confirm.

    Raises:
        WorkspaceError: an ensemble uses it, or another command is working on it.
    """
    from filelock import Timeout

    with workspace.lock():
        problems = _users(workspace, run)
        if problems:
            raise WorkspaceError(f"{run.id} was not deleted.", problems)
        try:
            with run_lock(run.folder):
                was_current = _hide(workspace, run.folder, run.task)
        except Timeout:
            raise WorkspaceError(f"{run.id} was not deleted.", [_busy(run)]) from None
    return _remove_hidden(workspace, run.id, run.task, was_current)


def delete_ensemble(workspace: Workspace, name: str) -> str | None:
    """Deletes an ensemble; its id is never given out again. The runs that it answers with stay.

    Raises:
        WorkspaceError: there is none of that name.
    """
    with workspace.lock():
        was_current = _hide(workspace, workspace.ensemble_folder(name), ENSEMBLE)
    return _remove_hidden(workspace, name, ENSEMBLE, was_current)


def _hide(workspace: Workspace, folder: Path, kind: str) -> bool:
    """Moves a run or an ensemble to where nothing looks for it; the caller holds the lock.

    Args:
        workspace: the workspace that holds it.
        folder: its folder.
        kind: the run's task, or `ensemble`.

    Returns:
        Whether it was the current one.
    """
    workspace.retire(folder.name)
    was_current = workspace.names_as_current(kind, folder.name)
    workspace.deleted.mkdir(exist_ok=True)
    folder.rename(workspace.deleted / folder.name)
    if was_current:
        workspace.clear_current(kind)
    return was_current


def _remove_hidden(workspace: Workspace, name: str, kind: str, was_current: bool) -> str | None:
    """Removes what was hidden, now or by a killed command, and says so; returns its kind if it was the current one."""
    for folder in workspace.deleted.glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
    with workspace.lock(), suppress(OSError):  # never while another command is about to move something into it
        workspace.deleted.rmdir()
    log.info(f"{name} is deleted.")
    return kind if was_current else None


@contextmanager
def noting_choices(workspace: Workspace) -> Iterator[list[str | None]]:
    """Collects what deletions return; says at the end what was current and is deleted, with the way to choose another.

    At the end, since a later deletion may take the other too; and also if one of them fails, since those before it are gone.
    """
    kinds: list[str | None] = []
    try:
        yield kinds
    finally:
        for kind in kinds:
            if kind is not None:
                title = kind if kind == ENSEMBLE else f"{kind} run"
                log.info(f"The current {title} was deleted: {workspace.choose_current_advice(kind)}")


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

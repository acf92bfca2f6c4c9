"""Choosing the runs of an ensemble, and setting the current run or ensemble.

Each change logs the gain over what it replaces, and the command that undoes it. Heavy imports wait for that
comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.artifacts.cards import CARD
from orchestrator.artifacts.ensembles import EnsembleRecord
from orchestrator.artifacts.locks import check_not_deleted
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, DamagedError, Problem, WorkspaceError, nearest
from orchestrator.core.labels import CLASSES, JOINT, TASKS

if TYPE_CHECKING:
    from orchestrator.ensembling.gains import Gain

__all__ = ["choose_runs", "make_current", "make_ensemble_current", "use_ensemble", "use_run", "votes_in"]

log = logging.getLogger(__name__)


def choose_runs(workspace: Workspace, choice: Sequence[str] = ()) -> dict[str, list[RunRecord]]:
    """The runs of each specialist: those named, otherwise the current one.

    Args:
        workspace: the workspace to search.
        choice: `TASK=RUN` or `TASK=RUN,RUN`; `joint=RUN` for joint networks, which are used only when named, or
            `joint=RUN:TASK,TASK` (`votes_in`).

    Raises:
        ConfigError: `choice` names a wrong task, or a run that is missing, unfinished or of another task; all at once.
        WorkspaceError: a task has no current run.
    """
    problems: list[Problem] = []
    named: dict[str, list[RunRecord]] = {}
    for argument in choice:
        task, equals, names = argument.partition("=")
        if not equals or task not in CLASSES or not names.strip(","):
            what = f"write TASK=RUN or TASK=RUN,RUN with a task of {', '.join(CLASSES)}.{nearest(task, CLASSES)}"
            problems.append(Problem(f"--members {argument}", what))
            continue
        for name, tasks in _named_runs(names):
            run, why_unfit = _run_of(workspace, task, name, tasks)
            if run is None:
                problems.append(Problem(f"--members {argument}", why_unfit))
            elif run.id not in [chosen.id for chosen in named.get(task, [])]:
                named.setdefault(task, []).append(run)
    if problems:
        raise ConfigError(f"{len(problems)} mistake{'s' * (len(problems) > 1)} in --members:", problems)
    missing: list[WorkspaceError] = []
    for task in TASKS:
        if task not in named:
            try:
                named[task] = [workspace.current_run(task)]
            except WorkspaceError as error:
                missing.append(error)
    if missing:
        raise WorkspaceError("\n".join(error.message for error in missing))
    return {task: named[task] for task in CLASSES if task in named}


def _run_of(workspace: Workspace, task: str, name: str, tasks: tuple[str, ...]) -> tuple[RunRecord | None, str]:
    """A named run, or what is wrong with it."""
    if tasks and (task != JOINT or set(tasks) - set(TASKS)):
        return None, f"joint networks alone vote in chosen tasks: joint=RUN:TASK,TASK with tasks of {', '.join(TASKS)}."
    try:
        run = workspace.run(name)
    except WorkspaceError as error:
        return None, error.message
    why_unfit = _why_unfit(run, task)
    return (None, why_unfit) if why_unfit else (run, "")


def _named_runs(names: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each run of `RUN,RUN:TASK,TASK`, with the tasks after its colon."""
    named: list[tuple[str, tuple[str, ...]]] = []
    for word in filter(None, names.split(",")):
        run, colon, task = word.partition(":")
        if not colon and word in TASKS and named and named[-1][1]:
            named[-1] = named[-1][0], (*named[-1][1], word)
        else:
            named.append((run, (task,) if colon else ()))
    return named


def votes_in(choice: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Joint run -> the tasks in which it votes, of runs that are named with some.

    Args:
        choice: words as of `choose_runs`, which has checked them.
    """
    named = [pair for argument in choice for pair in _named_runs(argument.partition("=")[2])]
    return {run: tuple(task for task in TASKS if task in tasks) for run, tasks in named if tasks}


def _why_unfit(run: RunRecord, task: str) -> str:
    if run.task != task:
        return f"{run.id} is a run of the {run.task} specialist."
    if not run.complete:
        missing = [str(fold) for fold in run.folds if not (run.member(fold) / CARD).is_file()]
        return f"{run.id} is unfinished (fold {', '.join(missing)} missing): {run.way_to_complete}"
    return ""


def make_current(workspace: Workspace, run: RunRecord) -> None:
    """Makes a newly completed run its specialist's current one, unless the current one covers more people.

    A run without a score, or of only some folds, does not replace one that has more: the two could not be compared.
    """
    before = _current_run(workspace, run)
    if before is None or before.id == run.id:
        if workspace.current_or_none(run.task) != run.id:
            _set_run(workspace, run)
            log.info(f"{run.id} is now the current {run.task} run.")
        return
    use = orch("runs", "use", run.id, workspace=workspace.root)
    if run.plan is None and before.plan is not None:
        log.info(
            f"{run.id} has no score (it holds nobody out): {before.id} stays the current {run.task} run. `{use}` replaces it."
        )
    elif run.partial and not _covers(run, before):
        log.info(f"{run.id} covers {run.covers}: {before.id} stays the current {run.task} run. `{use}` replaces it.")
    else:
        use_run(workspace, run, before)


def _covers(run: RunRecord, other: RunRecord) -> bool:
    """Whether a run holds out everybody whom another run holds out."""
    return run.plan_digest == other.plan_digest and set(other.folds) <= set(run.folds)


def use_run(workspace: Workspace, run: RunRecord, before: RunRecord | None = None) -> None:
    """Makes a run its specialist's current one, and logs the gain over the previous one.

    Args:
        workspace: the workspace of both runs.
        run: a complete run.
        before: the current run, if the caller has read it already.
    """
    before = before or _current_run(workspace, run)
    _set_run(workspace, run)
    if before is None or before.id == run.id:
        log.info(f"{run.id} is now the current {run.task} run.")
        return
    back = orch("runs", "use", before.id, workspace=workspace.root)
    can_go_back = before.id in workspace.usable_runs(run.task)
    log.info(
        f"{run.id} is now the current {run.task} run (was {before.id}){f'; `{back}` goes back' if can_go_back else ''}."
    )
    from orchestrator.ensembling.gains import paired_gain

    log.info(f"{run.id} over {before.id}: {_gain_text(paired_gain(workspace, before, run))}.")


def _set_run(workspace: Workspace, run: RunRecord) -> None:
    """Makes a run current, and notes this on its record, so that the loss of the choice is noticed."""
    with workspace.lock():
        check_not_deleted(run.folder)
        workspace.set_current(run.task, run.id)
        if not run.was_offered:
            run.update(was_offered=True)


def make_ensemble_current(workspace: Workspace, name: str) -> None:
    """Makes a new ensemble the current one, unless the current one covers more people.

    An ensemble without a score, or of runs of only some folds, does not replace one that has more, as with runs.
    """
    before, record = _current_ensemble(workspace), workspace.ensemble(name)
    why = ""
    if before is not None and before.evaluation is not None:
        why = "has no score" if record.evaluation is None else _why_narrower(workspace, before, record)
    if before is not None and why:
        use = orch("ensembles", "use", name, workspace=workspace.root)
        log.info(f"{name} {why}: {before.id} stays the current ensemble. `{use}` replaces it.")
        return
    _set_ensemble(workspace, before, record)


def _why_narrower(workspace: Workspace, before: EnsembleRecord, after: EnsembleRecord) -> str:
    """What an ensemble of partial runs covers, if it holds out fewer people than the current one; empty if it does not."""
    runs = [workspace.run(run) for run in after.run_ids]
    partial = [run for run in runs if run.partial]
    try:
        others = [workspace.run(run) for run in before.run_ids]
    except DamagedError:  # it may be repaired
        others = []
    except WorkspaceError:  # a run is gone, and the other ensemble cannot answer any more
        return ""
    if not partial or all(any(_covers(run, other) for other in others) for run in runs):
        return ""
    return f"covers {partial[0].covers}"


def use_ensemble(workspace: Workspace, name: str) -> None:
    """Makes an ensemble the current one, and logs the gain over the previous one.

    Raises:
        WorkspaceError: no ensemble has that name, its record is damaged, or a member is missing.
    """
    record = workspace.ensemble(name)
    workspace.check_members(record, weights=True)
    _set_ensemble(workspace, _current_ensemble(workspace), record)


def _set_ensemble(workspace: Workspace, before: EnsembleRecord | None, after: EnsembleRecord) -> None:
    name = after.id
    workspace.set_current("ensemble", name)
    if before is None or before.id == name:
        log.info(f"{name} is now the current ensemble.")
        return
    back = orch("ensembles", "use", before.id, workspace=workspace.root)
    can_go_back = before.id in workspace.usable_ensembles()
    log.info(f"{name} is now the current ensemble (was {before.id}){f'; `{back}` goes back' if can_go_back else ''}.")
    from orchestrator.ensembling.gains import ensemble_gain

    log.info(f"{name} over {before.id}, 18-way: {_gain_text(ensemble_gain(before, after))}.")


def _current_ensemble(workspace: Workspace) -> EnsembleRecord | None:
    """The record of the current ensemble; None if there is none, or none that can be read."""
    try:
        name = workspace.current("ensemble")
        return None if name is None else workspace.ensemble(name)
    except WorkspaceError as error:
        log.warning(f"{error.message}")
        return None


def _gain_text(gain: Gain | str) -> str:
    return f"not comparable: {gain.rstrip('.')}" if isinstance(gain, str) else str(gain)


def _current_run(workspace: Workspace, run: RunRecord) -> RunRecord | None:
    """The current run of the same specialist; None if there is none, or none that can be read."""
    try:
        name = workspace.current(run.task)
        return None if name is None else workspace.run(name)
    except WorkspaceError as error:
        log.warning(f"{error.message}")
        return None

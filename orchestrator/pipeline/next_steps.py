"""What to do with a run next, as a command to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.artifacts.arguments import (
    MISSING_RECIPE,
    plan_arguments,
    recipe_arguments,
    source_arguments,
    training_arguments,
)
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import OrchestratorError, WorkspaceError
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.ensembling.growth import check_one_family
from orchestrator.specialist import Specialist

__all__ = ["after_experiment", "after_training", "after_training_of_all"]


def after_experiment(run: RunRecord) -> str:
    """The command that makes an experiment's winner the current run, or first trains it over all folds.

    Args:
        run: record of the winner.
    """
    workspace = run.root
    if not run.partial:
        return f"make it the current one: {orch('runs', 'use', run.id, workspace=workspace)}"
    train = orch("train", run.task, *training_arguments(run), workspace=workspace)
    return f"it covers {run.covers}; over all folds: {train}"


def after_training_of_all(runs: Sequence[RunRecord], specialists: Mapping[str, Specialist]) -> str:
    """The next step for runs that were trained together: an ensemble of them, which names those that are not current.

    Args:
        runs: complete runs of one fold plan.
        specialists: task -> specialist, for each task of an ensemble and for the run's.
    """
    if {run.task for run in runs} != set(TASKS):
        return after_training(runs[-1], specialists)
    workspace = Workspace(runs[0].root)
    others = [f"{run.task}={run.id}" for run in runs if workspace.current_or_none(run.task) != run.id]
    members = ("--members", *others) if others else ()
    return f"next: {orch('ensemble', '--strategy', 'soft', *members, workspace=workspace.root)}"


def after_training(run: RunRecord, specialists: Mapping[str, Specialist]) -> str:
    """The next step for a trained run: an ensemble, or a comparison with the current run, if that is still another one.

    Args:
        run: a complete run.
        specialists: task -> specialist, for each task of an ensemble and for the run's.
    """
    workspace = Workspace(run.root)
    current = workspace.current_or_none(run.task)
    if current not in (None, run.id) and run.plan is None:
        return f"next: {orch('runs', 'use', run.id, workspace=run.root)}"
    if current not in (None, run.id):
        return f"next: {orch('runs', 'compare', current, run.id, workspace=run.root)}"
    joint = ("--members", f"joint={run.id}") if run.task == JOINT else ()
    ensemble = orch("ensemble", "--strategy", "soft", *joint, workspace=run.root)
    missing = [task for task in TASKS if task != run.task and not _is_compatible(workspace, task, run)]
    if not missing:
        return f"next: {ensemble}"
    trainable = _trainable(run, missing, specialists)
    if trainable != missing:
        untrainable = ", ".join(task for task in missing if task not in trainable)
        return f"an ensemble needs runs of {untrainable} over the same people too, which need other data."
    folds_used = ["--folds-used", len(run.folds)] if run.partial else []
    if run.partial and run.folds != list(range(len(run.folds))):  # no command trains these folds of all specialists
        if run.task == JOINT:
            return (
                "an ensemble needs the same folds of every specialist: train this one over all of them, without --fold."
            )
        missing, folds_used = list(TASKS), []
    recipe = recipe_arguments(run, specialists[run.task], [specialists[task] for task in missing])
    options = [*source_arguments(run), *plan_arguments(run), "--seed", run.seed, *recipe, *folds_used]
    train = orch("train-all", *options, "--tasks", ",".join(missing), workspace=run.root)
    gone = MISSING_RECIPE in recipe
    note = f" ({MISSING_RECIPE}: {run.recipe_name}, which is gone or has changed since)" if gone else ""
    return f"next: {train}   then   {ensemble}{note}"


def _trainable(run: RunRecord, tasks: Sequence[str], specialists: Mapping[str, Specialist]) -> list[str]:
    """Those of `tasks` that can be trained on the data of a run."""
    from orchestrator.data.classes import check_classes
    from orchestrator.data.readers import read

    try:
        photos = read(Path(run.data.source), run.data.columns, distinct=True)
    except OrchestratorError:  # the data is no longer there
        return []
    trainable = []
    for task in tasks:
        try:
            photos.require(specialists[task].columns, f"the {task} specialist")
        except OrchestratorError:
            continue
        if not any(problem.fatal for problem in check_classes(photos, [task], None, bool(run.extra))):
            trainable.append(task)
    return trainable


def _is_compatible(workspace: Workspace, task: str, run: RunRecord) -> bool:
    """Whether a specialist's current run can be scored together with another run."""
    try:
        current = workspace.current_run(task)
    except WorkspaceError:  # there is none, or it is damaged, which `orch ensemble` reports
        return False
    if run.plan is None or current.plan is None:
        return run.plan is current.plan and run.data.photo_set == current.data.photo_set
    try:
        check_one_family(workspace, [run, current])
    except OrchestratorError:
        return False
    return run.folds == current.folds

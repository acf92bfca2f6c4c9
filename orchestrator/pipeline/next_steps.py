"""What to do with a run next, as a command to paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.artifacts.arguments import plan_arguments, recipe_arguments, source_arguments, training_arguments
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import OrchestratorError, WorkspaceError
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.specialist import Specialist

__all__ = ["after_experiment", "after_training"]


def after_experiment(run: RunRecord) -> str:
    """The command by which an experiment's winner becomes the current run, or is first trained over all folds.

    Args:
        run: the winner.
    """
    workspace = run.root
    if not run.partial:
        return f"make it the current one: {orch('runs', 'use', run.id, workspace=workspace)}"
    words = orch("train", run.task, *training_arguments(run), workspace=workspace)
    return f"it covers {run.covers}; over all folds: {words}"


def after_training(run: RunRecord, specialists: Mapping[str, Specialist]) -> str:
    """The next step for a trained run: let it vote, or compare it with the current run, if it has not replaced that.

    Args:
        run: a complete run.
        specialists: task -> specialist, for each task of an ensemble.
    """
    workspace = run.root
    current = Workspace(workspace).current_or_none(run.task)
    if current not in (None, run.id) and run.plan is None:
        return f"next: {orch('runs', 'use', run.id, workspace=workspace)}"
    if current not in (None, run.id):
        return f"next: {orch('runs', 'compare', current, run.id, workspace=workspace)}"
    place = Workspace(workspace)
    joint = ("--members", f"joint={run.id}") if run.task == JOINT else ()
    fuse = orch("ensemble", "--strategy", "soft", *joint, workspace=workspace)
    apart = [task for task in TASKS if task != run.task and not _go_together(place, task, run)]
    if not apart:
        return f"next: {fuse}"
    able = _learnable(run, apart, specialists)
    if able != apart:
        without = ", ".join(task for task in apart if task not in able)
        return f"an ensemble needs runs of {without} over the same people too, which need other data."
    first = ["--folds-used", len(run.folds)] if run.partial else []
    if run.partial and run.folds != list(range(len(run.folds))):  # no command trains these folds of all specialists
        if run.task == JOINT:
            return (
                "an ensemble needs the same folds of every specialist: train this one over all of them, without --fold."
            )
        apart, first = list(TASKS), []
    recipe = recipe_arguments(run, [specialists[task] for task in apart])
    words = [*source_arguments(run), *plan_arguments(run), "--seed", run.seed, *recipe, *first]
    train = orch("train-all", *words, "--tasks", ",".join(apart), workspace=workspace)
    return f"next: {train}   then   {fuse}"


def _learnable(run: RunRecord, tasks: Sequence[str], specialists: Mapping[str, Specialist]) -> list[str]:
    """Those of `tasks` that can be trained on the data of a run."""
    from orchestrator.data.classes import check_classes
    from orchestrator.data.readers import read

    try:
        photos = read(Path(run.data.source), run.data.columns, distinct=True)
    except OrchestratorError:  # not there any more
        return []
    able = []
    for task in tasks:
        try:
            photos.require(specialists[task].columns, f"the {task} specialist")
        except OrchestratorError:
            continue
        if not any(problem.fatal for problem in check_classes(photos, [task], None, bool(run.extra))):
            able.append(task)
    return able


def _go_together(workspace: Workspace, task: str, run: RunRecord) -> bool:
    """Whether a specialist's current run has held out the same people of the same data as another run."""
    try:
        other = workspace.current_run(task)
    except WorkspaceError:  # there is none, or it is damaged, which `orch ensemble` tells
        return False
    run_origin, other_origin = ((record.data.fingerprint, record.plan_digest, record.folds) for record in (run, other))
    return run_origin == other_origin

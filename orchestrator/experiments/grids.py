"""Grids: one recorded run for every combination of some settings, all trained in one queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import Mistakes, quantity
from orchestrator.core.events import Listener
from orchestrator.experiments.points import grid_points, settings_of
from orchestrator.experiments.tags import tag
from orchestrator.pipeline.dataset import Dataset
from orchestrator.pipeline.inputs import Inputs, read_inputs
from orchestrator.pipeline.preparation import RunJob, pixels_of
from orchestrator.pipeline.retraining import base_run, log_base, resolve_plan
from orchestrator.pipeline.run_plans import RunPlan
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import Report, train_runs
from orchestrator.specialist import Specialist

__all__ = ["train_grid", "train_points"]

log = logging.getLogger(__name__)

TAG = "grid"


def train_grid(settings: Settings, specialist: Specialist, words: Sequence[str], listen: Listener) -> Report:
    """Trains one specialist with every combination of some settings; no run becomes the current one.

    Args:
        settings: everything except the grid.
        specialist: the specialist to train.
        words: `KEY=A,B,...`, keys as in `--set` without the task.
        listen: receives progress events.

    Returns:
        The report; its runs are in the order of the combinations.

    Raises:
        OrchestratorError: whatever is wrong with a combination, all of them at once, before any training.
    """
    return train_points(settings, specialist, grid_points(settings, specialist, words), listen)


def train_points(
    settings: Settings,
    specialist: Specialist,
    points: Sequence[Sequence[str]],
    listen: Listener,
    base: RunRecord | None = None,
    tags: Sequence[str] = (TAG,),
    data: Dataset | None = None,
) -> Report:
    """Trains one specialist with each of several groups of settings, in one queue; no run becomes the current one.

    Existing runs are reused; if killed, the same call resumes.

    Args:
        settings: everything except the points.
        specialist: the specialist to train.
        points: the `KEY=VALUE` words of each point, keys as in `--set` without the task.
        listen: receives progress events.
        base: the run whose recipe is used if none is named; None: the current run.
        tags: tags for the runs.
        data: the dataset, if it is loaded already.

    Raises:
        OrchestratorError: whatever is wrong with a point, all of them at once, before any training.
    """
    started, task = time.monotonic(), specialist.name
    base = base or base_run(settings.workspace, task, None)
    settings = resolve_plan(settings, task)
    settings_of_points, mistakes = settings_of(settings, specialist, points, base), Mistakes()
    log_base(base, settings)
    made_from: list[Inputs] = []
    for point_settings in settings_of_points:
        with mistakes.collect():
            inputs = read_inputs(point_settings, {task: specialist}, base, data)
            made_from.append(inputs)
            data = inputs.data  # points differ in the recipe alone
    mistakes.raise_if_any()
    folds = len(made_from[0].data.folds)
    log.info(f"{quantity(len(settings_of_points), 'combination')} of {quantity(folds, 'fold')} each.")
    run_jobs: list[RunJob] = []
    runs: list[RunRecord] = []
    for point_settings, inputs in zip(settings_of_points, made_from, strict=True):
        plan = RunPlan(
            point_settings, inputs, task, base, make_current="never", members=len(settings_of_points) * folds
        )
        run = plan.find()
        if run is not None and run.complete:
            log.info(f"{run.id} has {_words(point_settings, task)} already.")
        else:
            pixels = pixels_of(point_settings, inputs, {task}, listen)[
                task
            ]  # before any run is written: a photo may be damaged
            run = plan.find_or_create()
            run_jobs.append(RunJob(point_settings, specialist, inputs, run, pixels))
        tag(run, tags)
        runs.append(run)
    return train_runs(runs, run_jobs, listen, started)


def _words(settings: Settings, task: str) -> str:
    """The changes of a combination, without the task before their keys."""
    return " ".join(change.removeprefix(f"{task}.") for change in settings.changes) or "this recipe"

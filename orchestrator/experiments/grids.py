"""Grids: one recorded run for every combination of some settings, all trained in one queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.artifacts.annotations import annotate
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import Mistakes, quantity
from orchestrator.core.events import InputsRead, Listener
from orchestrator.experiments.points import Point
from orchestrator.pipeline.inputs import Inputs, read_inputs
from orchestrator.pipeline.preparation import begin_runs
from orchestrator.pipeline.retraining import StartingPoint, log_base
from orchestrator.pipeline.run_plans import RunPlan, find_runs
from orchestrator.pipeline.training import Report, train_runs

__all__ = ["TrainedPoints", "train_points"]

log = logging.getLogger(__name__)

TAG = "grid"


@dataclass(frozen=True)
class TrainedPoints:
    """How the training of a grid's points ended.

    Attributes:
        report: how it ended; each run once, in the order of the points.
        runs: (changes, run) of each point, in order. Points that are spellings of one recipe have the same run.
    """

    report: Report
    runs: tuple[tuple[tuple[str, ...], RunRecord], ...]


def train_points(
    start: StartingPoint,
    points: Sequence[Point],
    listen: Listener,
    tags: Sequence[str] = (TAG,),
    earlier: Inputs | None = None,
) -> TrainedPoints:
    """Trains one specialist with each of several groups of settings, in one queue; no run becomes the current one.

    Existing runs are reused; if killed, the same call resumes.

    Args:
        start: what the points were made from.
        points: one or more points.
        listen: receives progress events.
        tags: tags for the runs.
        earlier: inputs that were read with settings that differ only in the recipe, as in `read_inputs`.

    Raises:
        OrchestratorError: whatever is wrong with a point, all of them at once, before any training.
    """
    started, task = time.monotonic(), start.task
    settings_of = {point.digest: point.settings for point in reversed(points)}  # of spellings of one recipe, the first
    digests = list(dict.fromkeys(point.digest for point in points))
    log_base(start.base, start.settings)
    mistakes, plans, inputs = Mistakes(), dict[str, RunPlan](), earlier
    for digest in digests:
        with mistakes.collect():
            inputs = read_inputs(settings_of[digest], {task: start.specialist}, start.base, inputs)
            members = len(digests) * len(inputs.data.folds)
            plans[digest] = RunPlan(
                settings_of[digest], inputs, task, start.base, make_current="never", members=members
            )
    mistakes.raise_if_any()
    folds = len(plans[digests[0]].inputs.data.folds)
    if len(plans) > 1:
        log.info(f"{quantity(len(plans), 'combination')} of {quantity(folds, 'fold')} each.")
    existing = zip(plans, find_runs([*plans.values()]), strict=True)
    runs = {digest: run for digest, run in existing if run is not None and run.complete}
    for digest, run in runs.items():
        log.info(f"{run.id} has {_words(plans[digest], start)} already.")
    missing = [digest for digest in digests if digest not in runs]
    if missing and earlier is None:
        listen(InputsRead())
    run_jobs = begin_runs([plans[digest] for digest in missing], listen)
    runs |= {digest: run_job.run for digest, run_job in zip(missing, run_jobs, strict=True)}
    for digest in digests:
        annotate(runs[digest], tags=tags)
    report = train_runs([runs[digest] for digest in digests], run_jobs, listen, started)
    return TrainedPoints(report, tuple((point.changes, runs[point.digest]) for point in points))


def _words(plan: RunPlan, start: StartingPoint) -> str:
    """The changes of a combination, without the task before their keys."""
    return " ".join(change.removeprefix(f"{start.task}.") for change in plan.settings.changes) or "this recipe"

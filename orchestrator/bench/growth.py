"""How cost grows: with photos, members, the input's size, and jobs at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.bench.timing import Timing, in_turn
from orchestrator.core.events import ignore_events
from orchestrator.core.labels import TASKS
from orchestrator.data.store import DirectPixels
from orchestrator.execution.local import LocalExecutor
from orchestrator.inference.predictor import Predictor, start_predictor
from orchestrator.training.job import MemberJob

__all__ = ["GrowthPoint", "bench_growth"]

PHOTOS = (1, 4, 16)
SIZES = (1.0, 1.5, 2.0)
JOBS = {"cpu": (1, 2), "cuda": (1, 2, 4)}
"""Jobs at once; small ones may share a GPU."""


@dataclass(frozen=True)
class GrowthPoint:
    """The cost of one load: one quantity grows from point to point, and all else stays.

    Attributes:
        quantity: what grows: `photos` to predict, `members` that answer, the `input` of a network, or `jobs` at once.
        amount: how much there is of it: of photos, and of the input's sides, times the smallest; of members and jobs, the number.
        timing: its cost; its work is the number of photos in a round.
    """

    quantity: str
    amount: float
    timing: Timing

    @property
    def name(self) -> str:
        """The quantity and the amount, such as `photos x4` and `members 9`."""
        times = "x" if self.quantity in ("photos", "input") else ""
        return f"{self.quantity} {times}{self.amount:g}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.timing.as_dict(), "work": self.timing.work}


def bench_growth(
    predictor: Predictor,
    jobs: Mapping[str, MemberJob],
    paths: Sequence[Path],
    rounds: int,
    done: Callable[[int, int], None],
) -> list[GrowthPoint]:
    """Seconds and peak memory while one quantity grows and all else stays.

    Args:
        predictor: an ensemble's members; the fewest photos go through all of them.
        jobs: task -> a member to train.
        paths: photos, a sixteenth of which is the smallest load.
        rounds: how often all are run in turn.
        done: called with (runs done, runs in all).
    """
    few = max(1, len(paths) // PHOTOS[-1])
    functions: dict[tuple[str, float], Callable[[], object]] = {}
    work: dict[tuple[str, float], float] = {}
    for times in PHOTOS:
        part = list(paths[: few * times])
        functions["photos", times] = partial(_predict, predictor, part)
        work["photos", times] = len(part)
    of_task = min(sum(member.task == task for member in predictor.members) for task in TASKS)
    numbers = dict.fromkeys(max(1, round(of_task * share)) for share in (0.2, 0.6, 1.0))
    fewer = [_fewer(predictor, number) for number in numbers]
    for smaller in fewer:
        functions["members", len(smaller.members)] = partial(_predict, smaller, paths[: few * 4])
        work["members", len(smaller.members)] = few * 4
    job = replace(jobs["age"], held_out=jobs["age"].held_out[:0])  # scoring is prediction, which grows above
    for size in SIZES:
        larger = _larger(job, paths, size)
        functions["input", size] = partial(_train, [larger], 1)
        work["input", size] = larger.recipe.epochs * larger.photos_per_epoch
    at_onces = JOBS[job.device.split(":")[0]]
    copies = [
        replace(job, run=f"copy-{n}", folder=job.folder.with_name(f"copy-{n}"), threads=1) for n in range(at_onces[-1])
    ]
    for at_once in at_onces:
        functions["jobs", at_once] = partial(_train, copies, at_once)
        work["jobs", at_once] = len(copies) * job.recipe.epochs * job.photos_per_epoch
    with ExitStack() as opened:  # each predictor has threads of its own
        for smaller in fewer:
            opened.enter_context(smaller)
        timings = in_turn(functions, rounds, work, done)
    return [GrowthPoint(quantity, amount, timing) for (quantity, amount), timing in timings.items()]


def _predict(predictor: Predictor, paths: Sequence[Path]) -> None:
    for _ in predictor.predict(paths):
        pass


def _fewer(predictor: Predictor, each: int) -> Predictor:
    """A predictor with the first `each` members of every task."""
    members = [
        member for task in TASKS for member in [member for member in predictor.members if member.task == task][:each]
    ]
    runtime = predictor.runtime
    return start_predictor(members, predictor.combiner, runtime.device, runtime.threads)


def _larger(job: MemberJob, paths: Sequence[Path], times: float) -> MemberJob:
    """The same job with an input whose sides are `times` as long, rounded to 16 pixels, without a store."""
    height, width = (16 * max(1, round(side * times / 16)) for side in (job.recipe.height, job.recipe.width))
    recipe = job.recipe.model_copy(update={"height": height, "width": width})
    geometry = recipe.geometry
    return replace(
        job, folder=job.folder.with_name(f"input-{height}"), recipe=recipe,
        pixels=DirectPixels(list(paths), geometry, [None] * len(paths)),
        preprocess=replace(job.preprocess, geometry=geometry),
    )  # fmt: skip


def _train(jobs: Sequence[MemberJob], at_once: int) -> None:
    for job in jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
    failed = [
        result.why for result in LocalExecutor(at_once).run(jobs, at_once, ignore_events) if result.outcome != "done"
    ]
    if failed:
        raise RuntimeError(failed[0])

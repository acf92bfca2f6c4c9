"""Tuning in stages: each starts from the previous winner, on small photos, and changes the recipe only for a clear gain.

One stage is a search (`sweeps`) on shrunken photos, whose best points are then trained at full size and compared with
the current recipe. Views are tried last, on trained members, without training.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import TrainingError, quantity
from orchestrator.core.events import InputsRead, Listener
from orchestrator.core.interval import VERDICTS
from orchestrator.experiments.budget import Budget
from orchestrator.experiments.comparing import Compared, compare_runs
from orchestrator.experiments.grids import train_points
from orchestrator.experiments.points import checked_points
from orchestrator.experiments.search import COMPLETE, FAILED, PRUNED
from orchestrator.experiments.sweeps import Sweep, sweep
from orchestrator.experiments.tta import keep_views, try_views
from orchestrator.pipeline.inputs import Inputs, read_inputs
from orchestrator.pipeline.retraining import StartingPoint
from orchestrator.pipeline.settings import Settings
from orchestrator.recipes.schema import OF_PROBABILITIES, Recipe
from orchestrator.recipes.spaces import Choice, Space
from orchestrator.specialist import Specialist

__all__ = ["TunedStage", "tune"]

log = logging.getLogger(__name__)

TAG = "tuning"

FINALISTS = 2
"""Points of a search on small photos that are trained at full size."""

MULTIPLE = 16
"""Pixels to which small heights and widths are rounded: half the stride of most networks, so that no row is lost."""


@dataclass(frozen=True)
class TunedStage:
    """How one stage of a tuning ended, and which recipe the next one starts from.

    Attributes:
        name: name of the stage.
        before: the run of the recipe that it started from.
        after: the run of the recipe that the next stage starts from; the same as `before` when nothing was better.
        tried: number of points that were trained, or pruned below the median.
        best: the best candidate at full size, compared with `before`; None if there was none.
        changes: the settings that the best candidate changes, `KEY=VALUE`.
        why: the decision in a sentence.
        out_of_time: whether time ran out before everything was tried.
    """

    name: str
    before: RunRecord
    after: RunRecord
    tried: int
    best: Compared | None
    changes: tuple[str, ...]
    why: str
    out_of_time: bool = False

    @property
    def moved(self) -> bool:
        """Whether the recipe has changed."""
        return self.after.id != self.before.id

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        gain = self.best.gain if self.best else None
        return {
            "stage": self.name, "before": self.before.id, "after": self.after.id, "moved": self.moved, "tried": self.tried,
            "out_of_time": self.out_of_time,
            "best": self.best.run.id if self.best else None, "changes": list(self.changes), "why": self.why,
            "gain": gain and gain.value, "gain_interval_95": gain and gain.interval.as_list(),
        }  # fmt: skip


@dataclass(frozen=True)
class _Tuning:
    """What all stages of a tuning share.

    Attributes:
        settings: those of `tune` without a recipe, which is that of the run from which a stage starts.
        specialist: the specialist to tune.
        listen: as in `tune`.
        small: as in `tune`.
        inputs: the inputs that were read first; their dataset serves all stages.
    """

    settings: Settings
    specialist: Specialist
    listen: Listener
    small: float
    inputs: Inputs

    def start(self, run: RunRecord, changes: Sequence[str] = ()) -> StartingPoint:
        """The starting point of a stage: a run's recipe, with changes."""
        return StartingPoint(replace(self.settings, changes=changes), self.specialist, run)


def tune(
    start: StartingPoint,
    stages: Mapping[str, Space],
    listen: Listener,
    budget: Budget,
    small: float = 0.75,
) -> list[TunedStage]:
    """Tunes one specialist stage by stage, or resumes; existing runs are reused.

    Args:
        start: where the first stage starts.
        stages: name -> search space, in order, each checked on that recipe. A space of `views` alone is tried on trained members.
        listen: receives progress events.
        budget: how much each stage may take; its minutes are those of all stages, divided evenly among the remaining ones.
        small: height and width of the searches, as a share of the recipe's; 1 searches at full size.

    Raises:
        OrchestratorError: something is wrong with the inputs or with a stage, before any training; or with every trial.
        CancelledError: a stop was requested; the same call resumes.
    """
    until = None if budget.minutes is None else time.monotonic() + 60 * budget.minutes
    # Read once: stages differ in the recipe alone.
    inputs = read_inputs(start.settings, {start.task: start.specialist}, start.base)
    listen(InputsRead())
    report = train_points(start, checked_points(start, [[]]), listen, [TAG], inputs).report
    report.raise_if_cancelled()
    if report.failures:
        raise TrainingError("\n".join(report.failures.values()))
    (run,) = report.runs
    # From here on the recipe is that of a run: what was named and changed is in it.
    settings, specialist = replace(start.settings, recipes=(), changes=()), start.specialist
    tuning = _Tuning(settings, specialist, listen, small, inputs)
    ended_stages: list[TunedStage] = []
    for number, (name, space) in enumerate(stages.items()):
        minutes_left = None if until is None else max(0.0, until - time.monotonic()) / 60 / (len(stages) - number)
        if minutes_left == 0.0:  # no time is left for this stage
            ended_stages.append(
                TunedStage(name, run, run, 0, None, (), "time ran out before it began: not tried.", True)
            )
            log.info(f"stage {name}: {ended_stages[-1].why}")
            continue
        log.info(f"stage {name}, from {run.id}:")
        late = failed = False
        if set(space.axes) == {"views"}:
            candidates, tried = _viewed(settings, specialist, run, space), len(space.points or [])
        else:
            result, candidates = _searched(tuning, run, space, replace(budget, minutes=minutes_left), name)
            tried = sum(trial.state in (COMPLETE, PRUNED) for trial in result.trials)
            failed, late = any(trial.state == FAILED for trial in result.trials), result.out_of_time
        stage = _decided(settings, specialist, name, run, candidates, tried, failed, late)
        log.info(f"stage {name}: {stage.why}")
        ended_stages.append(stage)
        run = stage.after
    return ended_stages


def _searched(
    tuning: _Tuning, run: RunRecord, space: Space, budget: Budget, name: str
) -> tuple[Sweep, list[tuple[tuple[str, ...], RunRecord]]]:
    """A search, and its best points trained at full size: (changes, run) of each."""
    task, recipe, tags = tuning.specialist.name, run.checked_recipe(), [TAG, f"stage-{name}"]
    height, width = (
        max(2 * MULTIPLE, round(tuning.small * side / MULTIPLE) * MULTIPLE) for side in (recipe.height, recipe.width)
    )
    keys = {setting.partition("=")[0] for settings in space.all_settings for setting in settings}
    shrink = tuning.small < 1 and not keys & {"height", "width"}
    smaller = [f"{task}.height={height}", f"{task}.width={width}"] if shrink else []
    small_start, full_start = tuning.start(run, smaller), tuning.start(run)
    space.check(small_start.specialist, small_start.settings.recipes, small_start.settings.changes, small_start.recipe)
    at = f", at {height} x {width}" if shrink else ""
    result = sweep(small_start, space, tuning.listen, budget, tags, at, tuning.inputs)
    points = {trial.changes: trial for trial in reversed(result.ranked) if trial.score is not None}
    best = list(reversed(points.values()))[:FINALISTS]  # two trials may have drawn one point
    if not best:
        return result, []
    finalists = checked_points(full_start, [trial.changes for trial in best])
    trained = train_points(full_start, finalists, tuning.listen, tags, tuning.inputs)
    trained.report.raise_if_cancelled()
    for (failed, fold), why in trained.report.failures.items():
        log.info(f"{failed} fold {fold}: {why}")
    candidates = {candidate.id: (changes, candidate) for changes, candidate in reversed(trained.runs)}
    complete = [candidate.id for candidate in trained.report.runs if candidate.complete and candidate.id != run.id]
    return result, [candidates[name] for name in complete]


def _viewed(
    settings: Settings, specialist: Specialist, run: RunRecord, space: Space
) -> list[tuple[tuple[str, ...], RunRecord]]:
    """A new run with the same weights for each choice of views."""
    workspace, axis, candidates = Workspace(settings.workspace), space.axes["views"], []
    assert isinstance(axis, Choice)  # views are not numbers
    for words in axis.options.values():
        recipe = Recipe.model_validate({**run.recipe, "views": _views(words)})
        if recipe.views == run.checked_recipe().views:
            continue
        log.info(f"{run.id} answers with {', '.join(recipe.views) or 'the photo alone'} ...")
        effect = try_views(
            workspace, run, specialist, recipe.views, settings.device, settings.data, store=settings.store
        )
        candidates.append((words, keep_views(workspace, effect, specialist)))
    return candidates


def _views(words: tuple[str, ...]) -> list[str]:
    """The views of a candidate, whose only change is of the form `views=["flip"]`."""
    import tomllib

    return list(tomllib.loads(f"value = {words[0].partition('=')[2]}")["value"])


def _decided(
    settings: Settings,
    specialist: Specialist,
    name: str,
    run: RunRecord,
    candidates: list[tuple[tuple[str, ...], RunRecord]],
    tried: int,
    failed: bool,
    late: bool,
) -> TunedStage:
    """Decides whether the best candidate replaces the recipe."""
    until = " before time ran out" if late else ""
    if not candidates:
        if tried:
            why = f"of {quantity(tried, 'trial')}{until}, none is another recipe to compare with it"
        elif failed:
            why = f"none of its trials could be trained{until}"
        else:
            why = "time ran out before a trial ended" if late else "there was nothing to try"
        return TunedStage(name, run, run, tried, None, (), f"{why}: the recipe stays.", late)
    workspace = Workspace(settings.workspace)
    compared = compare_runs(workspace, [run, *(finalist for _, finalist in candidates)], specialist).runs[1:]
    best = max(compared, key=lambda finalist: finalist.scores.macro_f1)
    changes = next(changes for changes, finalist in candidates if finalist.id == best.run.id)
    changed = " ".join(changes)
    comparable = OF_PROBABILITIES.isdisjoint(word.partition("=")[0] for word in changes)
    if best.verdict == "better":
        return TunedStage(
            name, run, best.run, tried, best, changes, f"{changed} is better in macro F1: the recipe moves.", late
        )
    if best.verdict == "noise" and comparable and best.log_loss_verdict == "better":
        why = f"{changed} makes {VERDICTS['noise']} in macro F1 and is better in log loss: the recipe moves."
        return TunedStage(name, run, best.run, tried, best, changes, why, late)
    why = "is worse" if best.verdict == "worse" else f"makes {VERDICTS['noise']}"
    return TunedStage(name, run, run, tried, best, changes, f"{changed} {why}: the recipe stays.", late)

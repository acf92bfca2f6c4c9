"""Training and experiments: functions for `orch train-all`, `train`, `resume`, `sweep` and `tta`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.arguments import check_range
from orchestrator.core.commands import DEFAULT_WORKSPACE, orch
from orchestrator.core.errors import ConfigError, Mistakes, check_choice
from orchestrator.core.events import Listener, ignore_events
from orchestrator.core.extras import require
from orchestrator.core.labels import TASKS
from orchestrator.core.outputs import Output, check_outputs
from orchestrator.pipeline.settings import Settings

if TYPE_CHECKING:
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.execution.executor import Executor
    from orchestrator.experiments.sweeps import Sweep
    from orchestrator.experiments.tta import ViewEffect
    from orchestrator.experiments.tuning import TunedStage
    from orchestrator.pipeline.retraining import StartingPoint
    from orchestrator.pipeline.training import Report
    from orchestrator.training.cancelling import Cancel

__all__ = [
    "Viewed", "next_step", "resume", "search", "space_template", "tracking", "train", "train_all", "train_grid", "tta", "tune",
]  # fmt: skip

log = logging.getLogger(__name__)

SMALLEST = 0.3
"""The smallest share of a recipe's height and width on which stages may search."""


@dataclass(frozen=True)
class Viewed:
    """The result of `tta`: a run's answers with several views of each photo.

    Attributes:
        effect: scores without and with views, and which answers changed.
        kept: the run made of these answers; None without `keep`.
        classes: the specialist's class names, in code order.
    """

    effect: ViewEffect
    kept: RunRecord | None
    classes: Sequence[str]


@checks_arguments
def train_all(
    settings: Settings,
    *,
    tasks: Sequence[str] = TASKS,
    listen: Listener = ignore_events,
) -> Report:
    """Trains specialists over the folds of one fold plan, or resumes that training: `orch train-all`.

    Args:
        settings: data, folds, recipes and changes to them.
        tasks: some of `age`, `gender`, `mask`.
        listen: receives progress events.

    Returns:
        The report, with the members that failed or were asked to stop.

    Raises:
        OrchestratorError: whatever is wrong with the settings or the data, before any training.
    """
    from orchestrator.pipeline.settings import check_early
    from orchestrator.specialists import chosen

    specialists = chosen(tasks)
    check_early(settings, specialists)
    from orchestrator.pipeline import training

    return training.train_all(settings, specialists, listen)


@checks_arguments
def train(
    task: str,
    settings: Settings,
    *,
    retrain_folds: Sequence[int] = (),
    base: str | None = None,
    again: bool = False,
    listen: Listener = ignore_events,
) -> Report:
    """Trains one specialist into a new run, and leaves the others' files alone: `orch train`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: data, folds, recipes and changes to them.
        retrain_folds: folds to train; the other members are shared with the base run.
        base: id of the run to start from; None: the current run.
        again: train even if a complete run with the same settings exists.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings or the data, before any training.
    """
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.specialists import trainable

    specialist = trainable(task)
    if retrain_folds and settings.folds_used:
        raise ConfigError(
            "--fold retrains some folds and shares the others; --valid-only and --folds-used train the first ones alone. Give "
            "one of them."
        )
    start = starting_point(settings, specialist, base, retrain_folds)
    from orchestrator.pipeline import training

    return training.retrain(start, listen, again)


@checks_arguments
def train_grid(task: str, settings: Settings, *, grid: Sequence[str], listen: Listener = ignore_events) -> Report:
    """Trains one run for each combination of some settings of one specialist: `orch train --grid`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: everything except the grid.
        grid: `KEY=A,B,...` words.
        listen: receives progress events.

    Returns:
        The report; its runs are in the order of the combinations, each once where several are spellings of one recipe.

    Raises:
        OrchestratorError: whatever is wrong with a combination, all of them at once, before any training.
    """
    from orchestrator.experiments.points import grid_points
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.specialists import trainable

    start = starting_point(settings, trainable(task))
    points = grid_points(start, grid)
    from orchestrator.experiments.grids import train_points

    return train_points(start, points, listen).report


@checks_arguments
def resume(
    run: str,
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    data: PathLike | None = None,
    extra: Sequence[PathLike] = (),
    jobs: int = 0,
    device: str = "auto",
    store: bool = True,
    profile: bool = False,
    executor: Executor | None = None,
    cancel: tuple[Cancel, ...] = (),
    listen: Listener = ignore_events,
) -> Report:
    """Completes a run from its record alone: `orch resume`.

    Args:
        run: the run's id.
        workspace: the workspace of the run.
        data: the photos' new location; None: unchanged.
        extra: new locations of its tables of extra photos; empty: unchanged.
        jobs: members trained at once; 0: automatic.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: decode photos once into the workspace's pixel store.
        profile: record the time of each stage in the members' histories.
        executor: where members are trained; None: on this machine.
        cancel: stop requests, checked once per batch.
        listen: receives progress events.

    Raises:
        OrchestratorError: something that the run was started with is missing or has changed.
    """
    workspace, data, tables = Path(workspace), path_or_none(data), [*map(Path, extra)]
    from orchestrator.pipeline import resuming
    from orchestrator.specialists import TRAINABLE

    settings = Settings(
        Path(), workspace, jobs=jobs, device=device, store=store, profile=profile, executor=executor, cancel=cancel
    )
    return resuming.resume(run, TRAINABLE, settings, listen, data, tables)


@checks_arguments
def search(
    task: str,
    settings: Settings,
    *,
    space: PathLike | None = None,
    trials: int = 20,
    minutes: float | None = None,
    prune: bool = True,
    out: PathLike | None = None,
    picture: PathLike | None = None,
    listen: Listener = ignore_events,
) -> Sweep:
    """Searches for better settings of one specialist: `orch sweep`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: everything except the space; its recipe is the reference.
        space: a .toml of ranges and choices; None: the default one.
        trials: total number of trials.
        minutes: time after which no trial starts; None: no limit.
        prune: stop trials that stay below the median of the others.
        out: a .toml for the winner's recipe.
        picture: a .png of every trial.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings, the space or the data, before any training.
        CancelledError: a stop was requested; the same call resumes.
    """
    out, picture, space = path_or_none(out), path_or_none(picture), path_or_none(space)
    from orchestrator.experiments.budget import Budget
    from orchestrator.recipes.spaces import read_space

    mistakes = Mistakes()
    with mistakes.collect():
        budget = Budget(trials, minutes, prune)
    with mistakes.collect():
        ranges = read_space(space)
    with mistakes.collect():
        start = _search_start(task, settings, space, out, picture)
    mistakes.raise_if_any()
    ranges.check(start.specialist, start.settings.recipes, start.settings.changes, start.recipe)
    from orchestrator.experiments.curves import draw_sweep
    from orchestrator.experiments.sweeps import sweep

    result = sweep(start, ranges, listen, budget)
    if picture is not None:
        draw_sweep(result, picture)
    if out is not None:
        _write_recipe(result.winner, out)
    return result


@checks_arguments
def tune(
    task: str,
    settings: Settings,
    *,
    stages: Sequence[str],
    space: PathLike | None = None,
    trials: int = 20,
    minutes: float | None = None,
    small: float = 0.75,
    prune: bool = True,
    out: PathLike | None = None,
    listen: Listener = ignore_events,
) -> list[TunedStage]:
    """Tunes one specialist in stages, each from the previous winner: `orch sweep --stages`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: everything except the stages; the first one starts from its recipe.
        stages: stage names, in order.
        space: a .toml that has a table for each stage; None: the default one.
        trials: number of trials per stage.
        minutes: time after which no trial starts; None: no limit.
        small: photo size while searching, as a share of the full size, 0.3 to 1.
        prune: stop trials that stay below the median of the others.
        out: a .toml for the winner's recipe.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings, the stages or the data, before any training.
        CancelledError: a stop was requested; the same call resumes.
    """
    out, space = path_or_none(out), path_or_none(space)
    from orchestrator.experiments.budget import Budget
    from orchestrator.recipes.spaces import read_stages

    mistakes = Mistakes()
    with mistakes.collect():
        check_range("--small", small, SMALLEST, 1, fraction=True)
    with mistakes.collect():
        budget = Budget(trials, minutes, prune)
    with mistakes.collect():
        spaces = read_stages(space, stages)
    with mistakes.collect():
        start = _search_start(task, settings, space, out)
    mistakes.raise_if_any()
    for stage_space in spaces.values():
        stage_space.check(start.specialist, start.settings.recipes, start.settings.changes, start.recipe)
    from orchestrator.experiments import tuning

    ended_stages = tuning.tune(start, spaces, listen, budget, small)
    if out is not None:
        _write_recipe(ended_stages[-1].after, out)
    return ended_stages


@checks_arguments
def tta(
    run: str,
    *,
    views: Sequence[str] = ("flip",),
    keep: bool = False,
    workspace: PathLike = DEFAULT_WORKSPACE,
    data: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    device: str = "auto",
    store: bool = True,
    listen: Listener = ignore_events,
) -> Viewed:
    """Test-time augmentation tried on held-out people; nothing is trained: `orch tta`.

    Args:
        run: the run's id.
        views: views in addition to the photo itself: `flip`, `zoom`, `zoom_flip`.
        keep: save the answers as a new run with the same weights.
        workspace: the workspace of the run.
        data: the photos' new location; None: unchanged.
        columns: our column name -> the manifest's; None: unchanged.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: decode photos once into the workspace's pixel store.
        listen: receives progress events.

    Raises:
        OrchestratorError: views that the specialist must not have, photos that are not there, a run that cannot be scored.
    """
    workspace, data = Path(workspace), path_or_none(data)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.core.device_names import check_device
    from orchestrator.data.readers import check_source
    from orchestrator.recipes.names import VIEWS

    mistakes = Mistakes()
    for view in views:
        with mistakes.collect():
            check_choice("--views", view, VIEWS)
    if not views:
        mistakes.add(ConfigError(f"--views: names no view; allowed: {', '.join(VIEWS)}."))
    with mistakes.collect():
        check_device(device)
    if data is not None:
        with mistakes.collect():
            check_source(data, columns)
    with mistakes.collect():
        record = Workspace(workspace).run(run)
    mistakes.raise_if_any()
    from orchestrator.experiments.tta import check_run, keep_views, try_views
    from orchestrator.specialists import trainable

    check_run(record)
    specialist = trainable(record.task)
    opened_workspace = Workspace(workspace)
    effect = try_views(opened_workspace, record, specialist, views, device, data, columns, store, listen)
    return Viewed(effect, keep_views(opened_workspace, effect, specialist) if keep else None, specialist.classes)


@checks_arguments
def next_step(runs: Sequence[RunRecord], *, of_experiment: bool = False) -> str:
    """What to do next with a run, or with runs that were trained together, as a command to paste.

    Args:
        runs: complete runs, one or more.
        of_experiment: whether the run is the winner of a grid or a search, none of whose runs is current.

    Raises:
        ConfigError: no runs, or several of an experiment.
    """
    from orchestrator.pipeline.next_steps import after_experiment, after_training, after_training_of_all
    from orchestrator.specialists import TRAINABLE

    if not runs or (of_experiment and len(runs) > 1):
        raise ConfigError(f"next_step got {len(runs)} runs; it takes one or more, and one of an experiment.")
    if len(runs) > 1:
        return after_training_of_all(runs, TRAINABLE)
    return after_experiment(runs[0]) if of_experiment else after_training(runs[0], TRAINABLE)


@contextmanager
@checks_arguments
def tracking(to: Sequence[str], *, workspace: PathLike = DEFAULT_WORKSPACE) -> Iterator[Listener]:
    """A listener that sends each run to trackers while it trains: `--track`.

    Args:
        to: `tensorboard`, `mlflow` or `wandb`, in the workspace; `KIND=PLACE` elsewhere; empty: none.
        workspace: the workspace of the runs.

    Raises:
        OrchestratorError: an unknown tracker, one that is not installed, or one that cannot be reached.
    """
    if not to:
        yield ignore_events
        return
    from orchestrator.experiments.tracking import Tracked

    tracked = Tracked(to, Path(workspace))
    try:
        yield tracked
    finally:
        tracked.close()


@checks_arguments
def space_template(*, stages: bool = False) -> str:
    """The default space of a search as a .toml to edit: `orch sweep --print-space`.

    Args:
        stages: whether it has a table for each stage of `tune`.
    """
    from orchestrator.recipes.spaces import DEFAULT, STAGES

    return STAGES if stages else DEFAULT


def _search_start(
    task: str, settings: Settings, space: Path | None, out: Path | None, picture: Path | None = None
) -> StartingPoint:
    """Where a search starts; rejects mistakes in names and tables."""
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.recipes.load import choices_of
    from orchestrator.specialists import trainable

    require(f"`{orch('sweep', task, workspace=settings.workspace)}`", "sweep")
    specialist = trainable(task)
    outputs = [
        Output(option, path, (suffix,))
        for option, path, suffix in (("--out", out, ".toml"), ("--picture", picture, ".png"))
        if path is not None
    ]
    files = [Path(name) for name in choices_of((task,), settings.recipes)[0].values()]
    inputs = [settings.data, *([space] if space else []), *files, *settings.extra]
    check_outputs(outputs, inputs, settings.workspace)
    start = starting_point(settings, specialist)
    start.check_scored("a search")
    return start


def _write_recipe(run: RunRecord, out: Path) -> None:
    """Writes the recipe of a search's winner as a file to train from."""
    from orchestrator.core.outputs import replace_output
    from orchestrator.recipes.load import recipe_as_toml
    from orchestrator.recipes.schema import Recipe

    recipe = Recipe.model_validate({**run.recipe, "about": f"found by a search: {run.id}, from {run.recipe_title}"})
    with replace_output(out) as temporary:
        temporary.write_text(recipe_as_toml(recipe), encoding="utf-8")
    log.info(f"{out}: the recipe of {run.id}.")

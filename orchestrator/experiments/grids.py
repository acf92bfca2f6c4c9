"""A controlled experiment in one command: every combination of some settings, trained in one queue, all of it on record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from orchestrator.commands import orch
from orchestrator.config import load_recipes
from orchestrator.errors import ConfigError, Mistakes, Problem, counted
from orchestrator.experiments.runs import known_run, run_of, tag
from orchestrator.inputs import read_inputs
from orchestrator.pipeline import Report, train_runs
from orchestrator.preparation import Observer, Work, pixels_of
from orchestrator.recipe import Recipe
from orchestrator.records.run import RunRecord
from orchestrator.retraining import base_run, settle, tell_base
from orchestrator.settings import Settings
from orchestrator.specialist import Specialist

__all__ = ["points_of", "train_grid", "train_points"]

MOST = 200  # runs a grid; more are a search (`orch sweep`)
TAG = "grid"


def points_of(words: Sequence[str]) -> list[list[str]]:
    """Every combination of `KEY=A,B,...` words, each as `KEY=VALUE` words, the last key changing fastest.

    Commas within brackets, braces or quotes belong to a value: `views=[],["flip"]` are two.

    Raises:
        ConfigError: a word that is none, a key twice, or more combinations than a grid should have.
    """
    wrong, axes = Mistakes(), {}
    for word in words:
        key, equals, values = word.partition("=")
        choices = [one.strip() for one in _split(values)]
        if not equals or not key.strip() or not all(choices):
            wrong.add(ConfigError(f"--grid {word}: write KEY=A,B, as in loss=cross_entropy,focal."))
        elif key.strip() in axes:
            wrong.add(ConfigError(f"--grid {word}: {key.strip()} stands twice; give all its values at once."))
        else:
            axes[key.strip()] = list(dict.fromkeys(choices))
    wrong.tell()
    points = [[f"{key}={value}" for key, value in zip(axes, values, strict=True)] for values in product(*axes.values())]
    if len(points) > MOST:
        raise ConfigError(
            f"--grid: {len(points)} combinations, at most {MOST}. Take fewer values, or search: `{orch('sweep', '--help')}`."
        )
    return points


def _split(text: str) -> list[str]:
    """A text at its commas, those within brackets and quotes aside."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def train_grid(settings: Settings, specialist: Specialist, words: Sequence[str], observer: Observer) -> Report:
    """Trains one specialist by every combination of some settings; no run becomes the current one.

    Args:
        settings: what is asked for beside the grid.
        specialist: which.
        words: `KEY=A,B,...`, keys as in `--set` without the task.
        observer: who watches.

    Returns:
        The report; its runs are in the order of the combinations.

    Raises:
        OrchestratorError: whatever is wrong with a combination, all of them at once, before any training.
    """
    points, task = points_of(words), specialist.name
    own = {word.partition("=")[0].removeprefix(f"{task}.") for word in points[0]}
    both = [change for change in settings.changes if change.partition("=")[0].removeprefix(f"{task}.") in own]
    if both:
        raise ConfigError(f"--set {both[0]}: --grid changes that too; let one of them do it.")
    return train_points(settings, specialist, points, observer)


def train_points(
    settings: Settings,
    specialist: Specialist,
    points: Sequence[Sequence[str]],
    observer: Observer,
    base: RunRecord | None = None,
    tags: Sequence[str] = (TAG,),
) -> Report:
    """Trains one specialist by each of some groups of settings, all in one queue; no run becomes the current one.

    What a run has already is found; killed, the same call goes on where it stood.

    Args:
        settings: what is asked for beside the points.
        specialist: which.
        points: `KEY=VALUE` words of each, keys as in `--set` without the task.
        observer: who watches.
        base: the run whose recipe is taken where none is named; None: the current one.
        tags: of the runs.

    Raises:
        OrchestratorError: whatever is wrong with a point, all of them at once, before any training.
    """
    started, task = time.monotonic(), specialist.name
    settings = settle(settings, task)
    base = base or base_run(settings.workspace, task, None)
    wrong, asked, seen = Mistakes(), [], set()
    problems: dict[Problem, None] = {}  # each once, though it spoils many combinations
    bases = {task: Recipe.model_validate(base.recipe)} if base else None
    for point in points:
        own = [f"{task}.{word.removeprefix(f'{task}.')}" for word in point]
        one = replace(settings, changes=[*settings.changes, *own])
        try:
            recipe = load_recipes({task: specialist}, one.recipes, one.changes, bases)[task]
        except ConfigError as error:
            places = {f"--set {word}": f"--grid {word.removeprefix(f'{task}.')}" for word in own}
            problems |= dict.fromkeys(
                replace(each, where=places.get(each.where, each.where)) for each in error.problems
            )
            if not error.problems:
                raise
            continue
        if recipe.digest() not in seen:  # two spellings of one setting are one run
            seen.add(recipe.digest())
            asked.append(one)
    if problems:
        raise ConfigError(f"{counted(len(problems), 'mistake')} in the settings:", list(problems))
    tell_base(base, settings, observer.say)
    made_from = []
    for number, one in enumerate(asked):
        with wrong.kept():
            made_from.append(
                read_inputs(one, {task: specialist}, observer.say if number == 0 else lambda _: None, base)
            )
    wrong.tell()
    observer.say(f"{counted(len(asked), 'combination')} of {counted(len(made_from[0].folds), 'fold')} each.")
    works: list[Work] = []
    runs: list[RunRecord] = []
    for one, inputs in zip(asked, made_from, strict=True):
        run = known_run(one, inputs, task)
        if run is not None and run.complete:
            observer.say(f"{run.id} has {_words(one, task)} already.")
            tag(run, tags)
            runs.append(run)
            continue
        pixels = pixels_of(one, inputs, {task}, observer)[task]  # before any run is written: a photo may be damaged
        run = run_of(one, inputs, task, len(asked) * len(inputs.folds), base, tags)
        runs.append(run)
        works.append(Work(one, specialist, inputs, run, pixels))
    return train_runs(runs, works, observer, started, offer=False)


def _words(settings: Settings, task: str) -> str:
    """The changes of a combination, without the task before their keys."""
    return " ".join(change.removeprefix(f"{task}.") for change in settings.changes) or "this recipe"

"""The combinations of a grid, and whether each is a valid recipe. No data is read, nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, Problem, quantity
from orchestrator.pipeline.retraining import StartingPoint
from orchestrator.pipeline.settings import Settings, check_face
from orchestrator.recipes.load import load_recipes

__all__ = ["Point", "checked_points", "grid_points", "points_of"]

MOST = 200  # runs per grid; use a search for more (`orch sweep`)


@dataclass(frozen=True)
class Point:
    """A combination of settings that is a valid recipe.

    Attributes:
        words: its `KEY=VALUE` words, as they were given.
        settings: all that it is trained by, these words among them.
        digest: of the recipe; two spellings of one recipe have the same.
    """

    words: tuple[str, ...]
    settings: Settings
    digest: str


def points_of(words: Sequence[str]) -> list[list[str]]:
    """Every combination of `KEY=A,B,...` words, each as `KEY=VALUE` words, the last key changing fastest.

    Commas within brackets, braces or quotes belong to a value: `views=[],["flip"]` are two.

    Raises:
        ConfigError: an invalid word, a repeated key, or more than `MOST` combinations.
    """
    mistakes, axes = Mistakes(), {}
    for word in words:
        key, equals, values = word.partition("=")
        choices = [value.strip() for value in _split(values)]
        if not equals or not key.strip() or not all(choices):
            mistakes.add(ConfigError(f"--grid {word}: write KEY=A,B, as in loss=cross_entropy,focal."))
        elif key.strip() in axes:
            mistakes.add(ConfigError(f"--grid {word}: {key.strip()} stands twice; give all its values at once."))
        else:
            axes[key.strip()] = list(dict.fromkeys(choices))
    mistakes.raise_if_any()
    points = [[f"{key}={value}" for key, value in zip(axes, values, strict=True)] for values in product(*axes.values())]
    if len(points) > MOST:
        raise ConfigError(
            f"--grid: {len(points)} combinations, at most {MOST}. Take fewer values, or search: `{orch('sweep', '--help')}`."
        )
    return points


def _split(text: str) -> list[str]:
    """Splits a text at its commas, except those within brackets or quotes."""
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


def grid_points(start: StartingPoint, words: Sequence[str]) -> list[Point]:
    """The combinations of `--grid`, in the order of `points_of`.

    Args:
        start: everything except the grid.
        words: `KEY=A,B,...`, keys as in `--set` without the task.

    Raises:
        ConfigError: an invalid grid, or one with a setting that `--set` changes too; then as in `checked_points`.
    """
    combinations, task = points_of(words), start.task
    keys = {word.partition("=")[0].removeprefix(f"{task}.") for word in combinations[0]}
    both = [change for change in start.settings.changes if change.partition("=")[0].removeprefix(f"{task}.") in keys]
    if both:
        raise ConfigError(f"--set {both[0]}: --grid changes that too; let one of them do it.")
    return checked_points(start, combinations)


def checked_points(start: StartingPoint, combinations: Sequence[Sequence[str]]) -> list[Point]:
    """The combinations as points, in their order.

    Args:
        start: everything except the combinations.
        combinations: the `KEY=VALUE` words of each, keys as in `--set` without the task.

    Raises:
        ConfigError: every setting that a recipe cannot have; or faces are asked for, and the detector is not installed.
    """
    task, points = start.task, list[Point]()
    problems: dict[Problem, None] = {}  # each once, though it spoils many combinations
    of_base = start.recipe
    bases = {task: of_base} if of_base else None
    for combination in combinations:
        words = [f"{task}.{word.removeprefix(f'{task}.')}" for word in combination]
        settings = replace(start.settings, changes=[*start.settings.changes, *words])
        try:
            recipe = load_recipes({task: start.specialist}, settings.recipes, settings.changes, bases)[task]
        except ConfigError as error:
            places = {f"--set {word}": f"--grid {word.removeprefix(f'{task}.')}" for word in words}
            problems |= dict.fromkeys(
                replace(each, where=places.get(each.where, each.where)) for each in error.problems
            )
            if not error.problems:
                raise
            continue
        check_face(recipe)
        points.append(Point(tuple(combination), settings, recipe.digest()))
    if problems:
        raise ConfigError(f"{quantity(len(problems), 'mistake')} in the settings:", list(problems))
    return points

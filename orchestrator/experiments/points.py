"""The combinations of a grid, and whether each is a valid recipe. No data is read, nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, Problem, quantity
from orchestrator.pipeline.settings import Settings, base_recipe, check_face
from orchestrator.recipes.load import load_recipes
from orchestrator.specialist import Specialist

__all__ = ["grid_points", "points_of", "settings_of"]

MOST = 200  # runs per grid; use a search for more (`orch sweep`)


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


def grid_points(settings: Settings, specialist: Specialist, words: Sequence[str]) -> list[list[str]]:
    """The combinations of `--grid`, as in `points_of`.

    Raises:
        ConfigError: an invalid grid, or one with a setting that `--set` changes too.
    """
    points, task = points_of(words), specialist.name
    keys = {word.partition("=")[0].removeprefix(f"{task}.") for word in points[0]}
    both = [change for change in settings.changes if change.partition("=")[0].removeprefix(f"{task}.") in keys]
    if both:
        raise ConfigError(f"--set {both[0]}: --grid changes that too; let one of them do it.")
    return points


def settings_of(
    settings: Settings, specialist: Specialist, points: Sequence[Sequence[str]], base: RunRecord | None
) -> list[Settings]:
    """The settings of each point, without duplicates.

    Args:
        settings: everything except the points.
        specialist: the specialist to train.
        points: the `KEY=VALUE` words of each point, keys as in `--set` without the task.
        base: the run whose recipe is used if none is named.

    Raises:
        ConfigError: every setting that a recipe cannot have; or faces are asked for, and the detector is not installed.
    """
    task, found, seen = specialist.name, list[Settings](), set[str]()
    problems: dict[Problem, None] = {}  # each once, though it spoils many combinations
    of_base = base_recipe(settings, base)
    bases = {task: of_base} if of_base else None
    for point in points:
        words = [f"{task}.{word.removeprefix(f'{task}.')}" for word in point]
        changed = replace(settings, changes=[*settings.changes, *words])
        try:
            recipe = load_recipes({task: specialist}, changed.recipes, changed.changes, bases)[task]
        except ConfigError as error:
            places = {f"--set {word}": f"--grid {word.removeprefix(f'{task}.')}" for word in words}
            problems |= dict.fromkeys(
                replace(each, where=places.get(each.where, each.where)) for each in error.problems
            )
            if not error.problems:
                raise
            continue
        if recipe.digest() not in seen:  # two spellings of one setting are one run
            check_face(recipe)
            seen.add(recipe.digest())
            found.append(changed)
    if problems:
        raise ConfigError(f"{quantity(len(problems), 'mistake')} in the settings:", list(problems))
    return found

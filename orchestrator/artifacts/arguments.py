"""Options of printed commands that train as a run was trained: its data, recipe, fold plan and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.commands import data_arguments, display_path
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.labels import CLASSES
from orchestrator.recipes.names import DEFAULT_RECIPE, is_file_name

if TYPE_CHECKING:
    from orchestrator.specialist import Specialist

__all__ = [
    "MISSING_RECIPE",
    "moved_arguments",
    "plan_arguments",
    "recipe_arguments",
    "source_arguments",
    "training_arguments",
]

MISSING_RECIPE = "FILE.toml"
"""Stands in printed commands for a recipe's file that is gone or has changed."""


def training_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name what a run was trained from: data, recipe, fold plan, seed.

    Args:
        run: record of the run.
        data: present path of the photos; None: the recorded one.
        extra: present paths of its tables of extra photos; empty: the recorded ones.
    """
    return [*source_arguments(run, data, extra), "--base", run.id, *plan_arguments(run), "--seed", str(run.seed)]


def source_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name a run's photos, extra ones among them; as `training_arguments`."""
    tables = extra or run.data.extra_tables
    distinct = run.data.distinct_people
    return data_arguments(data or Path(run.data.source), run.data.columns, distinct, tables)


def recipe_arguments(run: RunRecord, own: Specialist, others: Iterable[Specialist]) -> list[str]:
    """The options of a printed command that trains other specialists as a run was trained: its recipe, if all have it, and those
    of its changes that name no task.

    A recipe's file that is gone, or has changed since the run was made, is `FILE.toml`: another recipe would be trained.

    Args:
        run: record of the run.
        own: the run's specialist.
        others: the specialists to train.
    """
    from orchestrator.recipes.load import recipe_files

    name = run.recipe_name
    options: list[str] = []
    if is_file_name(name):
        options = ["--recipe", display_path(Path(name)) if _is_recipe_of(run, own) else MISSING_RECIPE]
    elif name != DEFAULT_RECIPE and all(name in recipe_files(specialist) for specialist in others):
        options = ["--recipe", name]
    common = [change for change in run.changes if change.partition("=")[0].partition(".")[0] not in CLASSES]
    return [*options, *(word for change in common for word in ("--set", change))]


def _is_recipe_of(run: RunRecord, specialist: Specialist) -> bool:
    """Whether a run's recipe is what its recipe's file and its changes say today."""
    from orchestrator.recipes.load import load_recipes

    try:
        recipes = load_recipes({specialist.name: specialist}, [run.recipe_name], run.changes)
        return recipes[specialist.name].digest() == run.checked_recipe().digest()
    except OrchestratorError:
        return False


def plan_arguments(run: RunRecord) -> list[str]:
    """The options of a printed training command that name a run's fold plan."""
    folds, seed = (run.plan.k, run.plan.seed) if run.plan else (0, 0)
    return ["--folds", str(folds), "--plan-seed", str(seed)]


def moved_arguments(run: RunRecord, data: Path | None = None) -> list[str]:
    """The options of a printed command that give a run's sources; placeholders for those that no longer exist.

    Args:
        run: record of the run.
        data: present path of the photos, if it is known.
    """
    is_unmoved = data is None and Path(run.data.source).exists()
    options = [] if is_unmoved else ["--data", "DIR" if data is None else display_path(data)]
    tables = run.data.extra_tables
    if not all(table.is_file() for table in tables):
        for table in tables:
            options += ["--extra", display_path(table) if table.is_file() else "TABLE"]
    return options

"""Options of printed commands that train as a run was trained: its data, recipe, fold plan and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.commands import data_arguments, display_path
from orchestrator.core.labels import CLASSES
from orchestrator.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from orchestrator.specialist import Specialist

__all__ = ["moved_arguments", "plan_arguments", "recipe_arguments", "source_arguments", "training_arguments"]


def training_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name what a run was trained from: data, recipe, fold plan, seed.

    Args:
        run: its record.
        data: where the photos are now; None: where they were.
        extra: where its tables of extra photos are now; none: where they were.
    """
    return [*source_arguments(run, data, extra), "--base", run.id, *plan_arguments(run), "--seed", str(run.seed)]


def source_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name a run's photos, extra ones among them; as `training_arguments`."""
    tables = extra or run.data.extra_tables
    distinct = run.data.distinct_people
    return data_arguments(data or Path(run.data.source), run.data.columns, distinct, tables)


def recipe_arguments(run: RunRecord, specialists: Iterable[Specialist]) -> list[str]:
    """The options of a printed command that trains specialists as a run was trained: its recipe, if all have it, and
    those of its changes that name no task."""
    from orchestrator.recipes.load import recipe_files

    name = run.recipe_name
    shared = Path(name).is_file() or all(name in recipe_files(specialist) for specialist in specialists)
    words = (
        ["--recipe", display_path(Path(name)) if name.endswith(".toml") else name]
        if shared and name != DEFAULT_RECIPE
        else []
    )
    common = [change for change in run.changes if change.partition("=")[0].partition(".")[0] not in CLASSES]
    return [*words, *(word for change in common for word in ("--set", change))]


def plan_arguments(run: RunRecord) -> list[str]:
    """The options of a printed training command that name a run's fold plan."""
    folds, seed = (run.plan.k, run.plan.seed) if run.plan else (0, 0)
    return ["--folds", str(folds), "--plan-seed", str(seed)]


def moved_arguments(run: RunRecord, data: Path | None = None) -> list[str]:
    """The options of a printed command that give a run's sources; placeholders for those that no longer exist.

    Args:
        run: its record.
        data: where the photos are, if that is known.
    """
    is_found = data is None and Path(run.data.source).exists()
    words = [] if is_found else ["--data", "DIR" if data is None else display_path(data)]
    tables = run.data.extra_tables
    if not all(table.is_file() for table in tables):
        words += [word for table in tables for word in ("--extra", display_path(table) if table.is_file() else "TABLE")]
    return words

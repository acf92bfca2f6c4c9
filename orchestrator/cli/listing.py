"""Lists of runs in the terminal, with reports on those that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.console import grid, out, share, warn
from orchestrator.core.errors import DamagedError

if TYPE_CHECKING:
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.artifacts.workspace import Workspace

__all__ = ["chosen_facts", "current_runs", "facts_beside", "print_list", "recipe_of", "tell_damaged"]

SHOWN = ("run", "recipe", "backbone", "seed", "plan", "score", "status", "current", "created", "tag", "task")
"""Facts that the list shows anyway; others get a column when `--where` asks for them."""


def current_runs(place: Workspace, runs: Sequence[RunRecord], wrong: list[DamagedError]) -> dict[str, str | None]:
    """Task -> its current run, of tasks that have runs; damaged files are added to `wrong` and left out."""
    found: dict[str, str | None] = {}
    for task in dict.fromkeys(run.task for run in runs):
        try:
            found[task] = place.current(task)
        except DamagedError as error:
            wrong.append(error)
    return found


def facts_beside(run: RunRecord, current: str | None, wrong: list[DamagedError], settings: bool) -> dict[str, Any]:
    """The facts of a run for `--where` and `--sort`; damaged files are added to `wrong` and left out."""
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.differences import flat
    from orchestrator.artifacts.summary import facts_of, lost_members

    wrong += lost_members(run)
    notes = Annotations()
    try:
        notes = Annotations.read(run.folder)
    except DamagedError as error:
        wrong.append(error)
    known = facts_of(run, current, notes)
    return {**flat(run.recipe), **known} if settings else known


def chosen_facts(facts: list[dict[str, Any]], where: str, sort: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The facts that meet the conditions, in the requested order, and the keys that the conditions use."""
    if not facts or (not where and not sort):
        return facts, []
    from orchestrator.artifacts.filters import conditions_of, in_order

    keys = list(dict.fromkeys(key for row in facts for key in row))
    numbers = {
        key
        for row in facts
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    conditions = conditions_of(where, keys, numbers)
    found = [row for row in facts if all(condition.holds(row) for condition in conditions)]
    named = list(dict.fromkeys(condition.key for condition in conditions))
    return in_order(found, sort, keys) if sort else found, named


def print_list(found: list[tuple[RunRecord, dict[str, Any]]], named: Sequence[str]) -> None:
    """The table of runs and their facts; keys that were asked for have a column."""
    named_columns = [key for key in named if key not in SHOWN]
    columns = ("run", "recipe", "backbone", "seed", "folds", "plan", "macro F1", "state", "created", "tags")
    # The backbone is the longest, and is told by the recipe's name.
    table = grid(
        "", *columns, *named_columns, keep=("macro F1", "state", "folds", *named_columns, "recipe", "seed", "plan")
    )
    for run, facts in found:
        score = "-" if facts["score"] is None else share(facts["score"])
        folds = (
            f"{facts['members']} of {len(run.folds)}" if run.plan is None else f"{facts['members']} of {run.plan['k']}"
        )
        state = "current" if facts["current"] and facts["status"] == run.status else facts["status"]
        table.add_row(
            run.id, recipe_of(run), run.recipe["backbone"], " ".join(map(str, run.seeds)), folds, (facts["plan"] or "-")[:6],
            score, state, run.created[:16].replace("T", " "), " ".join(facts["tag"]),
            *(str(facts.get(key, "-")) for key in named_columns),
        )  # fmt: skip
    out().print(table)


def tell_damaged(wrong: list[DamagedError]) -> None:
    """Prints what could not be read, each once, and then exits with code 1."""
    for message in dict.fromkeys(error.message for error in wrong):
        warn(message)
    if wrong:
        raise typer.Exit(1)


def recipe_of(run: RunRecord) -> str:
    """The recipe's name, and how many `--set` words changed it."""
    return run.recipe_name + (f" +{len(run.changes)}" if run.changes else "")

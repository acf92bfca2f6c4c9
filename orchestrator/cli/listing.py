"""Lists of runs in the terminal, with reports on those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.console import grid, print_error, score_text, stdout_console
from orchestrator.core.errors import DamagedError

if TYPE_CHECKING:
    from orchestrator.artifacts.lists import RunList
    from orchestrator.artifacts.run import RunRecord

__all__ = ["asked_to_delete", "print_list", "recipe_of", "report_damaged"]

SHOWN = ("run", "recipe", "backbone", "seed", "plan", "score", "status", "current", "created", "tag", "task", "person")
"""Facts that the list shows anyway; others get a column when `--where` asks for them."""


def print_list(listing: RunList) -> None:
    """The table of runs and their facts; keys that were asked for have a column."""
    named_columns = [key for key in listing.keys if key not in SHOWN]
    columns = ("run", "recipe", "backbone", "seed", "folds", "plan", "macro F1", "state", "created", "tags")
    # The backbone's column is the widest, and the recipe's name says it too: it is dropped first.
    table = grid(
        "", *columns, *named_columns, keep=("macro F1", "state", "folds", *named_columns, "recipe", "seed", "plan")
    )
    for listed in listing.runs:
        run, facts = listed.run, listed.facts
        score = "-" if facts["score"] is None else score_text(facts["score"])
        folds = f"{facts['members']} of {len(run.folds)}" if run.plan is None else f"{facts['members']} of {run.plan.k}"
        state = "current" if facts["current"] and facts["status"] == run.status else facts["status"]
        table.add_row(
            run.id, recipe_of(run), run.backbone, " ".join(map(str, run.seeds)), folds, (facts["plan"] or "-")[:6],
            score, state, run.created[:16].replace("T", " "), " ".join(facts["tag"]),
            *(str(facts.get(key, "-")) for key in named_columns),
        )  # fmt: skip
    stdout_console().print(table)


def asked_to_delete(yes: bool) -> Callable[[Sequence[str]], None]:
    """Asks whether some runs or ensembles may be deleted, unless `yes` says so already; a no ends the command."""

    def confirm(names: Sequence[str]) -> None:
        if not yes:
            typer.confirm(f"Delete {', '.join(names)} for good?", abort=True, err=True)

    return confirm


def report_damaged(damaged: Sequence[DamagedError]) -> None:
    """Prints what could not be read, each once, and then exits with code 1."""
    for message in dict.fromkeys(error.message for error in damaged):
        print_error(message)
    if damaged:
        raise typer.Exit(1)


def recipe_of(run: RunRecord) -> str:
    """The recipe's name, and how many `--set` words changed it."""
    return run.recipe_title + (f" +{len(run.changes)}" if run.changes else "")

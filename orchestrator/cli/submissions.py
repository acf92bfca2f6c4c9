"""`orch submissions diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import grid, print_json, print_message, print_result, stdout_console
from orchestrator.cli.options import JsonOption
from orchestrator.core.errors import quantity

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Submission files: compare two.", rich_markup_mode="rich")

SHOWN_PAIRS = 30


@app.callback()
def root() -> None:
    """A group of one command so far; a callback keeps its name."""


@app.command("diff")
def diff(
    first: Annotated[Path, typer.Argument(help="A submission: ImageID, ans.")],
    second: Annotated[Path, typer.Argument(help="Another for the same photos.")],
    eval_folder: Annotated[
        Path | None, typer.Option("--eval", help="The folder with images/, to draw the photos concerned.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Where to draw them, a .png; differences.png, if left out.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how many answers differ between two submissions, from which label to which, and the photos concerned.

    \b
    Examples:
      orch submissions diff monday.csv tuesday.csv
      orch submissions diff one.csv two.csv --eval people/eval --picture d.png
    """
    from orchestrator import api
    from orchestrator.core.labels import LABELS

    differences = api.compare_submissions(first, second, eval_folder=eval_folder, picture=picture)
    if json:
        print_json(differences.as_dict())
        return
    count = len(differences.photos)
    print_result(
        f"{count:,} of {differences.answered:,} answers differ ({100 * count / max(1, differences.answered):.2f} %)."
    )
    for path, empty in zip((first, second), differences.unanswered, strict=True):
        if empty:
            print_message(
                f"{path}: {quantity(empty, 'photo')} without an answer; they count neither as equal nor as different."
            )
    if count:
        sides = (first.stem, second.stem)  # without the second, rows that differ would look the same
        table = grid("", *sides, "photos", "differ in", essential=sides)
        pairs = differences.pairs
        for pair in pairs[:SHOWN_PAIRS]:
            left, right = (f"{label} {LABELS[label]}" for label in (pair.first, pair.second))
            table.add_row(left, right, f"{pair.photos:,}", pair.tasks)
        stdout_console().print(table)
        if len(pairs) > SHOWN_PAIRS:
            print_message(f"... and {len(pairs) - SHOWN_PAIRS} more pairs of labels; --json gives all.")
        print_message(
            "by task: " + ", ".join(f"{task} {number:,}" for task, number in differences.by_task.items()) + "."
        )

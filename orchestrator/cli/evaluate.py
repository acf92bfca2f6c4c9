"""`orch evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import print_json, print_message, stdout_console
from orchestrator.cli.options import (
    OTHER_WORDS,
    ByOption,
    ColumnsOption,
    DataOption,
    DeviceOption,
    JsonOption,
    WorkspaceOption,
    column_names,
)
from orchestrator.cli.scores import PEOPLE_COUNT, print_labels, print_scores, print_slices
from orchestrator.core.commands import orch

__all__ = ["evaluate"]

WORST = 5
"""Slices shown of each task."""


def evaluate(
    data: DataOption,
    workspace: WorkspaceOption = Path("runs"),
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help=f"Instead of the ensemble's own. {OTHER_WORDS}.")
    ] = None,
    columns: ColumnsOption = [],
    distinct: Annotated[
        bool,
        typer.Option(
            "--distinct-people",
            help="People named as, or almost as, people of the training are others: only photos tell.",
        ),
    ] = False,
    allow_seen: Annotated[
        bool, typer.Option("--allow-seen", help="Leave out people whom members have seen, instead of refusing them.")
    ] = False,
    by: ByOption = [],
    engine: Annotated[str, typer.Option("--engine", help="As in `orch predict`.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="As in `orch predict`.")] = "auto",
    device: DeviceOption = "auto",
    picture: Annotated[Path | None, typer.Option("--picture", help="A .png of the scores.")] = None,
    json: JsonOption = False,
) -> None:
    """Score an ensemble on labelled photos of people whom none of its members has seen.

    All members answer for each photo, as in prediction; out of fold only those that have not seen its person do. People whom a
    member was trained on, known by their photos and their names, are refused.

    \b
    Examples:
      orch evaluate --data people/held_out
      orch evaluate --data others.csv --columns person=subject_id --picture scores.png
      orch evaluate --data everybody --allow-seen --json
    """
    from orchestrator import api

    with bars() as listen:
        result = api.evaluate(
            data, workspace=workspace, ensemble=ensemble, strategy=strategy, columns=column_names(columns),
            distinct_people=distinct, allow_seen=allow_seen, by=by, engine=engine, precision=precision, device=device,
            picture=picture, listen=listen,
        )  # fmt: skip
    if json:
        print_json(result.as_dict())
        return
    photos = next(iter(result.evaluation.values())).scores.counts.sum()
    people = next(iter(result.evaluation.values())).people
    voted = "" if result.strategy == result.record.read_combiner().title else f", {result.strategy},"
    title = f"{result.record.id}{voted} on {photos:,} photos of {people:,} people whom no member has seen"
    print_scores(title, result.evaluation, None if voted else result.record.evaluation)
    if (label := result.evaluation.get("label")) is not None:
        print_labels(label)
        span = label.intervals["macro_f1"]
        stdout_console().print(
            f"\n[bold]18-way macro F1 {label.scores.macro_f1:.4f}[/bold], 95 % interval {span.low:.4f} to {span.high:.4f}; "
            f"accuracy {label.scores.accuracy:.4f}; held out, {photos:,} photos of {people:,} people."
        )
    tasks = [name for name in result.evaluation if name != "label"]
    asked_for = [part for part in result.slices if set(part.by) & set(by)]
    print_slices(title, [part for part in result.slices if part not in asked_for], tasks, WORST)
    if asked_for:
        print_slices(title, asked_for, tasks)
    print_message(f"{PEOPLE_COUNT} Of slices by class only the worst are shown; --json has all.")
    if result.record.evaluation is not None:
        print_message("Out of fold one member of each run answers for a photo; here all of them vote.")
    against = orch("data", "alike", "--data", data, "--against", "TRAINING")
    print_message(f"Copies that were saved again are not known by their content; `{against}` finds them.")
    if picture is not None:
        print_message(f"{picture}: the scores.")

"""`orch ensembles list | compare | slices | use | delete`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.comparison import print_ensemble_comparison
from orchestrator.cli.console import grid, print_json, print_message, score_text, stdout_console
from orchestrator.cli.listing import asked_to_delete, report_damaged
from orchestrator.cli.options import (
    ByOption,
    ColumnsOption,
    JsonOption,
    TasksOption,
    WorkspaceOption,
    column_names,
    split_commas,
)
from orchestrator.cli.scores import PEOPLE_COUNT, print_slices
from orchestrator.core.commands import orch
from orchestrator.core.errors import check_choice
from orchestrator.core.labels import TASKS

__all__ = ["app"]

FEW = 9  # runs that the list names: three of each specialist

app = typer.Typer(
    no_args_is_help=True, help="Ensembles: list, compare, look into, choose, delete.", rich_markup_mode="rich"
)


@app.command("list")
def list_ensembles(workspace: WorkspaceOption = Path("runs"), json: JsonOption = False) -> None:
    """List the workspace's ensembles with their scores, the current one marked.

    \b
    Examples:
      orch ensembles list
    """
    from orchestrator import api

    listing = api.list_ensembles(workspace=workspace)
    if json:
        print_json([listed.as_dict() for listed in listing.ensembles])
        report_damaged(listing.damaged)
        return
    table = grid(
        "", "ensemble", "strategy", "runs", "tables", "18-way macro F1", "95 % interval", "state", "created",
        keep=("18-way macro F1", "strategy", "state", "95 % interval", "runs"), text=("strategy", "runs", "tables"),
    )  # fmt: skip
    table.columns[2].justify = table.columns[3].justify = "left"
    for listed in listing.ensembles:
        record = listed.record
        runs, score, span = record.run_ids, "-", ""
        if record.evaluation:
            label = record.evaluation["label"]
            interval = label.intervals["macro_f1"]
            score, span = score_text(label.macro_f1), f"{interval.low:.4f} to {interval.high:.4f}"
        tables = ", ".join(table.name for table in record.external)
        created = record.created[:16].replace("T", " ")
        run_names = " ".join(runs[:FEW]) + (f" and {len(runs) - FEW} more" if len(runs) > FEW else "")
        table.add_row(record.id, record.strategy.short, run_names, tables, score, span, listed.state, created)
    stdout_console().print(table)
    if not listing.ensembles and not listing.damaged:
        print_message(f"no ensembles yet: `{orch('ensemble', '--strategy', 'soft', workspace=workspace)}` makes one.")
    report_damaged(listing.damaged)


@app.command("compare")
def compare_ensembles(
    ensembles: Annotated[list[str], typer.Argument(help="Ids of two ensembles or more, as in soft-0001 hard-0001.")],
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Compare ensembles with the first one, over the same people: strategies, members, or both.

    All are scored on the same photos and the same draws of people, so small differences show. P(better) is the probability that
    an ensemble is better than the first with other people.

    \b
    Examples:
      orch ensembles compare soft-0001 hard-0001
      orch ensembles compare soft-0001 soft-0002 soft-0003 --json
    """
    from orchestrator import api

    comparison = api.compare_ensembles(ensembles, workspace=workspace)
    if json:
        print_json(comparison.as_dict())
        return
    print_ensemble_comparison(comparison)


@app.command("slices")
def ensemble_slices(
    ensemble: Annotated[
        str | None, typer.Argument(help="The ensemble's id, as in soft-0001; the current one if left out.")
    ] = None,
    by: ByOption = [],
    tasks: TasksOption = ",".join(TASKS),
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="The data's present location, for --by; as recorded, if left out."),
    ] = None,
    columns: ColumnsOption = [],
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Show for whom an ensemble is right and for whom not, out of fold, the worst first.

    Photos are divided by their true classes, each alone and all together, and by further columns of the data's table. No slice
    is left out for being small: the interval says how little it tells.

    \b
    Examples:
      orch ensembles slices
      orch ensembles slices soft-0001 --tasks age
      orch ensembles slices --by race --json
    """
    from orchestrator import api

    shown_tasks = split_commas(tasks)
    for task in shown_tasks:
        check_choice("--tasks", task, TASKS)
    result = api.slices(ensemble, by=by, data=data, columns=column_names(columns) or None, workspace=workspace)
    if json:
        print_json(result.as_dict())
        return
    print_slices(f"{result.record.id}, out of fold", result.slices, shown_tasks)
    print_message(PEOPLE_COUNT)


@app.command("use")
def use_ensemble(
    ensemble: Annotated[str, typer.Argument(help="The ensemble's id, as in soft-0001.")],
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Make an ensemble the current one, which `orch predict` and `orch export` take.

    \b
    Examples:
      orch ensembles use soft-0001
    """
    from orchestrator import api

    api.use_ensemble(ensemble, workspace=workspace)


@app.command("delete")
def delete_ensembles(
    ensemble: Annotated[list[str], typer.Argument(help="Ids of ensembles, as in soft-0003.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Delete ensembles for good; the runs that they answer with stay. Their ids are never given out again.

    \b
    Examples:
      orch ensembles delete soft-0003 hard-0001
    """
    from orchestrator import api

    api.delete_ensembles(ensemble, workspace=workspace, confirm=asked_to_delete(yes))

"""`orch pseudo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import grid, print_json, print_message, stdout_console
from orchestrator.cli.options import DeviceOption, JsonOption, WorkspaceOption
from orchestrator.core.commands import orch

__all__ = ["pseudo"]

SHOWN = 20  # photos that were not read


def pseudo(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos without labels, or folders of photos.", readable=False)
    ] = None,
    eval_folder: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    *,
    to: Annotated[Path, typer.Option("--out", "-o", help="The table to write, .csv or .parquet.")],
    threshold: Annotated[
        float, typer.Option("--threshold", help="How sure: the mean probability of a task's likeliest class.")
    ] = 0.95,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out photos that cannot be read.")
    ] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Write pseudo-labels for training: an ensemble's confident answers for unlabelled photos.

    Each fold has its own labels, made by the members that hold it out, and only the member that will hold it out
    learns from them, so that out-of-fold scores stay honest. Photos that are trained on already are refused when the
    table is used.

    \b
    Examples:
      orch pseudo --eval people/eval --out pseudo.parquet
      orch train age --data people/train --extra pseudo.parquet
    """
    from orchestrator import api

    with bars() as listen:
        labels = api.pseudo_label(
            photos or [],
            out=to,
            eval_folder=eval_folder,
            threshold=threshold,
            workspace=workspace,
            ensemble=ensemble,
            skip_unreadable=skip_unreadable,
            device=device,
            listen=listen,
        )
    if json:
        print_json({"out": str(to), "photos": labels.photos, "rows": len(labels.table), "labels_a_fold": labels.counts})
    else:
        table = grid(f"of {labels.photos:,} photos, probability from {threshold:g}", "task", "class", "labels a fold")
        for task, counts in labels.counts.items():
            for word, count in counts.items():
                table.add_row(task, word, f"{count:,.0f}")
        stdout_console().print(table)
    for path, reason in labels.failed[:SHOWN]:
        print_message(f"not read: {path}: {reason}")
    if len(labels.failed) > SHOWN:
        print_message(f"and {len(labels.failed) - SHOWN:,} more.")
    used = orch("train", "TASK", "--data", "DIR", "--extra", to, workspace=workspace)
    print_message(f"{to}: {len(labels.table):,} rows. next: {used}")

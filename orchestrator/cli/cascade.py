"""`orch cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import grid, print_json, print_message, stdout_console
from orchestrator.cli.options import DeviceOption, DistinctOption, JsonOption, WorkspaceOption
from orchestrator.core.commands import orch

if TYPE_CHECKING:
    from orchestrator.api import MeasuredCascade

__all__ = ["cascade"]


def cascade(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos that no member has seen, or folders of them.", readable=False)
    ] = None,
    eval_folder: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="A labelled source with other people: shows macro F1 as well.")
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", help="Share of labels that may differ from the full vote's.")
    ] = 0.001,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="As in `orch predict`.")] = "auto",
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = Path("runs"),
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Measure how few members suffice for the same labels, and save that for `orch predict --cascade`.

    Every member answers photos that none has seen (no labels needed), which shows how confident a vote must be so that
    the rest almost never change it. Out-of-fold answers cannot show that: only one member of a run has not seen the
    photo.

    \b
    Examples:
      orch cascade more/photos
      orch cascade --eval people/eval --rate 0.05
      orch predict --eval people/eval --out submission.csv --cascade
    """
    from orchestrator import api

    with bars() as listen:
        result = api.cascade(
            photos or [],
            eval_folder=eval_folder,
            data=data,
            rate=rate,
            workspace=workspace,
            ensemble=ensemble,
            engine=engine,
            device=device,
            distinct_people=distinct,
            listen=listen,
        )
    if json:
        print_json(result.measured.as_dict())
    else:
        _print(result, rate)
    used = orch("predict", "PHOTOS", "--cascade", "--ensemble", result.ensemble, workspace=workspace)
    print_message(f"{result.path}, {result.picture}: kept for `{used}`.")


def _print(result: MeasuredCascade, rate: float) -> None:
    """The exact cascade and the chosen one: how many members they ask, and how many labels that changes."""
    measured = result.measured
    scores = [] if measured.macro_f1 is None else ["macro F1"]
    title = f"{result.ensemble}, {measured.photos:,} photos"
    table = grid(title, "cascade", "members asked", "labels changed here", *scores)
    for name, point in (("exact", measured.curve[0]), (f"chosen by --rate {rate:g}", measured.chosen)):
        number = list(measured.curve).index(point)
        score = [] if measured.macro_f1 is None else [f"{measured.macro_f1[1][number]:.4f}"]
        table.add_row(name, f"{100 * point.asked:.1f} %", f"{100 * point.changed:.3g} %", *score)
    stdout_console().print(table)
    if measured.chosen is measured.curve[0]:
        print_message("No cascade within the rate asks fewer members than the exact one: no label can change.")
    else:
        most = f"up to {100 * measured.changed_at_most:.3g} % of labels may change (95 % interval)"
        print_message(f"On other photos {most}; more photos to measure on narrow the interval.")

"""`orch export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import grid, print_json, print_message, stdout_console
from orchestrator.cli.options import JsonOption, WorkspaceOption
from orchestrator.core.commands import shell_join
from orchestrator.core.errors import quantity

__all__ = ["export"]


def export(
    to: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The folder for the files: new, empty, or an earlier export, which it replaces."
        ),
    ],
    photos: Annotated[
        list[Path] | None,
        typer.Option("--photos", help="Photos to check the files on; the training photos in the store, if left out."),
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Write an ensemble's members as ONNX files for use elsewhere, each checked against torch on photos.

    A file takes uint8 pixels and gives probabilities, so normalisation cannot differ. The folder also holds card.json
    (how to use them) and predict.py, a program that predicts photos with onnxruntime and without orch (decoding.py
    reads them, geometry.py crops them).

    \b
    Examples:
      orch export --out exported
      orch export --out exported --photos people/eval/images
      python exported/predict.py photo.jpg
    """
    from orchestrator import api

    with bars() as listen:
        exported = api.export(to, photos=photos or [], workspace=workspace, ensemble=ensemble, listen=listen)
    if json:
        print_json(exported.as_dict())
        return
    table = grid(
        f"{exported.ensemble}, checked on {quantity(exported.photos, 'photo')}", "file", "largest difference from torch"
    )
    for file, difference in exported.differences.items():
        table.add_row(file, f"{difference:.1e}")
    stdout_console().print(table)
    program = shell_join(["python", to / "predict.py", "PHOTO"])
    print_message(f"{to}: {len(exported.differences)} members, card.json, predict.py. Try: {program}")

"""`orch export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, say
from orchestrator.cli.options import JsonOption, WorkspaceOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes

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

    A file takes uint8 pixels and gives probabilities, so nothing can be normalised in another way. Beside the files stand
    card.json (how to feed them) and predict.py, a program that answers for photos with onnxruntime and without
    orch (decoding.py beside it reads them).

    \b
    Examples:
      orch export --out exported
      orch export --out exported --photos people/eval/images
      python exported/predict.py photo.jpg
    """
    from orchestrator.core.outputs import Output, check_outputs
    from orchestrator.inference.options import lacking, missing_packages

    wrong, output = Mistakes(), Output("--out", to, folder=True)
    with wrong.kept():
        if missing := missing_packages("onnx"):
            raise ConfigError(f"`{orch('export', workspace=workspace)}` {lacking(missing)}.")
    with wrong.kept():
        check_outputs([output], workspace=workspace)
    wrong.tell()
    from orchestrator.artifacts.workspace import Workspace

    place = Workspace(workspace)
    record = place.ensemble(ensemble)
    from orchestrator.artifacts.cards import read_card
    from orchestrator.data.preprocessing import Preprocess
    from orchestrator.inference.exporting import check_export, export_ensemble
    from orchestrator.inference.predictions import find_photos

    given = find_photos(photos) if photos else []
    place.check_answering(record.id)
    cards = [read_card(place.root / one.folder) for one in record.members]
    geometries = [Preprocess.from_dict(card["preprocess"]).geometry for card in cards]
    check_export(to, record, geometries, place.store, given)
    from orchestrator.inference.opening import open_predictor

    with counting("loading members") as progress:
        name, predictor = open_predictor(place, record.id, "cpu", progress)
    with counting("exporting members") as progress:
        found = export_ensemble(predictor, name, to, place.cache / "engines", place.store, given, progress)
    if json:
        emit({"ensemble": name, "folder": str(to), "photos": found.photos, "differences": found.differences})
        return
    table = grid(f"{name}, checked on {found.photos} photos", "file", "largest difference from torch")
    for file, difference in found.differences.items():
        table.add_row(file, f"{difference:.1e}")
    out().print(table)
    program = shlex.join(["python", str(to / "predict.py"), "PHOTO"])
    say(f"{to}: {len(found.differences)} members, card.json, predict.py. Try: {program}")

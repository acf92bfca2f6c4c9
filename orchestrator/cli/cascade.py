"""`orch cascade`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, say
from orchestrator.cli.options import DeviceOption, DistinctOption, JsonOption, WorkspaceOption
from orchestrator.errors import ConfigError

__all__ = ["cascade"]

PICTURE = "cascade.png"


def cascade(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos that no member has seen, or folders of them.")
    ] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="A source with labels, of other people: shows macro F1 as well.")
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
    """Find out how few members need to be asked for the same labels, and keep that for `orch predict --cascade`.

    Every member answers for photos that none has seen (no labels needed), which shows how sure a vote must be for the rest to
    hardly ever turn it. Out-of-fold answers cannot tell: there only one member of a run has not seen the photo.

    \b
    Examples:
      orch cascade --eval people/eval
      orch cascade more/photos --rate 0.005
      orch predict --eval people/eval --out submission.csv --cascade
    """
    if sum((bool(photos), evaluation is not None, data is not None)) != 1:
        raise ConfigError(
            "give photos, --eval DIR or --data SOURCE, one of them. Example: orch cascade --eval people/eval"
        )
    from orchestrator.cascading import measure_cascade, save_cascade
    from orchestrator.data.contest import read_eval
    from orchestrator.data.readers import read
    from orchestrator.ensemble.engines import check_engine
    from orchestrator.labels import TASKS, compose
    from orchestrator.opening import open_predictor
    from orchestrator.pictures import draw_cascade
    from orchestrator.prediction import choose_engines, find_photos
    from orchestrator.records.origins import trained_content
    from orchestrator.records.workspace import Workspace
    from orchestrator.specialists import SPECIALISTS
    from orchestrator.training.devices import resolve_device

    place, here = resolve_device(device), Workspace(workspace)
    check_engine(engine, place)
    truth = persons = None
    if data is not None:
        source = read(data, distinct=distinct)
        source.require([column for task in TASKS for column in SPECIALISTS[task].columns], "a macro F1")
        paths, persons = source.paths, source.table["person"]
        truth = compose(*(SPECIALISTS[task].label(source.table) for task in TASKS))
    else:
        paths = list(read_eval(evaluation).paths) if evaluation is not None else find_photos(photos or [], say)
    folder, record = here.ensemble(ensemble)
    names = [one["run"] for members in record["members"].values() for one in members]
    with counting("loading members") as progress:
        _, predictor = open_predictor(here, ensemble, place, progress)
    with counting("writing exports") as progress:
        for chosen in choose_engines(predictor, paths, engine, False, here.cache / "engines", progress):
            say(f"{chosen}.")
    with counting("asking all members") as progress:
        measured = measure_cascade(
            predictor, paths, rate, partial(trained_content, here, names), progress, truth, persons
        )
    path = save_cascade(folder, measured)
    draw_cascade(measured.as_dict(), folder / PICTURE)
    if json:
        emit(measured.as_dict())
    else:
        table = grid(f"{folder.name}, {measured.photos:,} photos", "", "members asked", "labels changed", "macro F1")
        for name, point in (("exact", measured.curve[0]), (f"at most {100 * rate:g} %", measured.chosen)):
            number = list(measured.curve).index(point)
            score = "" if measured.macro_f1 is None else f"{measured.macro_f1[1][number]:.4f}"
            table.add_row(name, f"{100 * point.asked:.1f} %", f"{100 * point.changed:.3f} %", score)
        out().print(table)
        say(f"95 % interval of the labels changed: up to {100 * measured.changed_at_most:.2f} %.")
    say(f"{path}, {folder / PICTURE}: kept for `orch predict --cascade`.")

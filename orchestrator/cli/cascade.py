"""`orch cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, say
from orchestrator.cli.options import DeviceOption, DistinctOption, JsonOption, WorkspaceOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes
from orchestrator.core.labels import TASKS

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
      orch cascade more/photos
      orch cascade --eval people/eval --rate 0.05
      orch predict --eval people/eval --out submission.csv --cascade
    """
    from orchestrator.inference.options import check_device, check_engine, check_rate

    wrong = Mistakes()
    if sum((bool(photos), evaluation is not None, data is not None)) != 1:
        example = orch("cascade", "--eval", "DIR", "--rate", "0.01", workspace=workspace)
        wrong.add(ConfigError(f"give photos, --eval DIR or --data SOURCE, one of them. Example: `{example}`"))
    with wrong.kept():
        check_rate(rate)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_engine(engine, device)
    wrong.tell()
    from orchestrator.artifacts.workspace import Workspace

    here = Workspace(workspace)
    record = here.ensemble(ensemble)
    from orchestrator.artifacts.origins import trained_content
    from orchestrator.inference.cascading import check_measurable, check_unseen, measure_cascade, save_cascade
    from orchestrator.inference.predictions import choose_engines, find_photos

    truth = persons = None
    if data is not None:
        from orchestrator.core.labels import compose
        from orchestrator.data.readers import read
        from orchestrator.specialists import SPECIALISTS

        source = read(data, distinct=distinct)
        source.require([column for task in TASKS for column in SPECIALISTS[task].columns], "a macro F1")
        paths, persons = source.paths, source.table["person"]
        truth = compose(*(SPECIALISTS[task].label(source.table) for task in TASKS))
    elif evaluation is not None:
        from orchestrator.data.contest import read_eval

        paths = list(read_eval(evaluation).paths)
    else:
        paths = find_photos(photos or [])
    with wrong.kept():
        check_measurable(record, rate, len(paths))
    with wrong.kept():
        here.check_answering(record.id)
        check_unseen(paths, trained_content(here, record.run_ids))
    wrong.tell()
    from orchestrator.inference.opening import open_predictor
    from orchestrator.networks.devices import resolve_device
    from orchestrator.pictures import draw_cascade

    place = resolve_device(device)
    check_engine(engine, place)
    with counting("loading members") as progress:
        _, predictor = open_predictor(here, record.id, place, progress)
    with counting("writing exports") as progress:
        on_engines = choose_engines(predictor, paths, engine, False, here.cache / "engines", progress)
    for chosen in on_engines.chosen:
        say(f"{chosen}.")
    with counting("asking all members") as progress:
        measured = measure_cascade(on_engines.predictor, paths, rate, progress, truth, persons)
    path = save_cascade(record.folder, measured)
    draw_cascade(measured.as_dict(), record.folder / PICTURE)
    if json:
        emit(measured.as_dict())
    else:
        scores = [] if measured.macro_f1 is None else ["macro F1"]
        title = f"{record.id}, {measured.photos:,} photos"
        table = grid(title, "cascade", "members asked", "labels changed here", *scores)
        for name, point in (("exact", measured.curve[0]), (f"chosen by --rate {rate:g}", measured.chosen)):
            number = list(measured.curve).index(point)
            score = [] if measured.macro_f1 is None else [f"{measured.macro_f1[1][number]:.4f}"]
            table.add_row(name, f"{100 * point.asked:.1f} %", f"{100 * point.changed:.3g} %", *score)
        out().print(table)
        if measured.chosen is measured.curve[0]:
            say("The exact cascade asks as few members as any that keeps to the rate: no label can change.")
        else:
            most = f"up to {100 * measured.changed_at_most:.3g} % of labels may change (95 % interval)"
            say(f"On other photos {most}; more photos to measure on narrow it.")
    used = orch("predict", "PHOTOS", "--cascade", "--ensemble", record.id, workspace=workspace)
    say(f"{path}, {record.folder / PICTURE}: kept for `{used}`.")

"""`orch predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.console import counting, emit, grid, out, print_stages, say, talk
from orchestrator.cli.options import DeviceOption, JsonOption, ProfileOption, WorkspaceOption
from orchestrator.combining import COLUMN, STRATEGIES
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, counted
from orchestrator.core.labels import TASKS
from orchestrator.core.stages import Stages

if TYPE_CHECKING:
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.combining.combiners import Combiner
    from orchestrator.data.contest import Eval
    from orchestrator.inference.cascade import Cascade
    from orchestrator.inference.predictions import Prediction
    from orchestrator.inference.predictor import Predictor

__all__ = ["predict"]

SHOWN, SHOWN_WITHOUT = 60, 5
ANSWER_WIDTH = 40  # columns that label and the longest answer take


def predict(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write: .csv, .parquet, .json; --eval: .csv.")
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option("--probabilities", help="Also write all probabilities (hard vote: shares) here, a .parquet."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also draw photos with their answers here, a .png.")
    ] = None,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="soft or hard, instead of the ensemble's own.")
    ] = None,
    on_error: Annotated[
        str, typer.Option("--on-error", help="fail, or mark: leave the row of an unreadable photo empty.")
    ] = "fail",
    batch: Annotated[
        int,
        typer.Option(
            "--batch", min=0, max=4096, help="Photos at a time; lower it when memory runs out. 0: by the cores."
        ),
    ] = 0,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="auto: done first by a short trial here; or torch, onnx, openvino (pip: extra `engines`)."
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option("--precision", help="auto, or fp32: no engine whose answers differ from torch's by over 1e-4."),
    ] = "auto",
    cascade: Annotated[
        bool,
        typer.Option("--cascade", help="Ask a member only while the vote could still change; see `orch cascade`."),
    ] = False,
    device: DeviceOption = "auto",
    profile: ProfileOption = False,
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Answer for photos: as a table here, JSON, a file of answers, or the contest's submission file.

    --out writes answers by its ending, in the order in which photos were given: path, label, name, the three classes,
    agreement, probabilities. With --eval it is the submission: info.csv's rows and columns. `agreement` is the smallest share,
    over the three tasks, of members that chose the winning class: 1.00 when all agree. The exit code is 1 when a photo got no
    answer.

    \b
    Examples:
      orch predict photo.jpg
      orch predict photos/ more/photo.png --json
      orch predict photos/ --out answers.csv --picture answers.png
      orch predict --eval people/eval --out submission.csv
      orch predict --eval people/eval --out answers.csv --on-error mark
    """
    from orchestrator.core.errors import check_choice
    from orchestrator.core.outputs import TABLES, Output, check_outputs
    from orchestrator.data.readers import check_eval
    from orchestrator.inference.options import check_cascade, check_device, check_engine

    wrong = Mistakes()
    for option, value, allowed in (
        ("--on-error", on_error, ("fail", "mark")),
        ("--precision", precision, ("auto", "fp32")),
        ("--strategy", strategy, STRATEGIES),
    ):
        with wrong.kept():
            check_choice(option, value, allowed)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_engine(engine, device)
    if (evaluation is None) == (not photos):
        submission = orch("predict", "--eval", "DIR", "--out", "submission.csv", workspace=workspace)
        wrong.add(ConfigError(f"give either photos or --eval DIR. Example: `{submission}`"))
    if evaluation is not None and to is None:
        wrong.add(ConfigError("--eval and --out go together: the folder to answer and the submission file to write."))
    answers_out = None if to is None else Output("--out", to, (".csv",) if evaluation is not None else TABLES)
    possible = (
        answers_out,
        None if probabilities is None else Output("--probabilities", probabilities, (".parquet",)),
        None if picture is None else Output("--picture", picture, (".png",)),
    )
    outputs = [one for one in possible if one is not None]
    if evaluation is not None:
        with wrong.kept():
            check_eval(evaluation)
    with wrong.kept():
        check_outputs(outputs, workspace=workspace)
    wrong.tell()
    from orchestrator.artifacts.workspace import Workspace

    place = Workspace(workspace)
    record, contest = None, None
    paths: list[Path] = []
    with wrong.kept():
        record = place.ensemble(ensemble)
        if cascade:
            check_cascade(record.runs, record.external)
    with wrong.kept():
        contest, paths = _photos(photos or [], evaluation, on_error == "mark")
    wrong.tell()
    assert record is not None
    from orchestrator.artifacts.origins import tables_of

    check_outputs(outputs, [*paths, *([] if contest is None else [contest.table.path]), *tables_of(place)])
    from orchestrator.inference.predictions import choose_engines, predict_photos
    from orchestrator.inference.tables import write_answers, write_probabilities, write_submission

    predictor = _open(place, record.id, ensemble is None, strategy, device, engine, len(paths))
    with counting("writing exports") as progress:
        exact, cache = precision == "fp32", place.cache / "engines"
        on_engines = choose_engines(predictor, paths, engine, exact, cache, progress)
    for chosen in on_engines.chosen:
        say(f"{chosen}.")
    stages = Stages(profile)
    predictor = on_engines.predictor.timed(stages)
    stops = _cascade(record.folder, predictor.combiner) if cascade else None
    with counting("predicting") as progress:
        answers = predict_photos(predictor, paths, on_error == "mark", progress, batch, stops, on_engines.known)
    if profile:
        title, column = "seconds of all threads, by stage", f"{len(paths):,} photos"
        print_stages(title, {column: stages.seconds}, talk() if json else None)
    failed = [answer for answer in answers if answer.error]
    if stops is not None and (could := (len(answers) - len(failed)) * len(predictor.members)):
        say(f"asked {100 * sum(answer.asked for answer in answers) / could:.0f} % of the members.")
    if answers_out is not None:
        empty = f", {len(failed)} of them empty." if failed else "."
        if contest is not None:
            write_submission(answers_out.path, contest, answers)
            say(f"{to}: {len(answers):,} rows in info.csv's order{empty}")
        else:
            write_answers(answers_out, answers)
            say(f"{to}: {counted(len(answers), 'row')}, in the order of the photos{empty}")
    if probabilities is not None:
        keys = contest.names if contest is not None else [str(path) for path in paths]
        write_probabilities(probabilities, keys, answers)
        say(f"{probabilities}: probabilities of every photo.")
    if picture is not None:
        from orchestrator.pictures import contact_sheet

        contact_sheet(answers, picture)
        say(f"{picture}: photos with their answers.")
    if json:
        emit([answer.as_dict() for answer in answers])
    elif to is None:
        _print(answers)
    _tell_faces(answers)
    if predictor.external:
        changed = sum(answer.changed_by_external is True for answer in answers)
        names = ", ".join(one.name for one in predictor.external)
        for one in predictor.external:
            named = one.matched(list(map(str, paths)))
            say(f"{one.name}: answers for {named:,} of these {counted(len(paths), 'photo')}, by their paths.")
        say(f"{names}: gave {changed:,} of {len(answers):,} photos another label than the members alone.")
    for answer in failed[:20]:
        say(f"not read: {answer.path}: {answer.error}")
    if len(failed) > 20:
        say(f"... and {len(failed) - 20} more photos that could not be read.")
    if failed:
        raise typer.Exit(1)  # partly failed


def _photos(photos: list[Path], evaluation: Path | None, missing_too: bool) -> tuple[Eval | None, list[Path]]:
    """The contest's table, where it was asked for, and the photos to answer for."""
    if evaluation is None:
        from orchestrator.inference.predictions import find_photos

        return None, find_photos(photos)
    from orchestrator.data.contest import read_eval

    contest = read_eval(evaluation, missing_too)
    return contest, list(contest.paths)


def _open(
    workspace: Workspace, ensemble: str, current: bool, strategy: str | None, device: str, engine: str, photos: int
) -> Predictor:
    from orchestrator.inference.opening import open_predictor
    from orchestrator.inference.options import check_engine
    from orchestrator.inference.runtime import CALL
    from orchestrator.networks.devices import resolve_device

    place = resolve_device(device)
    check_engine(engine, place)
    sharing = photos > CALL or engine not in ("auto", "torch")
    with counting("loading members") as progress:
        name, predictor = open_predictor(workspace, ensemble, place, progress, strategy, sharing)
    chosen = " (current)" if current else ""
    say(f"ensemble {name}{chosen}: {len(predictor.members)} members, {predictor.combiner.name} vote, on {place}.")
    return predictor


def _cascade(folder: Path, combiner: Combiner) -> Cascade:
    from orchestrator.inference.cascading import read_cascade

    kept = read_cascade(folder, combiner)
    if kept is not None and kept.cascade.rate > 0:
        say(
            f"cascade of {folder.name}: {100 * kept.changed:.3g} % of labels changed on the {kept.photos:,} photos that it was "
            f"measured on; up to {100 * kept.changed_at_most:.3g} % may elsewhere (95 % interval)."
        )
        return kept.cascade
    from orchestrator.inference.cascade import EXACT

    measure = orch("cascade", "PHOTOS", "--ensemble", folder.name, workspace=folder.parent)
    say(
        "cascade: exact, no label can change."
        + ("" if not combiner.averages else f" `{measure}` finds out what saves more.")
    )
    return EXACT


def _tell_faces(answers: list[Prediction]) -> None:
    """Photos that were answered by the crop for those without a face."""
    without = [answer for answer in answers if answer.face_found is False]
    for answer in without[:SHOWN_WITHOUT]:
        say(f"no face found: {answer.path}: answered from the crop without one.")
    if len(without) > SHOWN_WITHOUT:
        say(f"... and {len(without) - SHOWN_WITHOUT:,} more without a face: `face_found` of --json or --probabilities.")


def _shortened(path: Path, console: Any) -> str:
    """A path beside which the answer still fits on a terminal: without its first letters, which say least."""
    room = max(12, console.width - ANSWER_WIDTH) if console.is_terminal else len(str(path))
    return str(path) if len(str(path)) <= room else f"...{str(path)[3 - room :]}"


def _print(answers: list[Prediction]) -> None:
    title = "agreement: share of members that chose the class, of the task on which they agree least"
    what = COLUMN[answers[0].strategy]
    numbers = [f"{what}({task})" for task in TASKS]
    table = grid(title, "photo", "label", "answer", *numbers, "agreement", keep=("label", "answer", "agreement"))
    console = out()
    for answer in answers[:SHOWN]:
        if answer.error:
            table.add_row(_shortened(answer.path, console), "-", "could not be read", "", "", "", "", style="red")
            continue
        best = [f"{max(answer.shares[task].values()):.2f}" for task in TASKS]
        table.add_row(
            _shortened(answer.path, console), str(answer.label), answer.name, *best, f"{answer.agreement:.2f}"
        )
    console.print(table)
    if len(answers) > SHOWN:
        say(f"... and {len(answers) - SHOWN:,} more; --out or --json gives all of them.")

"""`orch predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, print_stages, say, talk
from orchestrator.cli.options import DeviceOption, JsonOption, ProfileOption, WorkspaceOption
from orchestrator.errors import ConfigError, Mistakes, counted, nearest
from orchestrator.stages import Stages

if TYPE_CHECKING:
    from orchestrator.ensemble.cascade import Cascade
    from orchestrator.ensemble.predictor import Predictor
    from orchestrator.prediction import Prediction
    from orchestrator.records.workspace import Workspace

__all__ = ["predict"]

SHOWN, SHOWN_WITHOUT = 60, 5


def predict(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    to: Annotated[Path | None, typer.Option("--out", "-o", help="The submission file to write, with --eval.")] = None,
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
    """Answer for photos: a table, JSON, or the contest's submission file.

    \b
    Examples:
      orch predict photo.jpg
      orch predict photos/ more/photo.png --json
      orch predict photos/ --picture answers.png
      orch predict --eval people/eval --out submission.csv
      orch predict --eval people/eval --out submission.csv --probabilities p.parquet --on-error mark
    """
    from orchestrator.ensemble.voting import STRATEGIES

    wrong = Mistakes()
    choices = (
        ("on-error", on_error, ("fail", "mark")),
        ("precision", precision, ("auto", "fp32")),
        ("strategy", strategy, STRATEGIES),
    )
    for name, value, allowed in choices:
        if value is not None and value not in allowed:
            wrong.add(ConfigError(f"--{name} {value}; allowed: {', '.join(allowed)}.{nearest(value, allowed)}"))
    if (evaluation is None) == (not photos):
        wrong.add(
            ConfigError(
                "give either photos or --eval DIR. Example: orch predict --eval people/eval --out submission.csv"
            )
        )
    if (evaluation is None) != (to is None):
        wrong.add(ConfigError("--eval and --out go together: the folder to answer and the submission file to write."))
    from orchestrator.data.contest import read_eval
    from orchestrator.pictures import check_png, contact_sheet
    from orchestrator.prediction import (
        check_probabilities_path,
        choose_engines,
        find_photos,
        predict_photos,
        write_probabilities,
        write_submission,
    )
    from orchestrator.records.workspace import Workspace

    with wrong.kept():
        if probabilities is not None:
            check_probabilities_path(probabilities)
    with wrong.kept():
        if picture is not None:
            check_png("--picture", picture)
    wrong.tell()
    contest = read_eval(evaluation, missing_too=on_error == "mark") if evaluation is not None else None
    paths = list(contest.paths) if contest is not None else find_photos(photos or [], say)
    predictor = _open(workspace, ensemble, strategy, device, engine, len(paths))
    with counting("writing exports") as progress:
        cache = Workspace(workspace).cache / "engines"
        for chosen in choose_engines(predictor, paths, engine, precision == "fp32", cache, progress):
            say(str(chosen) + ".")
    predictor.stages = Stages(profile)
    stops = _cascade(Workspace(workspace), ensemble, predictor) if cascade else None
    with counting("predicting") as progress:
        answers = predict_photos(predictor, paths, on_error == "mark", progress, batch, stops)
    if profile:
        title, column = "seconds of all threads, by stage", f"{len(paths):,} photos"
        print_stages(title, {column: predictor.stages.seconds}, talk() if json else None)
    failed = [answer for answer in answers if answer.error]
    if stops is not None and (could := (len(answers) - len(failed)) * len(predictor.members)):
        say(f"asked {100 * sum(answer.asked for answer in answers) / could:.0f} % of the members.")
    if contest is not None and to is not None:
        write_submission(to, contest, answers)
        say(f"{to}: {len(answers):,} rows in info.csv's order" + (f", {len(failed)} of them empty." if failed else "."))
    if probabilities is not None:
        keys = contest.names if contest is not None else [str(path) for path in paths]
        write_probabilities(probabilities, keys, answers)
        say(f"{probabilities}: probabilities of every photo.")
    if picture is not None:
        contact_sheet(answers, picture)
        say(f"{picture}: photos with their answers.")
    if json:
        emit([answer.as_dict() for answer in answers])
    elif contest is None:
        _print(answers)
    _tell_faces(answers)
    if predictor.outside:
        turned = sum(answer.swayed is True for answer in answers)
        names = ", ".join(one.name for one in predictor.outside)
        for one in predictor.outside:
            named = one.matched(list(map(str, paths)))
            say(f"{one.name}: answers for {named:,} of these {counted(len(paths), 'photo')}, by their paths.")
        say(f"{names}: gave {turned:,} of {len(answers):,} photos another label than the members alone.")
    for answer in failed[:20]:
        say(f"not read: {answer.path}: {answer.error}")
    if len(failed) > 20:
        say(f"... and {len(failed) - 20} more photos that could not be read.")


def _open(
    workspace: Path, ensemble: str | None, strategy: str | None, device: str, engine: str, photos: int
) -> Predictor:
    from orchestrator.ensemble.engines import check_engine
    from orchestrator.ensemble.predictor import CALL
    from orchestrator.opening import open_predictor
    from orchestrator.records.workspace import Workspace
    from orchestrator.training.devices import resolve_device

    place = resolve_device(device)
    check_engine(engine, place)
    sharing = photos > CALL or engine not in ("auto", "torch")
    with counting("loading members") as progress:
        name, predictor = open_predictor(Workspace(workspace), ensemble, place, progress, strategy, sharing)  # type: ignore[arg-type]  # checked above
    chosen = "" if ensemble else " (current)"
    say(f"ensemble {name}{chosen}: {len(predictor.members)} members, {predictor.strategy} vote, on {place}.")
    return predictor


def _cascade(workspace: Workspace, ensemble: str | None, predictor: Predictor) -> Cascade:
    from orchestrator.cascading import read_cascade

    folder, _ = workspace.ensemble(ensemble)
    found = read_cascade(folder, predictor.strategy)
    if found.rate > 0:
        say(f"cascade of {folder.name}: {100 * found.rate:g} % of labels may change, as measured by `orch cascade`.")
    else:
        how = "" if predictor.strategy == "hard" else " `orch cascade PHOTOS` finds out what saves more."
        say(f"cascade: exact, no label can change.{how}")
    return found


def _tell_faces(answers: list[Prediction]) -> None:
    """Photos that were answered by the crop for those without a face."""
    without = [answer for answer in answers if answer.face_found is False]
    for answer in without[:SHOWN_WITHOUT]:
        say(f"no face found: {answer.path}: answered from the crop without one.")
    if len(without) > SHOWN_WITHOUT:
        say(f"... and {len(without) - SHOWN_WITHOUT:,} more without a face: `face_found` of --json or --probabilities.")


def _print(answers: list[Prediction]) -> None:
    table = grid("", "photo", "label", "answer", "mask", "gender", "age", "agreement")
    for answer in answers[:SHOWN]:
        if answer.error:
            table.add_row(str(answer.path), "-", "could not be read", "", "", "", "", style="red")
            continue
        best = [f"{max(answer.shares[task].values()):.2f}" for task in ("mask", "gender", "age")]
        table.add_row(str(answer.path), str(answer.label), answer.name, *best, f"{answer.agreement:.2f}")
    out().print(table)
    if len(answers) > SHOWN:
        say(f"... and {len(answers) - SHOWN:,} more; --json or --probabilities gives all of them.")

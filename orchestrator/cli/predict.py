"""`orch predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import (
    elapsed,
    grid,
    print_json,
    print_message,
    print_stages,
    stderr_console,
    stdout_console,
)
from orchestrator.cli.options import OTHER_WORDS, DeviceOption, JsonOption, ProfileOption, WorkspaceOption
from orchestrator.core.errors import quantity
from orchestrator.core.labels import TASKS, class_names, confidence_column

if TYPE_CHECKING:
    from orchestrator.api import Predicted
    from orchestrator.inference.results import Predictions

__all__ = ["predict"]

SHOWN, SHOWN_WITHOUT, SHOWN_FAILED = 60, 5, 20
ANSWER_WIDTH = 40  # columns that label and the longest answer take


def predict(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.", readable=False)] = None,
    eval_folder: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
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
        str | None, typer.Option("--strategy", help=f"Instead of the ensemble's own: {OTHER_WORDS}.")
    ] = None,
    people: Annotated[
        str | None,
        typer.Option(
            "--pool-people",
            help="Photos of one person answer together: folder (each photo's folder is a person), or with --eval a column.",
        ),
    ] = None,
    on_error: Annotated[
        str, typer.Option("--on-error", help="fail, or mark: leave the row of an unreadable photo empty.")
    ] = "fail",
    batch: Annotated[
        int,
        typer.Option("--batch", min=0, max=4096, help="Photos per batch; lower it if memory runs out. 0: automatic."),
    ] = 0,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="auto: fastest in a short trial here; or torch, onnx, openvino (pip: extra `engines`)."
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
    """Predict photos: print a table or JSON, or write a file of answers or the contest's submission.

    --out writes answers by its ending, in the order in which photos were given: path, label, name, the three classes,
    agreement, probabilities. With --eval it is the submission: info.csv's rows and columns. `agreement` is the smallest share,
    over the three tasks, of members that chose the winning class: 1.00 when all agree. The exit code is 1 when a photo got no
    answer.

    \b
    Examples:
      orch predict photo.jpg
      orch predict photos/ more/photo.png --json
      orch predict photos/ --out answers.csv --picture answers.png
      orch predict people/train/images --pool-people folder
      orch predict --eval people/eval --out submission.csv
      orch predict --eval people/eval --out answers.csv --on-error mark
    """
    from orchestrator import api

    with bars() as listen:
        predicted = api.predict(
            photos or [],
            eval_folder=eval_folder,
            workspace=workspace,
            ensemble=ensemble,
            strategy=strategy,
            people=people,
            on_error=on_error,
            batch=batch,
            engine=engine,
            precision=precision,
            cascade=cascade,
            device=device,
            out=to,
            probabilities=probabilities,
            picture=picture,
            profile=profile,
            listen=listen,
        )
    answers, failed = predicted.answers, predicted.failed
    if profile:
        _print_profile(predicted, json)
    if json:
        print_json([answer.as_dict() for answer in answers])
    elif to is None:
        _print(answers)
    _print_faces(answers)
    _print_external(predicted)
    for answer in failed[:SHOWN_FAILED]:
        print_message(f"not read: {answer.photo}: {answer.error}")
    if len(failed) > SHOWN_FAILED:
        print_message(f"... and {len(failed) - SHOWN_FAILED} more photos that could not be read.")
    if failed:
        raise typer.Exit(1)  # partly failed


def _print_profile(predicted: Predicted, json: bool) -> None:
    """Prints the seconds of threads by stage, and the time of the whole command beside their sum."""
    column = quantity(len(predicted.answers), "photo")
    print_stages("seconds of all threads, by stage", {column: predicted.seconds}, stderr_console() if json else None)
    print_message(
        f"{sum(predicted.seconds.values()):,.1f} s of threads, within {elapsed():,.1f} s of the command. The rest: imports, "
        "checks, loading members, choosing engines, waiting."
    )


def _print_external(predicted: Predicted) -> None:
    """Prints how many photos the external tables answer, and how many labels they changed."""
    answers, external = predicted.answers, predicted.external
    for table, matched in zip(external.tables, external.matched, strict=True):
        print_message(
            f"{table.name}: answers for {matched:,} of these {quantity(len(answers), 'photo')}, by their paths."
        )
    if answers.changed_by_external is not None:
        changed = int(answers.changed_by_external.sum())
        names = ", ".join(table.name for table in external.tables)
        print_message(f"{names}: gave {changed:,} of {len(answers):,} photos another label than the members alone.")


def _print_faces(answers: Predictions) -> None:
    """Prints the photos without a detected face, which were cropped as if recipes had no `face`."""
    without = [
        photo for photo, face_found in zip(answers.photos, answers.face_found, strict=True) if face_found is False
    ]
    for photo in without[:SHOWN_WITHOUT]:
        print_message(f"no face found: {photo}: answered from the fixed crop.")
    if len(without) > SHOWN_WITHOUT:
        print_message(
            f"... and {len(without) - SHOWN_WITHOUT:,} more without a face: `face_found` of --json or --probabilities."
        )


def _shortened(path: str, console: Any) -> str:
    """A path, shortened at its start so that the answer fits on the terminal's line."""
    room = max(12, console.width - ANSWER_WIDTH) if console.is_terminal else len(path)
    return path if len(path) <= room else f"...{path[3 - room :]}"


def _print(answers: Predictions) -> None:
    title = "agreement: share of members that chose the class, of the task on which they agree least"
    numbers = [confidence_column(task, answers.combiner.prefixes[task]) for task in TASKS]
    table = grid(title, "photo", "label", "answer", *numbers, "agreement", keep=("label", "answer", "agreement"))
    console = stdout_console()
    for answer in answers[:SHOWN]:
        if answer.error:
            table.add_row(_shortened(answer.photo, console), "-", "could not be read", "", "", "", "", style="red")
            continue
        chosen = class_names(answer.label or 0)
        best = [f"{answer.shares[task][chosen[task]]:.2f}" for task in TASKS]
        table.add_row(
            _shortened(answer.photo, console), str(answer.label), answer.name, *best, f"{answer.agreement:.2f}"
        )
    console.print(table)
    if len(answers) > SHOWN:
        print_message(f"... and {len(answers) - SHOWN:,} more; --out or --json gives all of them.")

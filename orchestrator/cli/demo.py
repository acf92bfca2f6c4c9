"""`orch demo`: the whole workflow on synthetic people, offline, in minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import deferred_messages, duration_text, elapsed, print_message, print_result
from orchestrator.cli.options import MOST_PEOPLE
from orchestrator.core.commands import orch
from orchestrator.core.cores import cores
from orchestrator.core.errors import DataError
from orchestrator.core.outputs import Output, check_outputs

if TYPE_CHECKING:
    from orchestrator.ensembling.build import BuiltEnsemble

__all__ = ["demo"]

FOLDS = 3
MARK = ".orch-demo"


def demo(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Where people, runs and results go.")] = Path("demo"),
    people: Annotated[
        int, typer.Option("--people", "-n", min=24, max=MOST_PEOPLE, help="Synthetic people, seven photos each.")
    ] = 120,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what an earlier demo left there, and start over.")
    ] = False,
) -> None:
    """Draw synthetic people, train the three specialists, fuse them, predict: all once, without real photos.

    If it is interrupted, the same command continues where it stopped.

    \b
    Examples:
      orch demo
      orch demo --out elsewhere --people 300
    """
    from orchestrator import api
    from orchestrator.cli.ensemble import print_built
    from orchestrator.cli.training import listening

    data, runs = folder / "people", folder / "runs"
    outputs = [Output("", folder / name, folder=True) for name in ("", "people", "runs")]
    check_outputs([*outputs, *(Output("", folder / name) for name in ("people.png", "answers.png", "submission.csv"))])
    _people(folder, data, people, fresh)
    print_message(f"[2/4] training three specialists over {FOLDS} folds of people")
    settings = api.Settings(data / "train", runs, recipes=("demo",), folds=FOLDS)
    with listening([], runs) as listen:
        report = api.train_all(settings, listen=listen)
    for (run, fold), reason in report.failures.items():
        print_message(f"{run} fold {fold} failed: {reason}")
    if not report.complete:
        raise typer.Exit(1)
    print_message("[3/4] fusing them, out of fold")
    built = api.ensemble(workspace=runs)
    print_built(built)
    print_message("[4/4] predicting people that no member has seen")
    _conclude(folder, data, built, _predict(runs, data, folder))


def _conclude(folder: Path, data: Path, built: BuiltEnsemble, score: float) -> None:
    """Prints the scores, the files, and what to try next."""
    runs = built.record.root
    assert built.scored is not None  # its runs hold people out
    expected = built.scored.evaluation["label"].scores.macro_f1
    print_result(f"\nDone in {duration_text(elapsed())}.")
    for label, *values in (
        ("18-way macro F1 out of fold  ", f"{expected:.4f}   (expected)"),
        ("18-way macro F1 on new people", f"{score:.4f}   (measured)"),
        ("people      ", str(data / "train"), str(data / "eval")),
        ("runs        ", str(runs), f"ensemble {built.record.id}"),
        ("submission  ", str(folder / "submission.csv")),
        ("pictures    ", str(folder / "people.png"), str(built.record.scores_picture), str(folder / "answers.png")),
    ):
        print_result(f"  {label}  {'    '.join(values)}")
    print_result("\nTry next (`source .venv/bin/activate` first, after `make demo`):")
    for next_words, workspace in (
        (("runs", "list"), runs),
        (("train", "age", "--data", data / "train", "--set", "age.epochs=30"), runs),
        (("ensemble", "--strategy", "soft"), runs),
        (("predict", data / "eval" / "images"), runs),
        (("train-all", "--data", "YOUR_PHOTOS"), None),
    ):
        print_result(f"  {orch(*next_words, workspace=workspace)}")


def _people(folder: Path, data: Path, people: int, fresh: bool) -> None:
    """Draws the people, unless an earlier demo has."""
    from orchestrator import api
    from orchestrator.synthetic.folder import is_unfinished

    drawn, mark = data / "train" / "train.csv", folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise DataError(f"{folder}: holds files that no demo has made. Choose a new or empty folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(f"Made by `{orch('demo')}`, which may delete people/ and runs/ here.\n")
    if fresh:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(folder / "runs", ignore_errors=True)
    if drawn.exists() and not is_unfinished(data):
        print_message(f"[1/4] people of an earlier demo: {data} (--fresh redraws them)")
    else:
        if data.exists() and not is_unfinished(data):  # its table was deleted; what was stopped begins anew by itself
            shutil.rmtree(data)
        print_message(f"[1/4] drawing {people} people and {people // 3} others to predict")
        with bars() as listen:
            api.synthesise(data, people=people, eval_people=people // 3, jobs=cores(), listen=listen)
    with deferred_messages():  # the files are listed at the end
        api.describe_data(data / "train", picture=folder / "people.png")


def _predict(runs: Path, data: Path, folder: Path) -> float:
    """Writes the submission and returns its macro F1."""
    import pandas as pd

    from orchestrator import api
    from orchestrator.core.labels import LABELS
    from orchestrator.core.metrics import macro_f1
    from orchestrator.pictures import contact_sheet

    with bars() as listen:
        prediction = api.predict(
            eval_folder=data / "eval", workspace=runs, engine="torch", out=folder / "submission.csv", listen=listen
        )
    truth = pd.read_csv(data / "eval" / "truth.csv")["ans"].to_numpy()
    predicted = pd.read_csv(folder / "submission.csv")["ans"].to_numpy()
    contact_sheet(prediction.answers, folder / "answers.png", truth.tolist())
    return macro_f1(truth, predicted, len(LABELS))

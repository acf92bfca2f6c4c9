"""`orch demo`: the whole work on synthetic people, offline, in minutes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, elapsed, minutes, put, say
from orchestrator.core.commands import orch
from orchestrator.core.errors import DataError

__all__ = ["demo"]

FOLDS = 3
MARK = ".orch-demo"


def demo(
    folder: Annotated[Path, typer.Option("--out", "-o", help="Where people, runs and results go.")] = Path("demo"),
    people: Annotated[int, typer.Option("--people", "-n", min=24, help="Synthetic people, seven photos each.")] = 120,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what an earlier demo left there, and begin anew.")
    ] = False,
) -> None:
    """Draw people, train the three specialists, fuse them, predict: everything once, on nobody's photos.

    Interrupted, the same command goes on where it stood.

    \b
    Examples:
      orch demo
      orch demo --out elsewhere --people 300
    """
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.cli.ensemble import PICTURE, draw_scores, print_built
    from orchestrator.cli.train import listening
    from orchestrator.ensembling.build import build_ensemble
    from orchestrator.ensembling.choosing import choose_runs
    from orchestrator.pipeline import training as pipeline
    from orchestrator.specialists import SPECIALISTS

    data, runs = folder / "people", folder / "runs"
    _people(folder, data, people, fresh)
    say(f"[2/4] training three specialists over {FOLDS} folds of people")
    settings = pipeline.Settings(data / "train", runs, recipes=("demo",), k=FOLDS)
    with listening([], runs) as listen:
        report = pipeline.train_all(settings, SPECIALISTS, listen)
    for (run, fold), reason in report.failures.items():
        say(f"{run} fold {fold} failed: {reason}")
    if not report.complete:
        raise typer.Exit(1)
    say("[3/4] fusing them, out of fold")
    workspace = Workspace(runs)
    built = build_ensemble(workspace, "soft", choose_runs(workspace))
    draw_scores(built)
    print_built(built)
    say("[4/4] predicting people that no member has seen")
    score = _predict(workspace, data, folder)
    assert built.scored is not None  # its runs hold people out
    expected = built.scored.evaluation["label"].scores.macro_f1
    put(f"\nDone in {minutes(elapsed())}.")
    for what, *words in (
        ("18-way macro F1 out of fold  ", f"{expected:.4f}   (what to expect)"),
        ("18-way macro F1 on new people", f"{score:.4f}   (what came)"),
        ("people      ", str(data / "train"), str(data / "eval")),
        ("runs        ", str(runs), f"ensemble {built.record.id}"),
        ("submission  ", str(folder / "submission.csv")),
        ("pictures    ", str(folder / "people.png"), str(built.record.folder / PICTURE), str(folder / "answers.png")),
    ):
        put(f"  {what}  {'    '.join(words)}")
    put("\nTry next (`source .venv/bin/activate` first, after `make demo`):")
    for next_words, place in (
        (("runs", "list"), runs),
        (("train", "age", "--data", data / "train", "--set", "age.epochs=30"), runs),
        (("ensemble", "--strategy", "soft"), runs),
        (("predict", data / "eval" / "images"), runs),
        (("train-all", "--data", "YOUR_PHOTOS"), None),
    ):
        put(f"  {orch(*next_words, workspace=place)}")


def _people(folder: Path, data: Path, people: int, fresh: bool) -> None:
    """Draws the people, unless an earlier demo has."""
    import joblib

    from orchestrator.data.describe import describe
    from orchestrator.data.readers import read
    from orchestrator.pictures import draw_people
    from orchestrator.synthetic.people import write_people

    drawn, ours = data / "train" / "train.csv", folder / MARK
    if folder.exists() and any(folder.iterdir()) and not ours.exists():
        raise DataError(f"{folder}: holds files that no demo has made. Choose a new or empty folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    ours.write_text(f"Made by `{orch('demo')}`, which may delete people/ and runs/ here.\n")
    if fresh:
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(folder / "runs", ignore_errors=True)
    if drawn.exists():
        say(f"[1/4] people of an earlier demo: {data} (--fresh draws them anew)")
    else:
        if data.exists():  # a demo that was killed while drawing: train.csv is written last
            shutil.rmtree(data)
        say(f"[1/4] drawing {people} people and {people // 3} others to predict")
        with counting("drawing people") as progress:
            write_people(data, people, people // 3, 0, joblib.cpu_count(), progress)
    draw_people(describe(read(data / "train")), folder / "people.png")


def _predict(workspace: object, data: Path, folder: Path) -> float:
    """Writes the submission and returns its macro F1."""
    import pandas as pd

    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.core.labels import LABELS
    from orchestrator.core.metrics import macro_f1
    from orchestrator.data.contest import read_eval
    from orchestrator.inference.opening import open_predictor
    from orchestrator.inference.predictions import predict_photos
    from orchestrator.inference.tables import write_submission
    from orchestrator.networks.devices import resolve_device
    from orchestrator.pictures import contact_sheet

    assert isinstance(workspace, Workspace)
    contest = read_eval(data / "eval")
    _, predictor = open_predictor(workspace, None, resolve_device("auto"))
    with counting("predicting") as progress:
        answers = predict_photos(predictor, contest.paths, False, progress)
    write_submission(folder / "submission.csv", contest, answers)
    truth = pd.read_csv(data / "eval" / "truth.csv")["ans"].to_numpy()
    predicted = pd.read_csv(folder / "submission.csv")["ans"].to_numpy()
    contact_sheet(answers, folder / "answers.png", truth.tolist())
    return macro_f1(truth, predicted, len(LABELS))

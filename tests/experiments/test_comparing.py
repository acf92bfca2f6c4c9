"""A comparison of runs says what differs and whether it is noise."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import f1_score

from orchestrator import api
from orchestrator.core.labels import CLASSES
from orchestrator.ensembling.intervals import difference
from orchestrator.experiments import curves
from tests.conftest import Done, edit_held_out, tiny, train

Orch = Callable[..., Done]


def test_a_comparison_says_what_differs_and_whether_it_is_noise(orch: Orch, three: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    done = orch("runs", "compare", "age-0001", "age-0002", "age-0003", "-w", three, "--json", "--picture", picture)
    assert done.code == 0, done.err
    comparison = json.loads(done.out)
    assert {*comparison["differing"]} == {"lr", "loss", "plan", "folds"}
    assert comparison["differing"]["lr"] == [2e-3, 3e-3, 3e-3]
    assert comparison["differing"]["loss"] == ["soft_age", "soft_age", "focal"]
    tables = [
        pd.concat(
            [pd.read_parquet(path) for path in sorted((three / name).glob("fold-*/held_out.parquet"))]
        ).sort_values("path")
        for name in ("age-0001", "age-0003")
    ]
    answers = [table.filter(like="p(").to_numpy().argmax(axis=1) for table in tables]
    truth, persons = tables[0]["truth"].to_numpy(), tables[0]["person"]
    for run, choice in ((0, answers[0]), (2, answers[1])):
        by_class = f1_score(truth, choice, average=None)
        shown_scores = comparison["runs"][run]
        assert list(shown_scores["classes"]) == list(CLASSES["age"])
        assert list(shown_scores["classes"].values()) == pytest.approx(list(by_class))
        assert shown_scores["macro_f1"] == pytest.approx(by_class.mean())
        assert shown_scores["accuracy"] == pytest.approx((truth == choice).mean())
    gain = difference(persons, truth, *answers, 3)
    last = comparison["runs"][2]
    assert last["gain"] == pytest.approx(gain.value)
    low, high = gain.interval.as_list()
    assert last["gain_interval_95"] == pytest.approx([low, high])
    assert last["verdict"] == ("noise" if low <= 0 <= high else "better" if gain.value > 0 else "worse")
    assert comparison["runs"][0]["verdict"] is None
    chances = [table.filter(like="p(").to_numpy()[np.arange(len(truth)), truth] for table in tables]
    assert last["log_loss"] == pytest.approx(-np.log(chances[1].astype(float)).mean(), abs=1e-6)
    assert last["log_loss_change"] == pytest.approx(np.log(chances[0] / chances[1]).mean(), abs=1e-6)
    low, high = last["log_loss_change_interval_95"]
    assert low <= last["log_loss_change"] <= high
    assert last["log_loss_verdict"] == ("better" if high < 0 else "worse" if low > 0 else "noise")
    with Image.open(picture) as image:
        assert image.width > 1000
    shown = orch("runs", "compare", "age-0001", "age-0002", "-w", three)
    assert "over age-0001" in shown.out
    assert re.search(r"over age-0001 +95 % interval +P\(better\) +verdict +log loss +log loss verdict", shown.out)
    for words, message in (
        (("age-0001", "mask-0001"), "only runs of one specialist"), (("age-0001",), "two runs or more"),
        (("age-0001", "age-0009"), "run 'age-0009' is not in"),
    ):  # fmt: skip
        assert message in orch("runs", "compare", *words, "-w", three).err


def test_the_picture_shows_every_runs_curves_and_its_gain_over_the_first(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(curves, "save", lambda figure, _: drawn.append(figure))
    names = ["age-0001", "age-0002", "age-0003"]
    comparison = api.compare(names, workspace=three, picture="curves.png")
    losses, scores, gains = drawn[0].axes
    for axis, key in ((losses, "loss"), (scores, "macro_f1")):
        assert [line.get_label() for line in axis.lines] == names
        for line in axis.lines:
            histories = [
                json.loads(path.read_text()) for path in (three / line.get_label()).glob("fold-*/history.json")
            ]
            mean = np.mean([[entry[key] for entry in history] for history in histories], axis=0)
            assert line.get_ydata() == pytest.approx(mean, abs=1e-6)
    rows = [text.get_text().split()[0] for text in gains.get_yticklabels()]
    points = {rows[round(bars[0].get_ydata()[0])]: bars[0].get_xdata()[0] for bars in gains.containers}
    assert points == {run.run.id: run.gain.value for run in comparison.runs if run.gain is not None}
    assert set(points) == {"age-0002", "age-0003"}


def test_photos_on_whose_truth_runs_disagree_are_left_out_and_counted(orch: Orch, three_runs: Path) -> None:
    file = three_runs / "age-0002/fold-0/held_out.parquet"
    table = pd.read_parquet(file)
    all_photos = json.loads(orch("runs", "compare", "age-0001", "age-0002", "-w", three_runs, "--json").out)
    table.loc[[1, 4], "truth"] = (table.loc[[1, 4], "truth"] + 1) % 3  # a label was corrected between the runs
    edit_held_out(file.parent, table)
    comparison = json.loads(orch("runs", "compare", "age-0001", "age-0002", "-w", three_runs, "--json").out)
    assert comparison["relabelled"] == 2
    assert comparison["photos"] == all_photos["photos"] - 2
    assert all_photos["relabelled"] == 0
    assert "2 photos are left out" in orch("runs", "compare", "age-0001", "age-0002", "-w", three_runs).err
    for fold in range(3):
        file = three_runs / f"age-0002/fold-{fold}/held_out.parquet"
        table = pd.read_parquet(file)
        truth = pd.read_parquet(three_runs / f"age-0001/fold-{fold}/held_out.parquet")["truth"]
        edit_held_out(file.parent, table.assign(truth=(truth + 1) % 3))
    assert "trained on different data" in orch("runs", "compare", "age-0001", "age-0002", "-w", three_runs).err


def test_a_run_that_held_out_less_is_named(orch: Orch, people: Path, three_runs: Path) -> None:
    """The comparison shrinks to the photos that all have in common, which nobody sees in a table of scores."""
    assert train(orch, people, three_runs, "train", "age", "--folds-used", 1, *tiny("lr=5e-3")).code == 0
    done = orch("runs", "compare", "age-0001", "age-0002", "age-0004", "-w", three_runs)
    assert "Compared on 56 photos, though some held out up to 168: age-0004 56. Leave" in done.err
    assert "though some" not in orch("runs", "compare", "age-0001", "age-0002", "-w", three_runs).err
    counts = json.loads(orch("runs", "compare", "age-0001", "age-0004", "-w", three_runs, "--json").out)["runs"]
    assert [run["held_out_photos"] for run in counts] == [168, 56]
    file = three_runs / "age-0004/fold-0/held_out.parquet"
    table = pd.read_parquet(file)
    edit_held_out(file.parent, table.assign(path="other " + table["path"]))
    done = orch("runs", "compare", "age-0001", "age-0004", "-w", three_runs)
    assert "(age-0001 held out everybody; age-0004 held out people of fold 0 of 3)" in " ".join(done.err.split())

"""A cascade is measured on photos that no member has seen, kept with its ensemble and read strictly."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from orchestrator.artifacts.ensembles import CASCADE
from orchestrator.combining.answers import Answers
from orchestrator.combining.calibration import Calibration
from orchestrator.combining.combiners import Combiner
from orchestrator.core.errors import DamagedError
from orchestrator.core.labels import TASKS, compose
from orchestrator.data.readers import read
from orchestrator.ensembling.intervals import intervals
from orchestrator.inference.cascade import EXACT, Cascade, Point
from orchestrator.inference.cascade_measurement import (
    Measured,
    SavedCascade,
    measure_cascade,
    read_cascade,
    save_cascade,
)
from orchestrator.specialists import TRAINABLE
from orchestrator.synthetic.people import write_people
from tests.conftest import HARD, SOFT, Done, tiny, train
from tests.inference.test_cascade import members_like

Orch = Callable[..., Done]


TEMPERED = Combiner(SOFT.votes, {"age": Calibration(((0.5,) * 3,), ((0.0,) * 3,))})
"""Another mean: its answers are not those that the cascade was measured for."""


def kept(folder: Path, cascade: Cascade) -> Measured:
    """A cascade's file, as `orch cascade` writes it."""
    point = Point(cascade, 0.5, 0.01, np.zeros(100, np.int64))
    measured = Measured(point, [Point(EXACT, 0.8, 0.0, point.label), point], 100, None, None, SOFT.as_dict())
    folder.mkdir(exist_ok=True)
    save_cascade(folder, measured)
    return measured


def test_a_cascade_survives_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "soft-0001"
    for cascade in (Cascade(0.01, 2.5, {"age": 0.5, "mask": 0.0}), EXACT):
        measured = kept(folder, cascade)
        read_back = read_cascade(folder, SOFT)
        assert read_back == SavedCascade(cascade, 100, 0.01, measured.changed_at_most)
    assert read_cascade(folder, HARD) is None
    assert read_cascade(folder, TEMPERED) is None  # measured for another mean
    assert read_cascade(tmp_path, SOFT) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "other", "shape", "folder", "link", "binary"])
def test_a_damaged_cascade_is_told_with_a_way_out_that_works(tmp_path: Path, damage: str) -> None:
    folder, other = tmp_path / "soft-0001", tmp_path / "soft-0002"
    kept(folder, Cascade(0.01, 2.5, {"age": 0.5}))
    kept(other, Cascade(0.5, 1.5, {"age": 0.5}))
    path = folder / CASCADE
    whole = path.read_bytes()
    position = whole.index(b"2.5")
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("nowhere.json")
    else:
        path.write_bytes({
            "cut": whole[:100], "empty": b"", "bit": whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :],
            "other": (other / CASCADE).read_bytes(), "shape": b"[]", "binary": b"\xff\xfe\x00",
        }[damage])  # fmt: skip
    with pytest.raises(DamagedError, match=r"cascade\.json: .*orch cascade PHOTOS --ensemble soft-0001") as error:
        read_cascade(folder, SOFT)
    aside = re.search(r"`(mv [^`]*)`", str(error.value))
    assert aside
    subprocess.run(aside[1], shell=True, check=True)
    assert read_cascade(folder, SOFT) is None
    kept(folder, EXACT)
    assert read_cascade(folder, SOFT) is not None


def test_the_command_measures_keeps_and_uses_a_cascade(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("predict", people / "eval", "-w", workspace, "--cascade", "--json", "--engine", "torch")
    full = orch("predict", people / "eval", "-w", workspace, "--json", "--engine", "torch")
    assert "cascade: exact, no label can change. `orch cascade PHOTOS" in done.err
    answers, expected = json.loads(done.out), json.loads(full.out)
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
    assert {answer["asked"] for answer in expected} == {9}
    assert all(3 <= answer["asked"] <= 9 for answer in answers)
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.2, "--json")
    assert done.code == 0, done.err
    measured = json.loads(done.out)
    assert measured["photos"] == 28
    assert measured["changed"] <= 0.2
    assert measured["changed"] < measured["changed_at_most_95"] < 0.5
    assert measured["asked"] <= measured["curve"][0]["asked"]
    assert (workspace / "soft-0001" / "cascade.png").stat().st_size > 5_000
    table = tmp_path / "p.parquet"
    done = orch(
        "predict", "--eval", people / "eval", "--out", tmp_path / "s.csv", "-w", workspace, "--cascade", "--engine", "torch",
        "--probabilities", table,
    )  # fmt: skip
    changed, most = 100 * measured["changed"], 100 * measured["changed_at_most_95"]
    assert f"{changed:.3g} % of labels changed on the 28 photos that it was measured on; up to {most:.3g} %" in done.err
    shown = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.2)
    assert f"up to {most:.3g} % of labels may change" in shown.err
    assert "at most" not in shown.out  # the rate is what was asked for, and no promise
    assert "macro F1" not in shown.out  # no labels, no column
    assert f"asked {100 * measured['asked']:.0f} % of the members" in done.err
    assert pd.read_parquet(table)["asked"].sum() == pytest.approx(measured["asked"] * 28 * 9)
    assert orch("cascade", people / "eval", "-w", workspace, "--rate", 0).code == 0  # measured: there is no better one
    exact = orch("predict", people / "eval", "-w", workspace, "--cascade", "--engine", "torch")
    assert "cascade: exact, no label can change." in exact.err
    assert "looks for one that saves more" not in exact.err


class Asked:
    """A predictor of answers that are known."""

    combiner = SOFT

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def predict(self, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(answers=self.answers)


def test_every_point_of_a_curve_is_scored_by_its_own_labels() -> None:
    answers = members_like(120, 5, 1.5, 0)
    full = SOFT.combine(answers).label
    truth, persons = np.where(np.arange(120) % 3, full, 17 - full), pd.Series([f"p{row // 4}" for row in range(120)])
    measured = measure_cascade(Asked(answers), [Path("photo.jpg")] * 120, 0.3, lambda *_: None, truth, persons)
    f1 = partial(f1_score, truth, labels=range(18), average="macro", zero_division=0)
    curve = measured.as_dict()["curve"]
    assert [point["macro_f1"] for point in curve] == [pytest.approx(f1(point.label)) for point in measured.curve]
    assert len({point["macro_f1"] for point in curve}) > 1
    assert measured.as_dict()["full_macro_f1"] == pytest.approx(f1(full))
    for point in measured.curve:
        assert point.changed == pytest.approx((point.label != full).mean())
    assert measured.interval == intervals(persons, truth, full, 18)["macro_f1"]


def test_the_labels_of_a_source_score_the_full_vote(orch: Orch, workspace: Path, others: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    train = others.parent / "train"
    done = orch("cascade", "--data", train, "-w", workspace, "--rate", 0.5, "--json", "--engine", "torch")
    assert done.code == 0, done.err
    measured, photos = json.loads(done.out), read(train)
    truth = compose(*(TRAINABLE[task].label(photos.table) for task in TASKS))
    answers = json.loads(orch("predict", *photos.paths, "-w", workspace, "--json", "--engine", "torch").out)
    full = np.array([answer["label"] for answer in answers])
    f1 = f1_score(truth, full, labels=range(18), average="macro", zero_division=0)
    assert measured["full_macro_f1"] == measured["curve"][0]["macro_f1"] == pytest.approx(f1)
    expected = intervals(photos.table["person"], truth, full, 18)["macro_f1"]
    assert measured["full_macro_f1_interval_95"] == pytest.approx(expected.as_list())


def test_a_cascade_is_not_measured_on_training_photos_nor_for_hard_votes(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    copy = tmp_path / "other"
    copy.mkdir()
    for number, path in enumerate(sorted((people / "train" / "images").rglob("normal.*"))[:3]):
        shutil.copy(path, copy / f"{number}{path.suffix}")
    done = orch("cascade", copy, "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "3 of 3 photos were trained on" in done.err
    assert "Give photos of other people" in done.err
    shutil.rmtree(workspace / "cache")  # a cache may be deleted at any time
    others = tmp_path / "others"
    write_people(others, 6, 0, seed=99)
    assert orch("data", "faces", "--data", others / "train", "-w", workspace).code == 0  # looked at, never trained on
    assert orch("cascade", "--data", others / "train", "-w", workspace, "--rate", 0.5).code == 0
    assert orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).code == 0
    # What another run of the workspace was trained on does not count, until the ensemble has it.
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,gender\n{photo},male\n")
    assert train(orch, people, workspace, "train", "gender", *tiny(), "--extra", tmp_path / "extra.csv").code == 0
    assert orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).code == 0
    assert orch("ensemble", "-w", workspace, "--members", "gender=gender-0002").code == 0
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "1 of 28 photos were trained on" in done.err
    # Members that a run shares with its parent were trained on the same files.
    words = ("train", "gender", "--base", "gender-0002", "--fold", 1, "--seed", 7, "--extra", tmp_path / "extra.csv")
    assert train(orch, people, workspace, *words).code == 0
    assert orch("ensemble", "-w", workspace, "--members", "gender=gender-0003").code == 0
    assert "1 of 28 photos were trained on" in orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).err
    shutil.rmtree(workspace / "photos")
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "which photos it was trained on cannot be determined" in done.err


@pytest.fixture
def no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a member fails the test: what needs none is checked before."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a member was loaded")

    monkeypatch.setattr("orchestrator.inference.opening.load_members", load)


def test_what_needs_no_member_is_checked_before_any_is_loaded(
    orch: Orch, people: Path, workspace: Path, no_members: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    for words, message in (
        (("--rate", 1.5), "--rate 1.5; allowed: 0 up to, not including, 1"),
        (("--rate", "nan"), "--rate nan; allowed"),
        ((), "28 photos cannot show a rate of 0.001 changed labels: give at least 3,000, or --rate 0.108"),
        (("--engine", "onx"), "Did you mean 'onnx'?"),
        (("--device", "gpu"), "--device gpu: allowed: auto, cpu, cuda"),
    ):
        done = orch("cascade", people / "eval", "-w", workspace, *words)
        assert done.code == 2
        assert message in done.err
    rate = re.search(r"--rate (0\.\d+)", orch("cascade", people / "eval", "-w", workspace).err)
    assert rate
    monkeypatch.setenv("ORCH_DEBUG", "1")  # the rate that the error named is enough: members are loaded
    with pytest.raises(AssertionError, match="a member was loaded"):
        orch("cascade", people / "eval", "-w", workspace, "--rate", rate[1])
    monkeypatch.delenv("ORCH_DEBUG")
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    assert (
        "For a hard vote, `orch predict PHOTOS --cascade"
        in orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).err
    )
    done = orch("cascade", "-w", workspace)
    assert (done.code, "give exactly one of photos, --eval DIR and --data SOURCE" in done.err) == (2, True)

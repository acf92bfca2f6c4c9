"""A cascade asks fewer members; exactly it never changes an answer, by sureness it keeps to its rate."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import COMBINERS, HardVote, SoftVote
from orchestrator.combining.votes import hard_vote, soft_vote
from orchestrator.core.errors import ConfigError, DamagedError
from orchestrator.core.labels import CLASS_COUNTS
from orchestrator.inference.cascade import EXACT, Cascade, Point, ask, calibrate, simulate
from orchestrator.inference.cascading import CASCADE, Measured, SavedCascade, read_cascade, save_cascade
from orchestrator.synthetic.people import write_people
from tests.conftest import Done, tiny, train

Orch = Callable[..., Done]


def members_like(photos: int, members: int, noise: float, seed: int) -> Answers:
    """Members that see the same photos and differ by noise, as folds do; one photo in five is hard."""
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, classes in CLASS_COUNTS.items():
        sure = np.where(rng.random((photos, 1)) < 0.2, 0.7, 6.0)
        logits = sure * np.eye(classes)[rng.integers(0, classes, photos)]
        for fold in range(members):
            shifted = np.exp(logits + noise * rng.normal(size=logits.shape))
            voters.append(Voter(task, f"{task}-0001", fold))
            arrays.append((shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers(CLASS_COUNTS, photos, tuple(voters), tuple(arrays))


def of_mask(*members: np.ndarray) -> Answers:
    """Answers of members of one task."""
    voters = tuple(Voter("mask", "mask-0001", fold) for fold in range(len(members)))
    return Answers({"mask": members[0].shape[1]}, len(members[0]), voters, members)


@given(
    st.integers(1, 7), st.integers(1, 40), st.sampled_from(list(COMBINERS)), st.floats(0, 3), st.integers(0, 2**32 - 1)
)
def test_an_exact_cascade_never_changes_a_choice(
    members: int, photos: int, strategy: str, noise: float, seed: int
) -> None:
    answers, combiner = members_like(photos, members, noise, seed), COMBINERS[strategy]()
    for task in answers.classes:
        own = answers.of(task)
        rounded = [np.round(one, 1) + np.float32(0.01) for one in own.probabilities]  # ties occur
        rounded = [one / one.sum(axis=1, keepdims=True) for one in rounded]
        some = ask(own.voters, [one.__getitem__ for one in rounded], photos, combiner, EXACT)
        few, all_ = (
            combiner.decide(Answers(own.classes, photos, own.voters, tuple(arrays))) for arrays in (some, rounded)
        )
        assert np.array_equal(few.choice, all_.choice)
        asked = np.stack([one.any(axis=1) for one in some])
        assert asked[0].all()
        assert (np.diff(asked.astype(int), axis=0) <= 0).all()  # who is not asked once is not asked again


def test_unanimous_members_need_a_majority_of_votes_and_no_more() -> None:
    sure = np.tile(np.float32([1, 0, 0]), (4, 1))
    for combiner in COMBINERS.values():
        some = ask(of_mask(*[sure] * 5).voters, [sure.__getitem__] * 5, 4, combiner(), EXACT)
        assert [bool(one.any()) for one in some] == [True, True, True, False, False]


def test_shares_and_agreement_count_those_who_were_asked() -> None:
    answers = [np.float32([[0.9, 0.1]]), np.float32([[0.7, 0.3]]), np.zeros((1, 2), np.float32)]
    for vote in (soft_vote, hard_vote):
        assert vote(answers, [1.0] * 3).agreement == pytest.approx([1])
    assert soft_vote(answers, [1.0] * 3).shares[0] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert hard_vote(answers, [1.0] * 3).shares[0] == pytest.approx([1, 0])


def test_the_rate_holds_on_photos_that_the_sureness_was_not_chosen_on() -> None:
    answers, combiner = members_like(20_000, 5, 0.8, seed=1), SoftVote()
    first, second = answers.take(slice(10_000)), answers.take(slice(10_000, None))
    chosen, curve = calibrate(first, combiner, 0.002)
    assert curve[0].changed == 0
    there, here = simulate(second, combiner, chosen), simulate(first, combiner, chosen)
    assert here.changed <= 0.002
    assert there.changed <= 0.004  # chance: 20 of 10,000 are expected, give or take 9
    assert there.asked < 0.8 * curve[0].asked
    asked = [point.asked for point in curve]
    assert asked == sorted(asked, reverse=True)  # who is content with less never asks more
    none, _ = calibrate(first, combiner, 0.0)
    assert simulate(first, combiner, none).changed == 0


def test_sureness_by_hand() -> None:
    # Two of four members asked, leads 0.6 and 0.4: mean 0.5, squares 0.02; the usual spread counts as one observation more.
    so_far = of_mask(np.array([[0.8, 0.2]]), np.array([[0.7, 0.3]]))
    pending = [Voter("mask", "mask-0001", fold) for fold in (2, 3)]
    variance = (0.1 * (1 - 0.25 + 1e-4) ** 1.5 + 0.02) / 2
    error = (variance * 2 / (4 * 2)) ** 0.5
    for sure, settled in ((0.5 / error - 0.01, True), (0.5 / error + 0.01, False)):
        assert Cascade(0.1, sure, {"mask": 0.1}).settled(so_far, pending, SoftVote()).tolist() == [settled]


def test_a_rate_that_the_photos_cannot_show_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"100 photos cannot show a rate of 0.001 changed labels: give at least 3,000"
    ):
        calibrate(members_like(100, 3, 0.5, 0), SoftVote(), 0.001)


def kept(folder: Path, cascade: Cascade) -> Measured:
    """A cascade's file, as `orch cascade` writes it."""
    point = Point(cascade, 0.5, 0.01, np.zeros(100, np.int64))
    measured = Measured(point, [Point(EXACT, 0.8, 0.0, point.label), point], 100, None, None)
    folder.mkdir(exist_ok=True)
    save_cascade(folder, measured)
    return measured


def test_a_cascade_survives_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "soft-0001"
    for cascade in (Cascade(0.01, 2.5, {"age": 0.5, "mask": 0.0}), EXACT):
        measured = kept(folder, cascade)
        found = read_cascade(folder, SoftVote())
        assert found == SavedCascade(cascade, 100, 0.01, measured.changed_at_most)
    assert read_cascade(folder, HardVote()) is None
    assert read_cascade(tmp_path, SoftVote()) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "other", "shape", "folder", "link", "binary"])
def test_a_damaged_cascade_is_told_with_a_way_out_that_works(tmp_path: Path, damage: str) -> None:
    folder, other = tmp_path / "soft-0001", tmp_path / "soft-0002"
    kept(folder, Cascade(0.01, 2.5, {"age": 0.5}))
    kept(other, Cascade(0.5, 1.5, {"age": 0.5}))
    path = folder / CASCADE
    whole = path.read_bytes()
    place = whole.index(b"2.5")
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to("nowhere.json")
    else:
        path.write_bytes({
            "cut": whole[:100], "empty": b"", "bit": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            "other": (other / CASCADE).read_bytes(), "shape": b"[]", "binary": b"\xff\xfe\x00",
        }[damage])  # fmt: skip
    with pytest.raises(DamagedError, match=r"cascade\.json: .*orch cascade PHOTOS --ensemble soft-0001") as error:
        read_cascade(folder, SoftVote())
    aside = re.search(r"`(mv [^`]*)`", str(error.value))
    assert aside
    subprocess.run(aside[1], shell=True, check=True)
    assert read_cascade(folder, SoftVote()) is None
    kept(folder, EXACT)
    assert read_cascade(folder, SoftVote()) is not None


def test_the_command_measures_keeps_and_uses_a_cascade(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("predict", people / "eval", "-w", workspace, "--cascade", "--json", "--engine", "torch")
    full = orch("predict", people / "eval", "-w", workspace, "--json", "--engine", "torch")
    assert "cascade: exact, no label can change" in done.err
    answers, expected = json.loads(done.out), json.loads(full.out)
    assert [one["label"] for one in answers] == [one["label"] for one in expected]
    assert {one["asked"] for one in expected} == {9}
    assert all(3 <= one["asked"] <= 9 for one in answers)
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.2, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["photos"] == 28
    assert told["changed"] <= 0.2
    assert told["changed"] < told["changed_at_most_95"] < 0.5
    assert told["asked"] <= told["curve"][0]["asked"]
    assert (workspace / "soft-0001" / "cascade.png").stat().st_size > 5_000
    table = tmp_path / "p.parquet"
    done = orch(
        "predict", "--eval", people / "eval", "--out", tmp_path / "s.csv", "-w", workspace, "--cascade", "--engine", "torch",
        "--probabilities", table,
    )  # fmt: skip
    changed, most = 100 * told["changed"], 100 * told["changed_at_most_95"]
    assert f"{changed:.3g} % of labels changed on the 28 photos that it was measured on; up to {most:.3g} %" in done.err
    shown = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.2)
    assert f"up to {most:.3g} % of labels may change" in shown.err
    assert "at most" not in shown.out  # the rate is what was asked for, and no promise
    assert "macro F1" not in shown.out  # no labels, no column
    assert f"asked {100 * told['asked']:.0f} % of the members" in done.err
    assert pd.read_parquet(table)["asked"].sum() == pytest.approx(told["asked"] * 28 * 9)


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
    # What another run of the workspace has learnt from does not count, until the ensemble has it.
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,gender\n{photo},male\n")
    assert train(orch, people, workspace, "train", "gender", *tiny(), "--extra", tmp_path / "extra.csv").code == 0
    assert orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).code == 0
    assert orch("ensemble", "-w", workspace, "--members", "gender=gender-0002").code == 0
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "1 of 28 photos were trained on" in done.err
    # Members that a run shares with its parent learnt from the same files.
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
    for words, told in (
        (("--rate", 1.5), "--rate 1.5; allowed: 0 up to, not including, 1"),
        (("--rate", "nan"), "--rate nan; allowed"),
        ((), "28 photos cannot show a rate of 0.001 changed labels: give at least 3,000, or --rate 0.108"),
        (("--engine", "onx"), "Did you mean 'onnx'?"),
        (("--device", "gpu"), "--device gpu: allowed: auto, cpu, cuda"),
    ):
        done = orch("cascade", people / "eval", "-w", workspace, *words)
        assert done.code == 2
        assert told in done.err
    rate = re.search(r"--rate (0\.\d+)", orch("cascade", people / "eval", "-w", workspace).err)
    assert rate
    monkeypatch.setenv("ORCH_DEBUG", "1")  # the rate that was told would do: members are loaded
    with pytest.raises(AssertionError, match="a member was loaded"):
        orch("cascade", people / "eval", "-w", workspace, "--rate", rate[1])
    monkeypatch.delenv("ORCH_DEBUG")
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    assert "a hard vote needs none" in orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5).err
    assert orch("cascade", "-w", workspace).code == 2

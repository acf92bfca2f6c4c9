"""A cascade asks fewer members; exactly it never changes an answer, by sureness it keeps to its rate."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cascading import CASCADE, read_cascade
from orchestrator.data.synthetic import write_people
from orchestrator.ensemble.cascade import EXACT, Cascade, ask, calibrate, simulate
from orchestrator.ensemble.voting import Strategy, vote
from orchestrator.errors import ConfigError
from orchestrator.labels import CLASSES, TASKS
from tests.conftest import Done, tiny, train

Orch = Callable[..., Done]


def members_like(photos: int, members: int, noise: float, seed: int) -> dict[str, list[np.ndarray]]:
    """Members that see the same photos and differ by noise, as folds do; one photo in five is hard."""
    rng = np.random.default_rng(seed)
    found = {}
    for task in TASKS:
        classes = len(CLASSES[task])
        sure = np.where(rng.random((photos, 1)) < 0.2, 0.7, 6.0)
        logits = sure * np.eye(classes)[rng.integers(0, classes, photos)]
        found[task] = []
        for _ in range(members):
            shifted = np.exp(logits + noise * rng.normal(size=logits.shape))
            found[task].append((shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32))
    return found


@given(
    st.integers(1, 7), st.integers(1, 40), st.sampled_from(["soft", "hard"]), st.floats(0, 3), st.integers(0, 2**32 - 1)
)
def test_an_exact_cascade_never_changes_a_choice(
    members: int, photos: int, strategy: Strategy, noise: float, seed: int
) -> None:
    for task, answers in members_like(photos, members, noise, seed).items():
        rounded = [np.round(one, 1) + np.float32(0.01) for one in answers]  # ties occur
        rounded = [one / one.sum(axis=1, keepdims=True) for one in rounded]
        some = ask(task, [one.__getitem__ for one in rounded], photos, strategy, EXACT)
        assert np.array_equal(vote(some, strategy).choice, vote(rounded, strategy).choice)
        asked = np.stack([one.any(axis=1) for one in some])
        assert asked[0].all()
        assert (np.diff(asked.astype(int), axis=0) <= 0).all()  # who is not asked once is not asked again


def test_unanimous_members_need_a_majority_of_voices_and_no_more() -> None:
    sure = np.tile(np.float32([1, 0, 0]), (4, 1))
    for strategy in ("soft", "hard"):
        some = ask("mask", [sure.__getitem__] * 5, 4, strategy, EXACT)
        assert [bool(one.any()) for one in some] == [True, True, True, False, False]


def test_shares_and_agreement_count_those_who_were_asked() -> None:
    answers = [np.float32([[0.9, 0.1]]), np.float32([[0.7, 0.3]]), np.zeros((1, 2), np.float32)]
    for strategy in ("soft", "hard"):
        found = vote(answers, strategy)
        assert found.agreement == pytest.approx([1])
    assert vote(answers, "soft").shares[0] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert vote(answers, "hard").shares[0] == pytest.approx([1, 0])


def test_the_rate_holds_on_photos_that_the_sureness_was_not_chosen_on() -> None:
    by_task = members_like(20_000, 5, 0.8, seed=1)
    first = {task: [one[:10_000] for one in answers] for task, answers in by_task.items()}
    second = {task: [one[10_000:] for one in answers] for task, answers in by_task.items()}
    chosen, curve = calibrate(first, 0.002)
    assert curve[0].changed == 0
    there, here = simulate(second, "soft", chosen), simulate(first, "soft", chosen)
    assert here.changed <= 0.002
    assert there.changed <= 0.004  # chance: 20 of 10,000 are expected, give or take 9
    assert there.asked < 0.8 * curve[0].asked
    asked = [point.asked for point in curve]
    assert asked == sorted(asked, reverse=True)  # who is content with less never asks more
    none, _ = calibrate(first, 0.0)
    assert simulate(first, "soft", none).changed == 0


def test_sureness_by_hand() -> None:
    # Two of four members asked, leads 0.6 and 0.4: mean 0.5, squares 0.02; the usual spread counts as one observation more.
    so_far = vote([np.array([[0.8, 0.2]]), np.array([[0.7, 0.3]])], "soft")
    variance = (0.1 * (1 - 0.25 + 1e-4) ** 1.5 + 0.02) / 2
    error = (variance * 2 / (4 * 2)) ** 0.5
    for sure, settled in ((0.5 / error - 0.01, True), (0.5 / error + 0.01, False)):
        assert Cascade(0.1, sure, {"gender": 0.1}).settled("gender", so_far, 4).tolist() == [settled]


def test_a_rate_that_the_photos_cannot_show_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"100 photos cannot show a rate of 0.001 changed labels: give at least 3,000"
    ):
        calibrate(members_like(100, 3, 0.5, 0), 0.001)


def test_a_cascade_survives_its_file(tmp_path: Path) -> None:
    for cascade in (Cascade(0.01, 2.5, {"age": 0.5, "mask": 0.0}), EXACT):
        value = {"format": 1, "cascade": cascade.as_dict()}
        (tmp_path / CASCADE).write_text(json.dumps(value, allow_nan=False))
        assert read_cascade(tmp_path, "soft") == cascade
    assert read_cascade(tmp_path, "hard") == EXACT


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
    assert "20 % of labels may change" in done.err
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
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,gender\n{photo},male\n")
    assert train(orch, people, workspace, "train", "gender", *tiny(), "--extra", tmp_path / "extra.csv").code == 0
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "1 of 28 photos were trained on" in done.err
    shutil.rmtree(workspace / "photos")
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert done.code == 2
    assert "which photos it was trained on cannot be told" in done.err
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    done = orch("cascade", people / "eval", "-w", workspace, "--rate", 0.5)
    assert "a hard vote needs none" in done.err
    assert orch("cascade", "-w", workspace).code == 2

"""`orch sweep`: wrong words are refused before any training."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Done
from tests.experiments.test_sweeps import SPACE, words_of

Orch = Callable[..., Done]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path / "space.toml"


@pytest.mark.parametrize(("more", "message"), [
    (("--out", "best.txt"), "give a name that ends in .toml"),
    (("--stages", "los"), "no stage is called 'los'"),
    (("--stages", "lr", "--picture", "x.png"), "--picture draws the trials of one search"),
    (("--set", "lr=fast"), "lr = 'fast'"),
    (("--folds-used", 9), "--folds-used 9; the plan has 3 folds"),
])  # fmt: skip
def test_wrong_words_are_told_before_any_training(
    orch: Orch, people: Path, tmp_path: Path, space: Path, more: tuple[object, ...], message: str
) -> None:
    done = orch(*words_of(people, tmp_path / "runs", space, *more))
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.glob("runs/*-*/run.json"))


def test_a_wrong_stage_and_a_wrong_folder_are_told_together(orch: Orch, tmp_path: Path) -> None:
    words = ("--data", tmp_path / "nowhere", "--stages", "los", "-w", tmp_path / "runs")
    done = orch("sweep", "age", *words)
    assert done.code == 2
    for mistake in ("no stage is called 'los'", "nowhere: no such folder or table"):
        assert mistake in done.err
    assert not (tmp_path / "runs").exists()


def test_without_data_or_optuna_it_says_what_to_do(
    orch: Orch, people: Path, tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--data is missing" in orch("sweep", "age").err
    assert "'ag' is not a specialist; allowed: mask, gender, age, joint. Did you mean 'age'?" in orch("sweep", "ag").err
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = orch(*words_of(people, tmp_path / "runs", space))
    assert done.code == 2
    assert f"`pip install -e '{ROOT}[sweep]'`" in done.err
    for words in (("--print-space",), ("--print-space", "--stages", "loss")):
        printed = orch("sweep", "age", *words)
        assert printed.code == 0
        assert "lr = { low = 3e-4" in printed.out


@pytest.mark.parametrize(("text", "message"), [
    ("lr = { low = 1e-4, high = inf }", "finite"),
    ("lr = { low = nan, high = 1 }", "finite"),
])  # fmt: skip
def test_ranges_without_end_are_refused(orch: Orch, people: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "space.toml").write_text(text + "\n")
    done = orch(*words_of(people, tmp_path / "runs", tmp_path / "space.toml"))
    assert done.code == 2
    assert message in done.err

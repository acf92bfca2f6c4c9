"""Tuning in stages: the recipe moves for more than noise only."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Done, tiny

pytest.importorskip("optuna", reason="the extra `sweep` is not installed")

Orch = Callable[..., Done]


def test_stages_move_the_recipe_for_more_than_noise_only(orch: Orch, people: Path, tmp_path: Path) -> None:
    workspace, stages = tmp_path / "runs", tmp_path / "stages.toml"
    stages.write_text(
        '[loss]\nloss = ["focal", "cross_entropy"]\n[rate]\nlr = [1e-6, 2e-6]\n[tta]\nviews = [["flip"]]\n'
    )
    words = [
        "sweep", "mask", "--data", people / "train", "-w", workspace, "--folds", 2, "--jobs", 1,
        *tiny("lr=8e-3", "epochs=8", "height=64", "width=48"), "--space", stages, "--stages", "loss,rate,tta", "--small", 0.7,
    ]  # fmt: skip
    done = orch(*words, "--json", "--out", tmp_path / "tuned.toml")
    assert done.code == 0, done.err
    assert (
        "is the recipe as it is, at 48 x 32; trials are compared with it" in done.err
    )  # of 64 x 48: not quite as it is
    outcomes = json.loads(done.out)
    assert [outcome["stage"] for outcome in outcomes] == ["loss", "rate", "tta"]
    for before, after in pairwise(outcomes):
        assert after["before"] == before["after"]
    for outcome in outcomes:
        names = ("runs", "compare", outcome["before"], outcome["best"], "-w", workspace, "--json")
        best = json.loads(orch(*names).out)["runs"][1]
        # Losses of another kind make probabilities of another kind: their log loss decides nothing.
        by_log_loss = outcome["stage"] != "loss" and (best["verdict"], best["log_loss_verdict"]) == ("noise", "better")
        assert outcome["moved"] is (best["verdict"] == "better" or by_log_loss)
        assert outcome["moved"] is (outcome["after"] == outcome["best"]) is ("the recipe moves" in outcome["why"])
    rate = outcomes[1]
    assert (rate["moved"], rate["after"], rate["tried"]) == (False, rate["before"], 2)  # nothing learns at 1e-6
    runs = {run["id"]: run for run in json.loads(orch("runs", "list", "-w", workspace, "--json").out)}
    assert runs[outcomes[2]["best"]]["recipe"]["views"] == ["flip"]
    assert runs[outcomes[2]["best"]]["parent"] == outcomes[2]["before"]
    sizes = {(run["recipe"]["height"], run["recipe"]["width"]) for run in runs.values()}
    assert sizes == {(64, 48), (48, 32)}
    assert all((runs[outcome["best"]]["recipe"]["height"]) == 64 for outcome in outcomes)
    assert all("tuning" in run["tags"] for run in runs.values() if run["parent"] is None)
    assert not (workspace / "current").exists()
    count = len(runs)
    done = orch(*words)
    assert done.code == 0, done.err
    assert "stage by stage" in done.out
    assert len(json.loads(orch("runs", "list", "-w", workspace, "--json").out)) == count  # all of it is found


def test_stages_without_held_out_people_are_refused_before_any_training(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    done = orch(
        "sweep", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 0, "--stages", "loss", *tiny()
    )
    assert done.code == 2
    assert "--folds 0 holds nobody out" in done.err
    assert not list(tmp_path.glob("runs/*-*/run.json"))

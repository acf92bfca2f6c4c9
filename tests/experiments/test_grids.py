"""Controlled experiments in one command."""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.events import Event, InputsRead, Listener
from orchestrator.execution.executor import JobResult
from orchestrator.experiments.grids import train_points
from orchestrator.experiments.points import grid_points
from orchestrator.networks import backbones
from orchestrator.pipeline import preparation
from orchestrator.pipeline.retraining import starting_point
from orchestrator.pipeline.settings import Settings
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.job import MemberJob
from tests.conftest import TINY, Done, edit_sealed, hashes, tiny, train

Orch = Callable[..., Done]


def test_a_grid_trains_each_combination_once_and_leaves_the_current_run(
    orch: Orch, people: Path, workspace: Path
) -> None:
    words = ("train", "age", *tiny(), "--grid", "loss=soft_age,focal", "lr=1e-3,2e-3", "--folds-used", 1)
    before = hashes(workspace / "age-0001")
    done = train(orch, people, workspace, *words)
    assert done.code == 0, done.err
    assert "4 combinations of 1 fold each." in done.err
    assert "over age-0002" in done.out
    step = re.search(r"it covers people of fold 0 of 3; over all folds: orch (train age .*)", done.err)
    assert step is not None
    runs = {
        run["id"]: run for run in json.loads(orch("runs", "list", "-w", workspace, "--where", "tag=grid", "--json").out)
    }
    assert [(run["recipe"]["loss"], run["recipe"]["lr"]) for run in runs.values()] == [
        ("soft_age", 1e-3), ("soft_age", 2e-3), ("focal", 1e-3), ("focal", 2e-3),
    ]  # fmt: skip
    assert all(run["folds"] == [0] and run["status"] == "complete" and not run["current"] for run in runs.values())
    assert json.loads((workspace / "current/age.json").read_text())["name"] == "age-0001"
    assert hashes(workspace / "age-0001") == before
    followed = orch(*shlex.split(step[1]))
    assert followed.code == 0, followed.err
    whole = json.loads((workspace / "age-0006/run.json").read_text())
    best = re.search(r"best: (age-000\d)", done.err)
    assert best is not None
    assert whole["folds"] == [0, 1, 2]
    assert whole["recipe"] == runs[best[1]]["recipe"]
    wider = ("train", "age", *tiny(), "--grid", "loss=focal,ce", "lr=1e-3", "--folds-used", 1, "--json")
    done = train(orch, people, workspace, *wider)
    assert done.code == 0, done.err
    assert "age-0004 has" in done.err
    assert [run["id"] for run in json.loads(done.out)["runs"]] == ["age-0004", "age-0007"]


def test_every_wrong_combination_is_told_before_any_training(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", *tiny(), "--grid", "loss=focal,fcal", "patience=0,many")
    assert done.code == 2
    assert "'fcal' is not a loss" in done.err
    assert "patience = 'many'" in done.err
    assert done.err.count("--grid loss=fcal") == done.err.count("--grid patience=many") == 1  # not once a combination
    assert not (workspace / "age-0002").exists()
    done = train(orch, people, workspace, "train", "age", "--grid", "backbone=test_efficientnet,nosuch", "lr=1e-3")
    assert done.code == 2
    assert "nosuch" in done.err
    assert not (workspace / "age-0002").exists()  # the first combination alone is no experiment
    done = train(orch, people, workspace, "train", "age", *tiny(), "loss=focal")
    assert "only --grid takes more words" in done.err
    done = train(orch, people, workspace, "train", "age", "--grid", "lr=1e-3,2e-3", "--fold", 1)
    assert "leave --fold, --base, --again and --profile out" in done.err
    done = train(orch, people, workspace, "train", "age", *tiny(), "--folds-used", 9)
    assert "--folds-used 9; the plan has 3 folds" in done.err


def test_a_grid_tags_what_it_finds_and_offers_nothing_of_others(orch: Orch, people: Path, workspace: Path) -> None:
    record = workspace / "age-0001/run.json"
    edit_sealed(record, make_current="auto", was_offered=False)  # train-all, killed at its end
    done = train(orch, people, workspace, "train", "age", *tiny(), "--grid", "lr=2e-3,4e-3")
    assert done.code == 0, done.err
    listed = json.loads(orch("runs", "list", "-w", workspace, "--where", "tag=grid", "--json").out)
    assert [run["id"] for run in listed] == ["age-0001", "age-0002"]
    assert not json.loads(record.read_text())["was_offered"]  # train-all has yet to offer it
    # What a grid has trained is not trained again, and takes nobody's place; but it fills an empty one.
    done = train(orch, people, workspace, "train", "age", *tiny("lr=4e-3"))
    assert "age-0002 has it already" in done.err
    assert "age-0001 is the current age run" in done.err
    (workspace / "current/age.json").unlink()
    done = train(orch, people, workspace, "train-all", *tiny("age.lr=4e-3"))
    assert done.code == 0, done.err
    assert "age-0002 is now the current age run" in done.err
    assert orch("ensemble", "-w", workspace).code == 0


def test_training_goes_on_with_a_grids_unfinished_run_and_makes_it_current(
    orch: Orch, people: Path, workspace: Path
) -> None:
    assert train(orch, people, workspace, "train", "age", *tiny(), "--grid", "lr=4e-3").code == 0
    record = workspace / "age-0002/run.json"
    edit_sealed(record, status="unfinished", files={})
    (workspace / "age-0002/fold-1/member.json").unlink()
    done = train(orch, people, workspace, "train", "age", *tiny("lr=4e-3"))
    assert done.code == 0, done.err
    assert "age-0002 is now the current age run (was age-0001)" in done.err


def test_a_grid_trains_a_damaged_member_of_an_unfinished_run_again(orch: Orch, people: Path, workspace: Path) -> None:
    words = ("train", "age", *tiny("epochs=1"), "--grid", "lr=1e-3,4e-3")
    assert train(orch, people, workspace, *words).code == 0
    run = workspace / "age-0003"
    weights = hashes(run)["fold-1/weights.safetensors"]
    edit_sealed(run / "run.json", status="unfinished", files={})  # as a kill leaves it
    card = run / "fold-1/member.json"
    card.write_bytes(card.read_bytes()[:100])
    (run / "fold-2").rename(run / "elsewhere")
    (run / "fold-2").write_bytes(b"a file where a folder must be")
    done = train(orch, people, workspace, *words)
    assert done.code == 0, done.err
    assert "age-0003 trains it again (the old files were set aside as fold-1." in done.err
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert hashes(run)["fold-1/weights.safetensors"] == weights


class Nobody:
    """An executor that trains nobody."""

    def parallelism(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        return 1, 1

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        return [JobResult(*job.key, "failed", "nobody is trained here") for job in jobs]


@pytest.mark.parametrize(
    ("grid", "runs", "networks"),
    [(["lr=1e-3,2e-3,3e-3"], 3, 1), (["drop_rate=0,0.1,0.2"], 3, 3), (["drop_rate=0,0.1", "lr=1e-3,2e-3"], 4, 2)],
)
def test_a_grid_builds_a_network_for_each_that_differs(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, grid: list[str], runs: int, networks: int
) -> None:
    built, real = list[float](), backbones.create

    def counted(name: str, outputs: int, recipe: Recipe | None = None, *more: Any, **others: Any) -> Any:
        if recipe is not None:  # else the backbone alone, to see which edges it ignores: once for each of its sizes
            built.append(recipe.drop_rate)
        return real(name, outputs, recipe, *more, **others)

    monkeypatch.setattr(backbones, "create", counted)
    settings = Settings(
        people / "train", workspace, changes=TINY, folds=3, folds_used=1, device="cpu", executor=Nobody()
    )
    start = starting_point(settings, SPECIALISTS["age"])
    trained = train_points(start, grid_points(start, grid), lambda event: None)
    assert len(trained.report.runs) == runs
    assert len({run.key for run in trained.report.runs}) == runs
    assert len(built) == len(set(built)) == networks


def test_a_grids_photos_are_prepared_once_before_any_run_is_recorded(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, events = list[tuple[int, int]](), list[Event]()
    real = preparation.build_stores

    def counted(root: Path, paths: Any, keys: Any, *more: Any) -> Any:
        prepared.append((len(keys), len(list(workspace.glob("age-*")))))
        return real(root, paths, keys, *more)

    monkeypatch.setattr(preparation, "build_stores", counted)
    changes = [change for change in (*TINY, "epochs=1") if not change.startswith("height=")]
    settings = Settings(people / "train", workspace, changes=changes, folds=3, folds_used=1, device="cpu")
    start = starting_point(settings, SPECIALISTS["age"])
    points = grid_points(start, ["height=32,48", "lr=1e-3,0.001"])
    trained = train_points(start, points, events.append)
    assert trained.report.complete
    assert prepared == [(2, 1)]  # both geometries at once, while the workspace had the one run that it came with
    assert events.count(InputsRead()) == 1
    assert [(changes, run.id) for changes, run in trained.runs] == [
        (("height=32", "lr=1e-3"), "age-0002"), (("height=32", "lr=0.001"), "age-0002"),
        (("height=48", "lr=1e-3"), "age-0003"), (("height=48", "lr=0.001"), "age-0003"),
    ]  # fmt: skip
    assert [run.id for run in trained.report.runs] == ["age-0002", "age-0003"]


def test_a_damaged_member_of_a_complete_run_is_trained_again(orch: Orch, people: Path, workspace: Path) -> None:
    grid = ("train", "age", *tiny("epochs=1"), "--grid", "lr=1e-3,2e-3", "--folds-used", 1)
    assert train(orch, people, workspace, *grid).code == 0
    before = hashes(workspace / "age-0002" / "fold-0")
    (workspace / "age-0002" / "fold-0" / "weights.safetensors").write_bytes(b"")
    done = train(orch, people, workspace, *grid)
    assert done.code == 0, done.err
    assert "age-0002 trains it again" in done.err
    assert hashes(workspace / "age-0002" / "fold-0")["weights.safetensors"] == before["weights.safetensors"]


def test_warnings_about_any_combination_are_given_once(orch: Orch, people: Path, workspace: Path) -> None:
    grid = ("--grid", "sample_balance=0,1", "lr=1e-3,2e-3")
    done = train(
        orch, people, workspace, "train", "age", *tiny("class_balance=1", "epochs=1"), *grid, "--folds-used", 1
    )
    assert done.code == 0, done.err
    assert done.err.count("weights are computed after sampling") == 1  # of the last two combinations

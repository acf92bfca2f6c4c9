"""One specialist or fold is trained again so that its scores still go with the others'."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from orchestrator.artifacts.workspace import Workspace
from tests.conftest import Done, commands_in, hashes, tiny, train

Orch = Callable[..., Done]


def test_retraining_one_specialist_leaves_the_others_untouched(orch: Orch, people: Path, workspace: Path) -> None:
    before = {task: hashes(workspace / f"{task}-0001") for task in ("age", "gender", "mask")}
    done = train(orch, people, workspace, "train", "age", *tiny(), "--seed", 1)
    assert done.code == 0, done.err
    assert "age-0002 is now the current age run (was age-0001); `orch runs use age-0001" in done.err
    assert {task: hashes(workspace / f"{task}-0001") for task in before} == before
    runs = {run["id"]: run for run in json.loads(orch("runs", "list", "-w", workspace, "--json").out)}
    assert [name for name, run in runs.items() if run["current"]] == ["age-0002", "gender-0001", "mask-0001"]
    assert runs["age-0002"]["seed"] == 1
    weights = [
        member["sha256"]["weights.safetensors"] for name in ("age-0001", "age-0002") for member in runs[name]["members"]
    ]
    assert len(set(weights)) == 6


def test_retraining_one_fold_shares_the_other_members(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--seed", 5)
    assert done.code == 0, done.err
    assert "mask-0002 shares folds 0, 1 with mask-0001." in done.err
    old, new = workspace / "mask-0001", workspace / "mask-0002"
    for fold in (0, 1):
        assert hashes(old / f"fold-{fold}").items() >= {
            (name, digest) for name, digest in hashes(new / f"fold-{fold}").items()
        }
    assert (old / "fold-2/weights.safetensors").read_bytes() != (new / "fold-2/weights.safetensors").read_bytes()
    record = json.loads((new / "run.json").read_text())
    assert (record["parent"], record["retrained"], record["folds"]) == ("mask-0001", [2], [0, 1, 2])
    shutil.rmtree(old)
    assert orch("ensemble", "-w", workspace).code == 0


def test_retraining_a_fold_refuses_another_recipe_plan_or_fold(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--set", "lr=0.5")
    assert done.code == 2
    assert "A run has one recipe" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--plan-seed", 9)
    assert "members of different plans never mix" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 7)
    assert "--fold 7: allowed: 0 to 2" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 1, "--base", "age-0001")
    assert "a run of the age specialist; needed: one of mask" in done.err


def test_retraining_a_fold_refuses_changed_photos_and_initial_weights(orch: Orch, people: Path, tmp_path: Path) -> None:
    copy, runs = tmp_path / "people", tmp_path / "runs"
    shutil.copytree(people, copy)
    torch.manual_seed(0)
    weights = tmp_path / "body.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    first = train(orch, copy, runs, "train-all", "--tasks", "mask", *tiny("epochs=1", f"weights={weights}"))
    assert first.code == 0, first.err
    save_file({key: value + 1 for key, value in timm.create_model("test_efficientnet").state_dict().items()}, weights)
    done = train(orch, copy, runs, "train", "mask", "--fold", 1)
    assert done.code == 2
    assert "differ from those that mask-0001 started from. Restore them, or retrain the whole specialist" in done.err
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), weights)
    photo = next((copy / "train" / "images").rglob("normal.*"))
    Image.open(photo).rotate(180).save(photo)
    done = train(orch, copy, runs, "train", "mask", "--fold", 1)
    assert done.code == 2
    assert (
        "the photos or their labels changed since mask-0001 was trained: members of different data never mix"
        in done.err
    )


def test_a_retraining_keeps_plan_and_recipe_of_the_current_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--set", "lr=1e-4")
    assert done.code == 0, done.err
    assert "recipe: that of age-0001 (quick with 8 changes), with lr=1e-4." in done.err
    old, new = (json.loads((workspace / name / "run.json").read_text()) for name in ("age-0001", "age-0002"))
    assert new["plan"] == old["plan"]
    assert {key for key in new["recipe"] if new["recipe"][key] != old["recipe"][key]} == {"lr"}
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1)
    assert "age-0002 has it already: the same recipe, data, plan and seed. --again trains it again" in done.err
    assert not (workspace / "age-0003").exists()
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--again")
    assert done.code == 0, done.err
    hashes_of = [hashes(workspace / name / "fold-0")["weights.safetensors"] for name in ("age-0002", "age-0003")]
    assert len(set(hashes_of)) == 1
    near = orch(
        "train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--set", "lr=2e-4", "--set", 'views=["flip"]',
        "--valid-only",
    )  # fmt: skip
    (line,) = [line for line in near.err.splitlines() if line.startswith("age-0003 differs only in ")]
    assert "lr (0.0001 there, 0.0002 here)" in line
    assert "views (- there, flip here)" in line
    listed = orch("runs", "list", "-w", workspace).out
    assert "quick +" in listed


def test_a_fold_that_the_base_lacks_joins_it(orch: Orch, people: Path, tmp_path: Path) -> None:
    runs = tmp_path / "one"
    assert train(orch, people, runs, "train-all", "--valid-only", *tiny("epochs=1")).code == 0
    done = train(orch, people, runs, "train", "age", "--fold", 1)
    assert done.code == 0, done.err
    record = json.loads((runs / "age-0002" / "run.json").read_text())
    assert (record["folds"], record["retrained"]) == ([0, 1], [1])
    assert (runs / "age-0002" / "fold-1" / "member.json").exists()
    assert "age-0002 is now the current age run (was age-0001)" in done.err  # of two folds, where one stood


def test_a_retraining_keeps_a_single_split_or_no_split(orch: Orch, people: Path, tmp_path: Path) -> None:
    for words, covers, folds in (
        (["--folds", 3, "--valid-only"], "people of fold 0 of 3", [0]),
        (["--folds", 0], "nobody: trained on everything", [None]),
    ):
        runs = tmp_path / f"runs-{words[1]}"
        rest = ["--data", people / "train", "-w", runs, "--jobs", 1]
        assert orch("train-all", *rest, *words, *tiny("epochs=1")).code == 0
        done = orch("train", "age", *rest, "--seed", 1)
        assert done.code == 0, done.err
        shown = json.loads(orch("runs", "show", "age-0002", "-w", runs, "--json").out)
        assert (shown["covers"], shown["folds"]) == (covers, folds)
        assert orch("ensemble", "-w", runs).code == 0


def test_what_is_held_against_a_run_is_trained_by_as_many_threads(
    orch: Orch, people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads add up in another order: the same settings would come to another score."""
    space = Workspace(workspace)
    monkeypatch.setattr("joblib.externals.loky.cpu_count", lambda *_, **__: 3)
    threads = space.run("age-0001").threads
    done = train(orch, people, workspace, "train", "age", "--fold", 1, "--seed", 1)
    assert done.code == 0, done.err
    assert space.run("age-0002").threads == threads
    grid = ("train", "age", "--grid", "lr=1e-3,2e-3", "--folds-used", 1, "--data", people / "train", "-w", workspace)
    assert orch(*grid).code == 0
    assert {space.run(name).threads for name in ("age-0003", "age-0004")} == {threads}
    assert train(orch, people, workspace, "train-all", *tiny("lr=0.5")).code == 0
    assert space.run("age-0005").threads == 3


def test_a_fold_that_is_trained_so_already_is_found(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--fold", 1)
    assert done.code == 0, done.err
    assert "age-0001 has fold 1 already, by the same recipe, data, plan and seed" in done.err
    assert [run.id for run in Workspace(workspace).runs("age")] == ["age-0001"]
    before = hashes(workspace / "age-0001/fold-1")["weights.safetensors"]
    done = train(orch, people, workspace, "train", "age", "--fold", 1, "--again")
    assert done.code == 0, done.err
    assert hashes(workspace / "age-0002/fold-1")["weights.safetensors"] == before


def test_without_a_choice_of_what_is_current_a_retraining_has_nothing_to_start_from(
    orch: Orch, people: Path, workspace: Path
) -> None:
    """It took another recipe than the run that was current, and became current itself, without a word."""
    (workspace / "current" / "age.json").unlink()
    commands = (
        ["train", "age", "--seed", 4],
        ["train", "age", "--grid", "lr=1e-3,2e-3"],
        ["sweep", "age"],
        ["train-all", "--folds", 3],
    )
    for words in commands:
        done = orch(*words, "--data", people / "train", "--jobs", 1, "-w", workspace)
        assert done.code == 2
        assert (
            f"no age run is the current one ({workspace / 'current' / 'age.json'} is missing): choose one" in done.err
        )
    assert [path.name for path in sorted(workspace.glob("age-*"))] == ["age-0001"]
    (use, *_) = commands_in(done.err)
    assert orch(*shlex.split(use)[1:]).code == 0
    done = orch("train", "age", "--data", people / "train", "--jobs", 1, "-w", workspace)
    assert "age-0001 has it already" in done.err


def test_a_choice_of_an_experiments_run_is_missed_too(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ["train", "age", "--data", people / "train", "--jobs", 1, "-w", tmp_path / "runs"]
    grid = [*words, "--grid", "lr=1e-3,2e-3", "--folds", 2, *tiny("epochs=1")]
    assert orch(*grid).code == 0
    assert orch(*grid).code == 0  # nothing was current yet: the same command goes on
    assert orch("runs", "use", "age-0002", "-w", tmp_path / "runs").code == 0
    (tmp_path / "runs/current/age.json").unlink()
    done = orch(*words)
    assert (done.code, "no age run is the current one" in done.err) == (2, True)


@pytest.mark.slow
def test_the_base_run_decides_the_plan(orch: Orch, people: Path, workspace: Path) -> None:
    words = ["--data", people / "train", "-w", workspace, "--jobs", 1]
    assert orch("train", "age", *words, "--folds", 2, *tiny("epochs=1")).code == 0  # age-0002: two folds
    assert orch("runs", "use", "age-0001", "-w", workspace).code == 0
    done = orch("train", "age", *words, "--base", "age-0002", "--seed", 5)
    assert done.code == 0, done.err
    run = Workspace(workspace).run("age-0003")
    assert run.plan is not None
    assert (run.plan.k, run.folds) == (2, [0, 1])
    # A fold that is trained with another seed beside shared ones: the list shows both.
    done = orch("train", "age", *words, "--base", "age-0002", "--fold", 1, "--seed", 3)
    assert done.code == 0, done.err
    run = Workspace(workspace).run("age-0004")
    assert run.seeds == [0, 3]
    assert re.search(r"age-0004 .* 0 3 ", orch("runs", "list", "-w", workspace).out)


def test_a_changed_member_is_not_shared(orch: Orch, people: Path, workspace: Path) -> None:
    (workspace / "mask-0001" / "fold-1" / "weights.safetensors").write_bytes(b"other")
    done = orch("train", "mask", "--data", people / "train", "-w", workspace, "--jobs", 1, "--fold", 2, "--seed", 1)
    assert done.code == 2
    assert "not the file that was written (sha256 " in done.err
    assert not (workspace / "mask-0002").exists()

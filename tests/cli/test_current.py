"""What becomes current says by how much it is better or worse than what it replaces, and how to go back."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.artifacts.workspace import Workspace
from orchestrator.ensembling.choosing import make_current
from orchestrator.ensembling.intervals import difference
from tests.conftest import Done, edit_sealed, tiny, train

Orch = Callable[..., Done]


def commands_in(text: str) -> list[str]:
    """Every whole command that a text prints between backticks."""
    return [part for part in re.findall(r"`(orch [^`]+)`", text) if not re.search(r"\b[A-Z]{3,}\b", part)]


def answers(workspace: Path, run: str) -> pd.DataFrame:
    tables = [pd.read_parquet(path) for path in sorted((workspace / run).glob("fold-*/held_out.parquet"))]
    return pd.concat(tables).sort_values("path", ignore_index=True)


def test_a_retrained_run_is_held_against_the_one_that_it_replaces(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    before, after = answers(workspace, "age-0001"), answers(workspace, "age-0002")
    codes = [table.filter(like="p(").to_numpy().argmax(axis=1) for table in (before, after)]
    gain, span = difference(before["person"], before["truth"].to_numpy(), *codes, 3)
    assert f"on the same 24 people, {gain:+.4f} ({span.low:+.4f} to {span.high:+.4f})" in done.err
    assert Workspace(workspace).current("age") == "age-0002"
    (back,) = {command for command in commands_in(done.err) if "runs use" in command}
    assert orch(*shlex.split(back)[1:]).code == 0
    assert Workspace(workspace).current("age") == "age-0001"


def test_a_run_without_a_score_does_not_displace_a_scored_one(orch: Orch, people: Path, workspace: Path) -> None:
    words = ["--data", people / "train", "-w", workspace, "--jobs", 1]
    done = orch("train", "age", *words, "--folds", 0, *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "age-0002 has no score (it holds nobody out): age-0001 stays the current age run" in done.err
    assert Workspace(workspace).current("age") == "age-0001"
    (use,) = {command for command in commands_in(done.err) if "runs use" in command}
    assert "age-0002 is now the current age run (was age-0001)" in orch(*shlex.split(use)[1:]).err
    assert Workspace(workspace).current("age") == "age-0002"


def test_ensembles_are_held_against_each_other_over_the_same_people(orch: Orch, people: Path, workspace: Path) -> None:
    assert "soft-0001 is now the current ensemble." in orch("ensemble", "-w", workspace).err
    done = orch("ensemble", "--strategy", "hard", "-w", workspace)
    assert "hard-0001 is now the current ensemble (was soft-0001)" in done.err
    assert "18-way: macro F1 " in done.err
    assert (
        "on the same 24 people, +0.0000 (+0.0000 to +0.0000): no clear difference" in done.err
    )  # one run a specialist
    done = orch("ensemble", "--no-score", "-w", workspace)
    assert "soft-0002 has no score: hard-0001 stays the current ensemble." in done.err
    assert Workspace(workspace).current("ensemble") == "hard-0001"
    assert orch("ensembles", "use", "soft-0002", "-w", workspace).code == 0
    assert Workspace(workspace).current("ensemble") == "soft-0002"


def test_an_ensemble_over_fewer_people_does_not_displace_one_over_all(
    orch: Orch, people: Path, workspace: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = train(orch, people, workspace, "train-all", "--valid-only", "--seed", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    members = [word for task in ("mask", "gender", "age") for word in ("--members", f"{task}={task}-0002")]
    done = orch("ensemble", *members, "-w", workspace)
    assert "soft-0002 covers people of fold 0 of 3: soft-0001 stays the current ensemble." in done.err, done.err
    assert f"next: orch ensembles use soft-0002 --workspace {workspace}" in done.err
    assert Workspace(workspace).current("ensemble") == "soft-0001"
    record = workspace / "age-0001/run.json"
    kept = record.read_bytes()
    record.write_text("{")  # may be repaired: what it covered is not given up
    damaged = orch("ensemble", *members, "-w", workspace)
    assert "soft-0003 covers people of fold 0 of 3: soft-0001 stays the current ensemble." in damaged.err, damaged.err
    record.write_bytes(kept)
    (use,) = {command for command in commands_in(done.err) if "ensembles use" in command}
    assert orch(*shlex.split(use)[1:]).code == 0
    assert Workspace(workspace).current("ensemble") == "soft-0002"


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


def test_a_current_run_whose_folder_was_deleted_is_told_with_a_way_out_that_works(
    orch: Orch, people: Path, workspace: Path
) -> None:
    words = ["--data", people / "train", "-w", workspace, "--jobs", 1]
    assert orch("train", "age", *words, "--seed", 1, *tiny("epochs=1")).code == 0
    shutil.rmtree(workspace / "age-0002")  # by hand, and not by `orch runs delete`
    for command in (["runs", "list"], ["ensemble"]):
        done = orch(*command, "-w", workspace)
        assert done.code in (1, 2)
        assert f"{workspace / 'current/age.json'}: names age-0002, of which there is no folder" in done.err
        (use,) = {command for command in commands_in(done.err) if "use" in command}
    assert "age-0001" in orch("runs", "list", "-w", workspace).out  # the rest is listed
    assert orch(*shlex.split(use)[1:]).code == 0
    assert orch("runs", "list", "-w", workspace).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0001")  # the last one
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    aside, again = re.findall(r"`([^`]+)`", done.err)
    assert "orch train age --data DIR" in again
    subprocess.run(shlex.split(aside), check=True)
    assert orch("train", "age", *words, "--folds", 3, *tiny("epochs=1")).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    for ensemble in workspace.glob("soft-*"):
        shutil.rmtree(ensemble)
    photo = next((people / "eval" / "images").iterdir())
    done = orch("predict", photo, "-w", workspace)
    assert done.code == 2
    assert "current/ensemble.json" in done.err
    (make,) = commands_in(done.err)
    assert orch(*shlex.split(make)[1:]).code == 0
    assert orch("predict", photo, "-w", workspace).code == 0


@pytest.mark.slow
def test_the_base_run_decides_the_plan(orch: Orch, people: Path, workspace: Path) -> None:
    words = ["--data", people / "train", "-w", workspace, "--jobs", 1]
    assert orch("train", "age", *words, "--folds", 2, *tiny("epochs=1")).code == 0  # age-0002: two folds
    assert orch("runs", "use", "age-0001", "-w", workspace).code == 0
    done = orch("train", "age", *words, "--base", "age-0002", "--seed", 5)
    assert done.code == 0, done.err
    run = Workspace(workspace).run("age-0003")
    assert run.plan is not None
    assert (run.plan["k"], run.folds) == (2, [0, 1])
    # A fold that is trained with another seed beside shared ones: the list shows both.
    done = orch("train", "age", *words, "--base", "age-0002", "--fold", 1, "--seed", 3)
    assert done.code == 0, done.err
    run = Workspace(workspace).run("age-0004")
    assert run.seeds == [0, 3]
    assert re.search(r"age-0004 .* 0 3 ", orch("runs", "list", "-w", workspace).out)


@pytest.mark.parametrize(("plan", "folds", "taken"), [
    (("a" * 64, 3), [0, 1, 2], True),
    (("a" * 64, 3), [0, 1], False),
    (("b" * 64, 10), [0, 1, 2], False),  # the same numbers, and three people of ten
    (("b" * 64, 3), [0, 1], False),
])  # fmt: skip
def test_only_a_run_that_holds_out_everybody_takes_the_place_of_one_that_does(
    workspace: Path, plan: tuple[str, int], folds: list[int], taken: bool, told: list[str]
) -> None:
    place = Workspace(workspace)
    before, after = place.run("age-0001"), place.run("age-0001")
    assert before.plan is not None
    before.plan = {**before.plan, "digest": "a" * 64}
    before.save()
    shutil.copytree(before.folder, workspace / "age-0002")
    after.id, after.folder = "age-0002", workspace / "age-0002"
    after.plan, after.folds = {"digest": plan[0], "k": plan[1], "seed": 0}, folds
    make_current(place, after)
    assert (place.current("age") == "age-0002") == taken, told
    assert taken or f"age-0002 covers people of fold {', '.join(map(str, folds))}" in told[0]


def test_a_run_that_was_killed_before_it_became_current_becomes_it_by_resume(orch: Orch, workspace: Path) -> None:
    (workspace / "current" / "age.json").unlink()
    edit_sealed(workspace / "age-0001" / "run.json", make_current="auto")
    assert orch("resume", "age-0001", "-w", workspace).code == 0
    assert Workspace(workspace).current("age") == "age-0001"
    assert orch("ensemble", "-w", workspace).code == 0


def test_members_without_a_run_are_refused(orch: Orch, workspace: Path) -> None:
    for word in ("age=", "age=,", "age=,,"):
        done = orch("ensemble", "--members", word, "-w", workspace)
        assert done.code == 2
        assert f"--members {word}: write TASK=RUN or TASK=RUN,RUN" in done.err


def test_a_single_split_of_several_folds_is_refused(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--valid-only", "--folds-used", 2)
    assert done.code == 2
    assert "--valid-only trains fold 0 only, and --folds-used 2 the first 2: choose one." in done.err

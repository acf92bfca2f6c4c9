"""What becomes current says by how much it is better or worse than what it replaces, and how to go back."""

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.artifacts.run import PlanKey
from orchestrator.artifacts.workspace import Workspace
from orchestrator.ensembling.choosing import make_current
from orchestrator.ensembling.intervals import difference
from tests.conftest import Done, commands_in, tiny, train

Orch = Callable[..., Done]


def test_an_old_run_never_takes_current_back_unless_asked(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    done = train(orch, people, workspace, "train-all", *tiny())
    assert "age-0001 is complete already" in done.err
    assert "age-0002 stays the current age run" in done.err
    assert Workspace(workspace).current("age") == "age-0002"
    assert "now the current age run (was age-0002)" in orch("runs", "use", "age-0001", "-w", workspace).err
    assert "age: age-0001 (current)" in orch("ensemble", "-w", workspace).err


def test_a_single_split_does_not_push_out_a_whole_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--valid-only", *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "age-0002 covers people of fold 0 of 3: age-0001 stays the current age run" in done.err


def answers(workspace: Path, run: str) -> pd.DataFrame:
    tables = [pd.read_parquet(path) for path in sorted((workspace / run).glob("fold-*/held_out.parquet"))]
    return pd.concat(tables).sort_values("path", ignore_index=True)


def test_a_retrained_run_is_held_against_the_one_that_it_replaces(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    before, after = answers(workspace, "age-0001"), answers(workspace, "age-0002")
    codes = [table.filter(like="p(").to_numpy().argmax(axis=1) for table in (before, after)]
    gain = difference(before["person"], before["truth"].to_numpy(), *codes, 3)
    low, high = gain.interval.as_list()
    assert f"on the same 24 people, {gain.value:+.4f} ({low:+.4f} to {high:+.4f})" in done.err
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


@pytest.mark.parametrize(("plan", "folds", "taken"), [
    (("a" * 64, 3), [0, 1, 2], True),
    (("a" * 64, 3), [0, 1], False),
    (("b" * 64, 10), [0, 1, 2], False),  # the same numbers, and three people of ten
    (("b" * 64, 3), [0, 1], False),
])  # fmt: skip
def test_only_a_run_that_holds_out_everybody_takes_the_place_of_one_that_does(
    workspace: Path, plan: tuple[str, int], folds: list[int], taken: bool, messages: list[str]
) -> None:
    space = Workspace(workspace)
    before, after = space.run("age-0001"), space.run("age-0001")
    assert before.plan is not None
    before.plan = replace(before.plan, digest="a" * 64)
    before.save()
    shutil.copytree(before.folder, workspace / "age-0002")
    after.id, after.folder = "age-0002", workspace / "age-0002"
    after.plan, after.folds = PlanKey(plan[0], plan[1], 0), folds
    make_current(space, after)
    assert (space.current("age") == "age-0002") == taken, messages
    assert taken or f"age-0002 covers people of fold {', '.join(map(str, folds))}" in messages[0]

"""A run's record: its key over versions, and its members' time."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from tests.conftest import Done, edit_sealed, train

Orch = Callable[..., Done]


def test_a_run_of_an_older_version_is_found_by_todays_settings(place: Path) -> None:
    record = place / "age-0001/run.json"
    run = RunRecord.load(record.parent)
    recipe = dict(run.recipe)
    del recipe["layer_decay"]  # a setting that the older version did not have
    edit_sealed(record, recipe=recipe)
    older = RunRecord.load(record.parent)
    assert older.key == run.key != ""
    edit_sealed(record, recipe={**recipe, "lr": 2 * recipe["lr"]})
    assert RunRecord.load(record.parent).key != run.key
    edit_sealed(record, recipe={**recipe, "a_setting_of_the_future": 1})
    assert RunRecord.load(record.parent).key == ""


def test_a_runs_minutes_are_those_of_its_own_members(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "mask", "--fold", 2, "--seed", 5).code == 0
    runs = list(Workspace(workspace).runs())
    assert len(runs) == 4
    for run in runs:  # three of them trained by one command, which took longer than each
        cards = {fold: json.loads((run.member(fold) / "member.json").read_text()) for fold in run.folds}
        assert run.seconds == pytest.approx(sum(cards[fold]["seconds"] for fold in run.own_folds))
    assert Workspace(workspace).run("mask-0002").own_folds == [2]

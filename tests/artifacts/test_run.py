"""A run's record: its key over versions, and its members' time."""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.artifacts.annotations import annotate
from orchestrator.artifacts.locks import lock_run, run_lock
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import WorkspaceError
from orchestrator.ensembling.choosing import use_run
from tests.conftest import Done, edit_sealed, train

Orch = Callable[..., Done]


def test_a_run_of_an_older_version_is_found_by_todays_settings(three_runs: Path) -> None:
    record = three_runs / "age-0001/run.json"
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


def test_an_update_keeps_what_another_command_wrote_and_brings_no_deleted_run_back(workspace: Path) -> None:
    """Two commands hold the same record: one completes the run, the other makes it current."""
    first, second = (RunRecord.load(workspace / "age-0001") for _ in range(2))
    first.update(status="unfinished", seconds=12.5)
    second.update(was_offered=False)
    present = RunRecord.load(workspace / "age-0001")
    assert (present.status, present.seconds, present.was_offered) == ("unfinished", 12.5, False)
    assert second == present
    shutil.rmtree(workspace / "age-0001")
    with pytest.raises(WorkspaceError, match="age-0001 was deleted by another command"):
        first.update(status="complete")
    assert not (workspace / "age-0001").exists()


def test_an_update_writes_a_lost_record_again(workspace: Path) -> None:
    run = RunRecord.load(workspace / "age-0001")
    (workspace / "age-0001/run.json").unlink()
    run.update(was_offered=True)
    assert RunRecord.load(workspace / "age-0001") == run


def deleted(run: RunRecord) -> None:
    """Deletes a run as another command does, and leaves what taking its lock makes of the folder."""
    shutil.rmtree(run.folder)
    with run_lock(run.folder):
        pass


@pytest.mark.parametrize("change", [
    lambda run: run.update(was_offered=True),
    lambda run: annotate(run, tags=["late"]),
    lambda run: use_run(Workspace(run.root), run),
    lambda run: lock_run(ExitStack(), run),
], ids=["update", "annotate", "use", "train"])  # fmt: skip
def test_a_run_that_was_deleted_meanwhile_stays_deleted(workspace: Path, change: Callable[[RunRecord], object]) -> None:
    run = Workspace(workspace).run("age-0001")
    deleted(run)
    with pytest.raises(WorkspaceError, match="age-0001 was deleted by another command"):
        change(run)
    assert not run.folder.exists()


def test_a_record_has_no_other_values_than_its_own(workspace: Path) -> None:
    with pytest.raises(TypeError):
        Workspace(workspace).run("age-0001").update(scor=1.0)


def test_nothing_is_repaired_while_a_command_works_on_it(orch: Orch, workspace: Path) -> None:
    (workspace / "age-0001/run.json").write_text("{")
    with run_lock(workspace / "age-0001"):
        done = orch("workspace", "repair", "-w", workspace)
        assert done.code == 2
        assert "age-0001: another orch command is working on it" in done.err
    assert orch("workspace", "repair", "-w", workspace).code == 0
    assert RunRecord.load(workspace / "age-0001").complete

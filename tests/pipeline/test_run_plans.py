"""A run is the same one where nothing that it learns from differs."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.artifacts.locks import lock_run
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import WorkspaceError
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.run_plans import RunPlan, find_runs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialists import SPECIALISTS
from tests.conftest import TINY, Done, edit_sealed, tiny, train

Orch = Callable[..., Done]


def test_a_task_that_learns_nothing_from_a_table_is_not_trained_again(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    photo = sorted((people / "eval/images").iterdir())[0]
    (tmp_path / "extra.csv").write_text(f"path,gender\n{photo},male\n")
    done = train(orch, people, workspace, "train", "mask", *tiny(), "--extra", tmp_path / "extra.csv")
    assert done.code == 0, done.err
    assert "mask: 0 extra photos" in done.err
    assert "mask-0001 has it already" in done.err


def test_specialists_are_unchanged_by_what_is_not_given(people: Path, workspace: Path) -> None:
    """Without extra photos a run's key, table and draws are what they were."""
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    inputs = read_inputs(settings, {"age": SPECIALISTS["age"]})
    record = RunRecord.load(workspace / "age-0001")
    assert RunPlan(settings, inputs, "age").key == record.key
    assert record.data.extra is None


def test_a_run_that_is_found_has_no_damaged_member_left(people: Path, workspace: Path, messages: list[str]) -> None:
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    inputs = read_inputs(settings, SPECIALISTS)
    weights = workspace / "mask-0001" / "fold-1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    plans = [RunPlan(settings, inputs, task) for task in ("age", "mask")]
    age, mask = find_runs(plans)
    assert (age.id, age.complete, mask.id, mask.complete) == ("age-0001", True, "mask-0001", False)
    assert any("mask-0001 trains it again (the old files were set aside" in line for line in messages)
    with ExitStack() as locks:
        lock_run(locks, age)
        with pytest.raises(WorkspaceError, match="age-0001: another orch command is training this run"):
            find_runs(plans)


@pytest.mark.parametrize("purpose", ["auto", "never"])
def test_an_experiments_unfinished_run_is_offered_by_whoever_goes_on_with_it(
    people: Path, workspace: Path, purpose: str
) -> None:
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    inputs = read_inputs(settings, {"age": SPECIALISTS["age"]})
    plan = RunPlan(settings, inputs, "age", make_current=purpose)
    record = workspace / "age-0001" / "run.json"
    edit_sealed(record, make_current="never", was_offered=False)
    assert not plan.find_or_create().to_be_offered  # it is complete: nobody goes on with it
    for begin in (RunPlan.find_or_create, lambda plan: plan.resume_or_create(plan.find())):
        edit_sealed(record, make_current="never", was_offered=False, status="unfinished")
        run = begin(plan)
        assert run.id == "age-0001"
        assert run.to_be_offered == RunRecord.load(run.folder).to_be_offered == (purpose == "auto")

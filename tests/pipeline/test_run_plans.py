"""A run is the same one where nothing that it learns from differs."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.artifacts.run import RunRecord
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialists import SPECIALISTS
from tests.conftest import TINY, Done, tiny, train

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
    from orchestrator.pipeline.run_plans import RunPlan

    assert RunPlan(settings, inputs, "age").key == record.key
    assert record.data.extra is None

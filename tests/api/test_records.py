"""Records as values: what the commands print, for programs."""

import logging
from pathlib import Path

import pytest

from orchestrator import api


def test_runs_are_listed_described_annotated_and_deleted_as_values(
    workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    listing = api.list_runs(where="task=age", sort="score", workspace=workspace)
    assert [listed.run.id for listed in listing.runs] == ["age-0001"]
    assert (listing.total, list(listing.keys), list(listing.damaged)) == (3, ["task"], [])
    assert listing.runs[0].facts["current"] is True
    assert api.annotate_run("age-0001", note="first", tags=["kept"], workspace=workspace).tags == ("kept",)
    details = api.run_details("age-0001", workspace=workspace)
    assert (details.run.task, details.notes.note, details.state) == ("age", "first", "complete")
    assert details.as_dict()["tags"] == ["kept"]
    questions: list[str] = []

    def refuse(runs: object) -> None:
        questions.append(str(runs))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.delete_runs(["age-0001"], workspace=workspace, confirm=refuse)
    assert questions == ["['age-0001']"]
    assert api.list_runs(workspace=workspace).total == 3
    api.delete_runs(["age-0001"], workspace=workspace)
    assert api.list_runs(workspace=workspace).total == 2
    assert "The current age run was deleted" in caplog.text


def test_ensembles_and_the_workspace_are_listed_chosen_and_checked_as_values(workspace: Path) -> None:
    for strategy in ("soft", "hard"):
        api.ensemble(strategy=strategy, workspace=workspace)
    api.use_ensemble("soft-0001", workspace=workspace)
    listing = api.list_ensembles(workspace=workspace)
    assert {listed.record.id: listed.state for listed in listing.ensembles} == {"hard-0001": "", "soft-0001": "current"}
    api.delete_ensembles(["hard-0001"], workspace=workspace)
    assert [listed.record.id for listed in api.list_ensembles(workspace=workspace).ensembles] == ["soft-0001"]
    assert not api.check_workspace(workspace=workspace).damaged
    (workspace / "workspace.json").write_text("{}")
    with pytest.raises(api.OrchestratorError, match=r"workspace\.json"):
        api.check_workspace(workspace=workspace)
    repaired = api.repair_workspace(workspace=workspace)
    assert (repaired.changed, list(repaired.damaged)) == (True, [])

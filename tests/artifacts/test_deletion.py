"""What nothing uses is deleted for good, and nothing else is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from orchestrator import api
from orchestrator.artifacts.deletion import check_unused, delete
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import WorkspaceError
from tests.conftest import Done, commands_in, edit_sealed, hashes, listed, tiny, train

Orch = Callable[..., Done]


def test_what_an_ensemble_uses_is_not_deleted_and_ids_are_not_given_out_again(
    orch: Orch, people: Path, three_runs: Path
) -> None:
    assert orch("ensemble", "-w", three_runs, "--members", "age=age-0001").code == 0
    done = orch("runs", "delete", "age-0001", "age-0003", "--yes", "-w", three_runs)
    assert done.code == 2
    assert "soft-0001 uses it" in done.err
    assert (three_runs / "age-0003").exists()
    done = orch("runs", "delete", "age-0003", "age-0002", "--yes", "-w", three_runs)
    assert done.code == 0, done.err
    assert listed(orch, three_runs) == ["age-0001", "gender-0001", "mask-0001"]
    assert not (three_runs / "deleted").exists()
    assert not (three_runs / "current/age.json").exists()  # age-0003 was the current one
    again = ("train", "age", *tiny("lr=5e-3"), "--valid-only")
    done = train(orch, people, three_runs, *again)
    assert done.code == 2  # which run shall it start from?
    assert f"choose one: `orch runs use age-0001 --workspace {three_runs}`" in done.err
    assert orch("runs", "use", "age-0001", "-w", three_runs).code == 0
    assert train(orch, people, three_runs, *again).code == 0
    assert listed(orch, three_runs, "--where", "task=age") == ["age-0001", "age-0004"]


def test_deletion_asks_first_and_spares_runs_in_training(orch: Orch, three_runs: Path) -> None:
    assert orch("runs", "delete", "age-0003", "-w", three_runs).code != 0  # nobody answers
    assert (three_runs / "age-0003").exists()
    with FileLock(three_runs / "age-0003/run.lock"):
        assert "another orch command is working on it" in orch("runs", "delete", "age-0003", "-y", "-w", three_runs).err
    assert (three_runs / "age-0003").exists()


def test_a_deletion_checks_again_when_it_acts(orch: Orch, three_runs: Path) -> None:
    space = Workspace(three_runs)
    used, busy = space.run("age-0001"), space.run("age-0003")
    check_unused(space, [used, busy])  # nobody uses them, and the question waits for its answer
    assert orch("ensemble", "-w", three_runs, "--members", "age=age-0001").code == 0
    with pytest.raises(WorkspaceError, match="soft-0001 uses it"):
        delete(space, used)
    with FileLock(three_runs / "age-0003/run.lock"), pytest.raises(WorkspaceError, match="another orch command"):
        delete(space, busy)
    assert listed(orch, three_runs, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]


def test_another_folder_of_the_user_is_no_ensemble(orch: Orch, three_runs: Path) -> None:
    (three_runs / "plots-2024").mkdir()
    assert orch("ensemble", "-w", three_runs, "--members", "age=age-0001").code == 0
    assert json.loads(orch("ensembles", "list", "-w", three_runs, "--json").out)[0]["id"] == "soft-0001"
    assert orch("workspace", "check", "-w", three_runs).code == 0
    done = orch("runs", "delete", "age-0003", "--yes", "-w", three_runs)
    assert done.code == 0, done.err
    (three_runs / "soft-0001" / "ensemble.json").unlink()  # an ensemble it is, without its record
    assert orch("workspace", "check", "-w", three_runs).code == 1


def test_what_to_choose_is_said_after_all_deletions(orch: Orch, three_runs: Path) -> None:
    done = orch("runs", "delete", "age-0003", "age-0002", "--yes", "-w", three_runs)
    assert done.code == 0, done.err
    assert done.err.index("age-0002 is deleted") < done.err.index("The current age run was deleted: choose one")
    (use,) = commands_in(done.err)
    assert orch(*use.split()[1:]).code == 0


def test_two_deletions_at_once_delete_both(three_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second moves its run aside while the first removes what it has moved."""
    space = Workspace(three_runs)
    first, second, real = space.run("age-0001"), space.run("age-0002"), shutil.rmtree

    def rmtree(folder: Path, ignore_errors: bool) -> None:
        monkeypatch.setattr(shutil, "rmtree", real)
        real(folder, ignore_errors=ignore_errors)
        delete(space, second)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    delete(space, first)
    assert [run.id for run in space.runs("age")] == ["age-0003"]
    assert not (three_runs / "deleted").exists()


def test_what_a_killed_deletion_leaves_is_no_run(orch: Orch, three_runs: Path) -> None:
    (three_runs / "deleted").mkdir()
    (three_runs / "age-0002").rename(three_runs / "deleted/age-0002")  # a kill before its files were gone
    assert listed(orch, three_runs, "--where", "task=age") == ["age-0001", "age-0003"]
    assert orch("runs", "delete", "age-0003", "-y", "-w", three_runs).code == 0
    assert not (three_runs / "deleted").exists()


def test_a_path_is_no_runs_name(orch: Orch, three: Path, three_runs: Path) -> None:
    """A run of another workspace would be deleted without a look at the ensembles that use it."""
    before = hashes(three)
    for name in ("../x/age-0001", str(three / "age-0001"), "age-0001/fold-0", ".", ""):
        done = orch("runs", "delete", name, "-y", "-w", three_runs)
        assert done.code == 2
        assert "is not in" in done.err
    assert hashes(three) == before


def test_a_deleted_link_to_nowhere_is_current_no_longer(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "soft-0001")
    (workspace / "soft-0001").symlink_to("/nowhere/at/all")
    done = orch("ensembles", "delete", "soft-0001", "--yes", "-w", workspace)
    assert done.code == 0, done.err
    assert not (workspace / "current/ensemble.json").exists()
    assert orch("workspace", "check", "-w", workspace).code == 0


def test_an_ensemble_whose_only_run_is_lost_says_how_to_train_another(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0001")
    (workspace / "current/age.json").unlink()
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert f"train another run: `orch train age --data DIR --workspace {workspace}`; then `orch ensemble" in done.err


def test_an_ensemble_of_an_older_version_is_let_go(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    edit_sealed(workspace / "soft-0001/ensemble.json", format=2)
    done = orch("runs", "delete", "age-0001", "--yes", "-w", workspace)
    assert done.code == 2  # whether it answers with the run cannot be known
    assert "written in format 2 by an older version" in done.err
    assert "Use that version of orchestrator; or `mv" in done.err
    assert "orch ensemble" in done.err
    assert orch("ensembles", "delete", "soft-0001", "--yes", "-w", workspace).code == 0
    assert orch("runs", "delete", "age-0001", "--yes", "-w", workspace).code == 0


def test_a_deletion_that_stops_halfway_says_what_is_to_be_chosen(
    three_runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The runs before one that came into use, while the user was asked, are gone: also the current one."""
    lock = FileLock(three_runs / "age-0002/run.lock")
    caplog.set_level("INFO")
    with pytest.raises(WorkspaceError, match="age-0002 was not deleted"):
        api.delete_runs(["age-0003", "age-0002"], workspace=three_runs, confirm=lambda _: lock.acquire())
    lock.release()
    assert not (three_runs / "age-0003").exists()
    assert "The current age run was deleted: choose one" in caplog.text

"""A damaged workspace is repaired as far as its files tell, and what other versions wrote is left as it is."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.workspace import WORKSPACE_FORMAT
from orchestrator.core.sealed import write_sealed
from tests.conftest import SOFT, Done, edit_sealed, hashes, listed, tiny

Orch = Callable[..., Done]


def test_a_repaired_workspace_gives_out_no_number_that_something_in_it_still_names(
    orch: Orch, three_runs: Path
) -> None:
    (three_runs / "sweeps").mkdir()
    (three_runs / "sweeps" / "age-12345678.db").write_bytes(
        b'\x00run"age-0017"\xff"gender-0001"'
    )  # a search's name is no run's
    (three_runs / "tensorboard" / "mask-0009").mkdir(parents=True)
    (three_runs / "deleted" / "soft-0004").mkdir(parents=True)
    (three_runs / "workspace.json").unlink()
    done = orch("workspace", "repair", "-w", three_runs)
    assert done.code == 0, done.err
    retired = json.loads((three_runs / "workspace.json").read_text())["retired"]
    assert retired == {"age": 17, "gender": 1, "mask": 9, "soft": 4}
    assert listed(orch, three_runs, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]


def test_a_repaired_run_that_is_current_is_still_missed_when_the_choice_is_lost(
    orch: Orch, people: Path, workspace: Path
) -> None:
    (workspace / "age-0001" / "run.json").write_text("{")
    assert orch("workspace", "repair", "-w", workspace).code == 0
    (workspace / "current" / "age.json").unlink()
    done = orch("train-all", "--data", people / "train", "--folds", 3, "-w", workspace, *tiny("lr=9e-3"))
    assert done.code == 2
    assert "no age run is the current one" in done.err


@pytest.mark.parametrize(("file", "changes"), [
    ("age-0001/notes.json", {"tags": None}), ("age-0001/notes.json", {"note": 3}), ("current/age.json", {"name": 3}),
    ("plans/*.json", {"k": "3"}), ("plans/*.json", {"fold_of": None}), ("photos/*.json", {"content": 3}),
    ("photos/*.json", {"content": [{}]}), ("workspace.json", {"retired": []}), ("soft-0001/ensemble.json", {"evaluation": {}}),
    ("soft-0001/cascade.json", {"cascade": {"sure": 1, "rate": 0.1, "spread": [1]}}),
])  # fmt: skip
def test_a_sealed_record_of_other_values_is_named(
    orch: Orch, people: Path, workspace: Path, file: str, changes: dict[str, object]
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("runs", "note", "age-0001", "x", "-w", workspace).code == 0
    cascade = {"photos": 1, "combiner": SOFT.as_dict(), "changed": 0, "changed_at_most_95": 0, "cascade": {}}
    write_sealed(workspace / "soft-0001" / "cascade.json", "cascade", "soft-0001", 3, cascade)
    (path,) = workspace.glob(file)
    edit_sealed(path, **changes)
    predict = ("predict", people / "eval/images", "--cascade")
    for command in (
        ("workspace", "check"),
        ("runs", "list"),
        ("runs", "show", "age-0001"),
        ("ensembles", "list"),
        predict,
    ):
        done = orch(*command, "-w", workspace)
        assert done.code in (0, 1, 2), done.err
    if "cascade" in file:  # its values are read where it is used
        assert (done.code, path.name in done.err) == (2, True)
    else:
        assert path.name in orch("workspace", "check", "-w", workspace).err


def test_a_workspace_without_its_file_and_all_records_is_still_one(orch: Orch, workspace: Path) -> None:
    before = hashes(workspace)
    (workspace / "workspace.json").unlink()
    for number, record in enumerate(sorted(workspace.glob("*/run.json"))):
        record.unlink()
        if number:
            record.symlink_to("nowhere.json")
    done = orch("runs", "list", "-w", workspace)
    assert done.code == 2
    assert "orch workspace repair" in done.err
    assert orch("workspace", "repair", "-w", workspace).code == 0
    assert listed(orch, workspace) == ["age-0001", "gender-0001", "mask-0001"]
    checked = orch("workspace", "check", "-w", workspace)
    assert checked.code == 0, checked.err
    after = hashes(workspace)
    assert all(after[name] == digest for name, digest in before.items() if name.endswith(("safetensors", "parquet")))


def test_what_a_newer_version_wrote_is_put_aside_by_nobody(orch: Orch, people: Path, workspace: Path) -> None:
    before = {}
    for name in ("workspace.json", "age-0001/run.json", "gender-0001/fold-1/member.json"):
        edit_sealed(workspace / name, format=99)
        before[name] = (workspace / name).read_bytes()
    repair, resume = ("workspace", "repair", "-w", workspace), ("resume", "gender-0001", "--jobs", 1, "-w", workspace)
    for command in (repair, ("train-all", "--data", people / "train", "--folds", 3, "-w", workspace, *tiny()), resume):
        done = orch(*command)
        assert done.code == 2
        assert "by a newer version" in done.err
    edit_sealed(workspace / "workspace.json", format=WORKSPACE_FORMAT)
    del before["workspace.json"]
    for command, code in ((repair, 1), (resume, 2)):  # a repair leaves it out and tells it
        done = orch(*command)
        assert done.code == code
        assert "by a newer version" in done.err
    assert {name: (workspace / name).read_bytes() for name in before} == before


def test_repair_tells_what_it_cannot_write_anew(orch: Orch, workspace: Path) -> None:
    """One run of a newer version does not keep another one from its repair, and nobody calls the rest in order."""
    assert "nothing to repair" in orch("workspace", "repair", "-w", workspace).err
    edit_sealed(workspace / "age-0001/run.json", format=99)
    (workspace / "mask-0001/run.json").write_text("{")
    weights = workspace / "gender-0001/fold-0/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = orch("workspace", "repair", "-w", workspace)
    assert done.code == 1
    assert "mask-0001/run.json is rewritten" in done.err
    assert "by a newer version" in done.err
    assert "`orch resume gender-0001" in done.err
    again = orch("workspace", "repair", "-w", workspace)
    assert (again.code, "nothing to repair" in again.err, "by a newer version" in again.err) == (1, False, True)


def test_a_damaged_workspace_file_still_tells_which_numbers_were_deleted(
    orch: Orch, people: Path, three_runs: Path
) -> None:
    assert orch("runs", "delete", "age-0003", "--yes", "-w", three_runs).code == 0
    mark = three_runs / "workspace.json"
    mark.write_text(mark.read_text().replace('"created": "', '"created": "1'))
    assert orch("workspace", "repair", "-w", three_runs).code == 0
    assert json.loads(mark.read_text())["retired"] == {"age": 3}


def test_a_workspace_of_an_older_version_is_left_as_it_is(orch: Orch, workspace: Path) -> None:
    """Only that version reads what lies around its records: whoever wrote them anew would end with neither."""
    for path in (
        workspace / "workspace.json",
        workspace / "age-0001/run.json",
        workspace / "age-0001/fold-0/member.json",
    ):
        whole = path.read_bytes()
        edit_sealed(path, format=1)
        before = hashes(workspace)
        done = orch("workspace", "repair", "-w", workspace)
        assert done.code in (1, 2), done.err
        assert "written in format 1 by an older version" in done.err
        assert "Use that version of orchestrator, or choose another workspace (--workspace)." in done.err
        assert hashes(workspace) == before
        path.write_bytes(whole)
    assert orch("workspace", "check", "-w", workspace).code == 0


def test_a_repaired_run_of_views_is_completed_by_the_command_that_made_it(orch: Orch, workspace: Path) -> None:
    """`orch resume` refuses it: nothing was trained for it."""
    assert orch("tta", "gender-0001", "--views", "flip", "--keep", "-w", workspace).code == 0
    shutil.rmtree(workspace / "gender-0002" / "fold-1")
    (workspace / "gender-0002" / "run.json").unlink()
    done = orch("workspace", "repair", "-w", workspace)
    again = f"orch tta gender-0001 --views flip --keep --workspace {workspace}"
    assert f"gender-0002 is unfinished. Fold 1 is missing: `{again}` makes it again." in " ".join(done.err.split())
    assert f"`{again}` makes it again." in orch("resume", "gender-0002", "-w", workspace).err
    assert orch(*shlex.split(again)[1:]).code == 0

"""A workspace: what is refused as one, and what is current in it."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.workspace import WORKSPACE_FORMAT
from tests.conftest import Done, commands_in, edit_sealed, tiny, train

Orch = Callable[..., Done]


def pasted(orch: Orch, people: Path, words: str) -> Done | None:
    """A printed command, done with tiny members; None for one of the shell."""
    program, *rest = shlex.split(words)
    if program == "mv":
        subprocess.run([program, *rest], check=True)
        return None
    rest = [str(people / "train") if word == "DIR" else word for word in rest]
    return orch(*rest, *(("--folds", 3, *tiny("epochs=1"), "--jobs", 1) if rest[0] == "train" else ()))


def test_what_is_offered_as_current_can_be_taken(orch: Orch, three_runs: Path) -> None:
    """The newest that is whole, by its date and not by its name."""
    assert orch("runs", "use", "age-0001", "-w", three_runs).code == 0
    for strategy in ("soft", "hard", "soft"):
        assert orch("ensemble", "--strategy", strategy, "-w", three_runs).code == 0
    for name, created in (("soft-0001", "2026-01-01"), ("hard-0001", "2026-03-01"), ("soft-0002", "2026-02-01")):
        edit_sealed(three_runs / name / "ensemble.json", created=f"{created}T00:00:00+00:00")
    edit_sealed(three_runs / "soft-0002/ensemble.json", format=2)  # of an older version
    shutil.rmtree(three_runs / "age-0003/fold-0")
    for what in ("age", "ensemble"):
        (three_runs / f"current/{what}.json").write_text("{")
    done = orch("runs", "list", "-w", three_runs)
    (use,) = re.findall(r"`(orch runs use [^`]+)`", done.err)
    assert use.split()[3] == "age-0002"
    assert orch(*shlex.split(use)[1:]).code == 0
    photo = "x.jpg"
    done = orch("predict", photo, "-w", three_runs)
    (use,) = re.findall(r"`(orch ensembles use [^`]+)`", done.err)
    assert use.split()[3] == "hard-0001"
    assert orch(*shlex.split(use)[1:]).code == 0


def test_what_a_newer_version_calls_current_is_not_written_over(orch: Orch, workspace: Path) -> None:
    edit_sealed(workspace / "current/age.json", format=99)
    before = (workspace / "current/age.json").read_bytes()
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "by a newer version" in done.err
    assert "choose another workspace" in done.err
    assert "runs use" not in done.err
    assert (workspace / "current/age.json").read_bytes() == before


def test_a_killed_first_command_does_not_block_the_next(orch: Orch, people: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".workspace.json.x.tmp").write_text("{")
    assert train(orch, people, tmp_path / "runs", "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0


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


def test_the_ways_out_of_a_check_work_one_after_another(orch: Orch, people: Path, workspace: Path) -> None:
    """A run is lost, and with it the choice that names it and the ensemble that answers with it."""
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0001")
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert "2 damaged" in done.out
    ways_out = re.findall(r"`([^`]+)`", done.err)
    assert [words.split()[:3] for words in ways_out] == [
        ["mv", str(workspace / "current/age.json"), str(workspace / "current/age.json.damaged")],
        ["orch", "train", "age"], ["orch", "ensemble", *ways_out[2].split()[2:3]], ["orch", "ensembles", "delete"],
    ]  # fmt: skip
    for words in ways_out:
        program, *rest = shlex.split(words)
        if program == "mv":
            subprocess.run([program, *rest], check=True)
        else:
            rest = [str(people / "train") if word == "DIR" else word for word in rest]
            small = ("--folds", 3, *tiny("epochs=1"), "--jobs", 1, "--seed", 3) if rest[0] == "train" else ()
            done = orch(*rest, *small)
            assert done.code == 0, words
        if rest[0] == "ensemble":
            assert "soft-0002 is now the current ensemble (was soft-0001)." in done.err  # to which nothing can go back
            refused = orch("ensembles", "use", "soft-0001", "-w", workspace)  # the new run has taken the lost one's id
            assert refused.code == 2
            assert "member.json: not the card of the member that soft-0001 was built from" in refused.err
    assert orch("workspace", "check", "-w", workspace).code == 0


@pytest.mark.parametrize("lost", [["age", "gender"], ["mask", "gender", "age"]])
@pytest.mark.parametrize("chosen", [True, False])
def test_several_lost_runs_are_trained_again_in_the_order_that_is_printed(
    orch: Orch, people: Path, workspace: Path, lost: list[str], chosen: bool
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    for task in lost:
        shutil.rmtree(workspace / f"{task}-0001")
        if not chosen:
            (workspace / f"current/{task}.json").unlink()
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    ways_out = re.findall(r"`([^`]+)`", done.err)
    assert len(ways_out) == len(set(ways_out))
    for words in ways_out:
        done = pasted(orch, people, words)
        assert done is None or done.code == 0, (words, done)
    while (done := orch("workspace", "check", "-w", workspace)).code:  # where no choice names them, one run at a time
        assert not chosen
        for words in re.findall(r"`(orch [^`]+)`", done.err):
            rest = [str(people / "train") if word == "DIR" else word for word in shlex.split(words)[1:]]
            small = ("--folds", 3, *tiny("epochs=1"), "--jobs", 1) if rest[0] == "train" else ()
            assert orch(*rest, *small).code == 0, words


def test_a_run_that_lost_its_weights_is_not_offered(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    (workspace / "age-0002/fold-0/weights.safetensors").unlink()
    done = orch("ensembles", "use", "soft-0001", "-w", workspace)
    assert done.code == 2
    assert "age-0002/fold-0/weights.safetensors: missing, and soft-0001 answers with that member" in done.err
    done = orch("runs", "use", "age-0001", "-w", workspace)
    assert "age-0001 is now the current age run (was age-0002)." in done.err
    refused = orch("runs", "use", "age-0002", "-w", workspace)
    assert refused.code == 2
    assert "age-0002/fold-0/weights.safetensors: missing. Restore it; or run `orch resume age-0002" in refused.err
    assert "damaged" in next(
        line for line in orch("runs", "list", "-w", workspace).out.splitlines() if "age-0002" in line
    )
    (workspace / "current/age.json").unlink()
    done = orch("ensemble", "-w", workspace)
    assert "choose one: `orch runs use age-0001" in done.err


def test_a_lost_run_whose_choice_was_removed_is_replaced_by_another_in_one_round(
    orch: Orch, people: Path, workspace: Path
) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0002")
    (workspace / "current/age.json").unlink()
    photo = next((people / "eval/images").iterdir())
    done = orch("predict", photo, "-w", workspace)
    assert done.code == 2
    ways_out = re.findall(r"`(orch [^`]+)`", done.err)
    assert ways_out[0].split()[1:4] == ["runs", "use", "age-0001"]
    checked = orch("workspace", "check", "-w", workspace)
    assert re.findall(r"`(orch [^`]+)`", checked.err)[: len(ways_out)] == ways_out  # a note of the choice may follow
    for words in ways_out:
        assert orch(*shlex.split(words)[1:]).code == 0, words
    assert orch("predict", photo, "-w", workspace).code == 0
    assert orch("workspace", "check", "-w", workspace).code == 0


def test_newer_foreign_and_missing_workspaces_are_refused(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert "no workspace here" in orch("ensemble", "-w", tmp_path / "none").err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("")
    assert "is not empty and not a workspace" in train(orch, people, tmp_path / "full", "train-all").err
    edit_sealed(workspace / "workspace.json", format=99)
    done = orch("runs", "list", "-w", workspace)
    assert done.code == 2
    assert f"written in format 99 by a newer version; this one reads {WORKSPACE_FORMAT}" in done.err


@pytest.mark.parametrize("stands_there", ["file", "link"])
def test_what_stands_for_a_run_is_reported_with_one_command_a_round(
    orch: Orch, people: Path, workspace: Path, stands_there: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0001")
    if stands_there == "file":
        (workspace / "age-0001").write_text("x")
    else:
        (workspace / "age-0001").symlink_to("nowhere")
    rounds = []
    while (done := orch("workspace", "check", "-w", workspace)).code:
        ways_out = re.findall(r"`([^`]+)`", done.err)
        assert len(ways_out) == len(set(ways_out))
        rounds.append([words.split()[1:3] for words in ways_out if words.startswith("orch")])
        assert len(rounds) < 4
        for words in ways_out:
            ended = pasted(orch, people, words)
            # A repair also tells what is left to do.
            assert ended is None or ended.code == 0 or "workspace repair" in words, words
    assert rounds[0] == [["workspace", "repair"]]
    assert [words[0] for words in rounds[1]] == ["train", "ensemble", "ensembles"]

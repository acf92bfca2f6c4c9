"""What was tried and made stays findable, and what is lost, closed or of other versions is named."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.workspace import Workspace
from tests.conftest import ROOT, Done, close_to_readers, commands_in, edit_sealed, hashes, listed, tiny, train

Orch = Callable[..., Done]


def test_ensembles_are_listed_chosen_and_deleted(orch: Orch, three_runs: Path) -> None:
    assert "no ensembles yet" in orch("ensembles", "list", "-w", three_runs).err
    assert orch("runs", "use", "age-0001", "-w", three_runs).code == 0
    built = [
        json.loads(orch("ensemble", "-w", three_runs, "--strategy", strategy, "--json").out)
        for strategy in ("soft", "hard")
    ]
    listed = json.loads(orch("ensembles", "list", "-w", three_runs, "--json").out)
    assert [(ensemble["id"], ensemble["current"]) for ensemble in listed] == [("hard-0001", True), ("soft-0001", False)]
    score = built[0]["evaluation"]["label"]["macro_f1"]
    assert f"{score:.4f}" in orch("ensembles", "list", "-w", three_runs).out
    assert "(was hard-0001)" in orch("ensembles", "use", "soft-0001", "-w", three_runs).err
    assert Workspace(three_runs).current("ensemble") == "soft-0001"
    refused = orch("runs", "delete", "age-0001", "-y", "-w", three_runs)
    assert refused.code == 2
    assert (
        f"To delete the run, delete these ensembles first: `orch ensembles delete hard-0001 soft-0001 --workspace {three_runs}`"
        in refused.err
    )
    before = hashes(three_runs / "age-0001")
    assert orch("ensembles", "delete", "soft-0001", "soft-9", "-y", "-w", three_runs).code == 2
    assert (three_runs / "soft-0001").exists()  # all names are looked at first
    assert orch("ensembles", "delete", "hard-0001", "soft-0001", "-y", "-w", three_runs).code == 0
    assert hashes(three_runs / "age-0001") == before
    assert "there is no ensemble yet" in orch("export", "--out", three_runs.parent / "out", "-w", three_runs).err
    assert orch("runs", "delete", "age-0001", "-y", "-w", three_runs).code == 0
    again = orch("ensemble", "-w", three_runs, "--no-score")
    assert "no age run is the current one" in again.err  # and an id that is gone is not given out again


def test_who_deletes_what_is_current_is_told_what_to_choose_or_make(orch: Orch, people: Path, three_runs: Path) -> None:
    """Each time by a command that works: the newest of the others, and a new one where there is none."""
    assert orch("runs", "use", "age-0003", "-w", three_runs).code == 0
    for name, next_one in (("age-0003", "age-0002"), ("age-0001", None), ("age-0002", None)):
        current = Workspace(three_runs).current("age")
        done = orch("runs", "delete", name, "--yes", "-w", three_runs)
        assert done.code == 0, done.err
        assert ("The current age run was deleted" in done.err) is (name == current)
        if next_one is not None:
            (use,) = re.findall(r"`(orch runs use [^`]+)`", done.err)
            assert f" {next_one} " in use
            assert orch(*shlex.split(use)[1:]).code == 0
    (make,) = re.findall(r"`(orch train age [^`]+)`", done.err)
    words = shlex.split(make.replace("--data DIR", shlex.join(["--data", str(people / "train")])))
    assert orch(*words[1:], "--folds", 3, "--jobs", 1, *tiny()).code == 0
    for strategy in ("soft", "hard"):
        assert orch("ensemble", "--strategy", strategy, "-w", three_runs).code == 0
    done = orch("ensembles", "delete", "hard-0001", "--yes", "-w", three_runs)
    (use,) = re.findall(r"`(orch ensembles use [^`]+)`", done.err)
    assert orch(*shlex.split(use)[1:]).code == 0
    done = orch("ensembles", "delete", "soft-0001", "--yes", "-w", three_runs)
    (make,) = re.findall(r"`(orch ensemble [^`]+)`", done.err)
    assert orch(*shlex.split(make)[1:]).code == 0
    assert Workspace(three_runs).current("ensemble") == "soft-0002"


def test_a_complete_run_that_lacks_a_member_is_damaged_and_never_chosen(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    shutil.rmtree(workspace / "age-0001/fold-1")
    (line,) = [line for line in orch("runs", "list", "-w", workspace).out.splitlines() if "age-0001" in line]
    assert "2 of 3" in line
    assert "damaged" in line
    assert "age-0001" in orch("runs", "list", "-w", workspace, "--where", "status=damaged").out
    assert "age-0001" not in orch("runs", "list", "-w", workspace, "--where", "status=complete").out
    assert "the age specialist, damaged" in orch("runs", "show", "age-0001", "-w", workspace).out
    for words in (("runs", "use", "age-0001"), ("ensembles", "use", "soft-0001")):
        done = orch(*words, "-w", workspace)
        assert done.code == 2
        assert f"orch resume age-0001 --workspace {workspace}" in done.err
    shutil.rmtree(workspace / "age-0001")
    done = orch("ensembles", "use", "soft-0001", "-w", workspace)
    assert "missing, and soft-0001 answers with that member" in done.err
    assert (
        f"; then `orch ensemble --workspace {workspace}` makes another ensemble, and `orch ensembles delete" in done.err
    )
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert "answers with that member" in done.err  # one ensemble for each file
    assert "names age-0001, of which there is no folder" in done.err
    (workspace / "current/age.json").unlink()
    done = orch("ensembles", "use", "soft-0001", "-w", workspace)
    assert f"train another run: `orch train age --data DIR --workspace {workspace}`" in done.err


def test_damaged_ensembles_are_listed_as_such(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert re.search(r"soft-0001 .* current ", orch("ensembles", "list", "-w", workspace).out)
    (workspace / "age-0001/fold-1/member.json").unlink()
    done = orch("ensembles", "list", "-w", workspace)
    assert done.code == 1
    assert re.search(r"soft-0001 .* damaged ", done.out)
    assert "age-0001/fold-1/member.json: missing" in done.err


def test_a_run_that_is_gone_is_told_with_a_way_out_that_works(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--seed", 1).code == 0
    assert orch("ensemble", "-w", workspace).code == 0  # with age-0002
    shutil.rmtree(workspace / "age-0002")
    assert orch("runs", "use", "age-0001", "-w", workspace).code == 0
    photos = people / "eval/images"
    for command in (("predict", photos), ("export", "--out", workspace.parent / "out"), ("cascade", photos, "--rate", 0.2),
                    ("pseudo", photos, "--out", workspace.parent / "p.csv")):  # fmt: skip
        done = orch(*command, "-w", workspace)
        assert done.code == 2
        assert "age-0002/fold-0/member.json: missing, and soft-0001 answers with that member" in done.err, command
        make, delete = re.findall(r"`(orch ensemble[^`]*)`", done.err)
        assert delete.startswith("orch ensembles delete soft-0001 --yes")
    assert orch(*shlex.split(make)[1:]).code == 0
    assert orch("predict", photos, "-w", workspace).code == 0


def test_one_closed_record_leaves_the_others(orch: Orch, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = workspace / "age-0001/run.json"
    close_to_readers(record, monkeypatch)
    done = orch("runs", "list", "-w", workspace)
    assert done.code == 1
    assert "mask-0001" in done.out
    assert f"{record}: cannot be read (Permission denied). Allow it (`chmod u+rw {record}`)" in done.err
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert done.err.count("cannot be read") == 1
    assert orch("workspace", "repair", "-w", workspace).code == 1
    assert record.is_file()  # and was not set aside


def test_links_that_lead_nowhere_are_named_where_folders_must_be(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    loop = workspace / "current/age.json"
    loop.unlink()
    loop.symlink_to("age.json")
    assert orch("runs", "use", "age-0001", "-w", workspace).code == 0
    assert not loop.is_symlink()
    shutil.rmtree(workspace / "cache")
    (workspace / "cache").symlink_to(tmp_path / "gone")
    train_again = ("train", "age", "--data", people / "train", "-w", workspace, "--seed", 8, "--jobs", 1)
    done = orch(*train_again)
    assert done.code == 2
    assert f"cache: a link that leads nowhere ({tmp_path / 'gone'}), where a folder must be" in done.err
    (aside,) = re.findall(r"`(mv [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert orch(*train_again).code == 0


@pytest.mark.parametrize("name", ["current", "plans", "photos"])
@pytest.mark.parametrize("stands_there", ["link", "link to a file", "file"])
def test_what_stands_where_a_folder_of_the_workspace_must_be_is_named_by_all(
    orch: Orch, people: Path, workspace: Path, name: str, stands_there: str
) -> None:
    """What lay in the folder would count as missing otherwise, and ways out that are printed for that fail."""
    assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / name, ignore_errors=True)
    if stands_there == "file":
        (workspace / name).write_text("")
    else:
        (workspace / name).symlink_to("nowhere" if stands_there == "link" else "workspace.json")
    fault = {
        "link": "a link that leads nowhere (nowhere)", "file": "not a folder",
        "link to a file": "a link that leads to a file (workspace.json)",
    }[stands_there]  # fmt: skip
    for command in (("workspace", "check"), ("runs", "list"), ("ensemble",), ("predict", people / "eval/images")):
        done = orch(*command, "-w", workspace)
        assert done.code in (1, 2), done.out
        assert f"{workspace / name}: {fault}, where a folder must be" in done.err
    (aside,) = re.findall(r"`(mv [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert orch("runs", "list", "-w", workspace).code == 0


@pytest.mark.parametrize("name", ["store", "cache", "sweeps", "deleted"])
def test_what_stands_where_a_folder_is_made_anew_stops_nobody_who_reads(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, name: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    mark = (workspace / "workspace.json").read_bytes()
    shutil.rmtree(workspace / name, ignore_errors=True)
    (workspace / name).symlink_to("nowhere")
    assert orch("runs", "list", "-w", workspace).code == 0
    assert orch("predict", people / "eval/images", "-w", workspace, "--engine", "torch").code == 0
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert f"{workspace / name}: a link that leads nowhere (nowhere), where a folder must be" in done.err
    assert orch("workspace", "repair", "-w", workspace).code == 1  # nothing that it could repair
    assert (workspace / "workspace.json").read_bytes() == mark
    (aside,) = re.findall(r"`(mv [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert orch("workspace", "check", "-w", workspace).code == 0
    (tmp_path / "elsewhere").mkdir()
    (workspace / name).symlink_to(tmp_path / "elsewhere")  # another disk
    assert orch("workspace", "check", "-w", workspace).code == 0


@pytest.mark.parametrize("command", [
    "runs list", "workspace check", "workspace repair", "ensemble", "ensembles list", "predict PHOTOS", "resume age-0001",
])  # fmt: skip
def test_a_workspace_that_leads_nowhere_is_named_by_all(
    orch: Orch, people: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train-all`, which makes a workspace where there is none, would fail there."""
    link = tmp_path / "runs"
    link.symlink_to("/nowhere")
    words = [str(people / "eval/images") if word == "PHOTOS" else word for word in command.split()]
    done = orch(*words, "-w", link)
    assert (done.code, "train-all" in done.err) == (2, False), done.err
    assert f"{link}: a link that leads nowhere (/nowhere), where a folder must be" in done.err
    (aside,) = re.findall(r"`(mv [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert "no workspace here. `orch train-all" in orch("runs", "list", "-w", link).err


def test_an_ensemble_of_a_lost_run_is_deleted_once_another_is_made(orch: Orch, workspace: Path, people: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    (workspace / "age-0001").rename(workspace / "age-0001.damaged")  # as a repair sets it aside
    done = orch("workspace", "check", "-w", workspace)
    assert (done.code, "; or delete this ensemble" in done.err) == (1, False)
    (workspace / "current/age.json").unlink()
    assert train(orch, people, workspace, "train", "age", *tiny("epochs=1")).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("workspace", "check", "-w", workspace)
    (delete,) = commands_in(done.err)
    assert (done.code, delete) == (1, f"orch ensembles delete soft-0001 --yes --workspace {workspace}")
    assert "; or delete this ensemble" in done.err
    assert orch(*shlex.split(delete)[1:]).code == 0
    assert orch("workspace", "check", "-w", workspace).code == 0


def test_a_run_that_is_a_copy_of_another_is_set_aside_as_promised(orch: Orch, workspace: Path) -> None:
    shutil.copytree(workspace / "age-0001", workspace / "age-0003")
    done = orch("workspace", "check", "-w", workspace)
    assert "rewrites it from the members' cards, or sets the run aside where none is its own" in done.err
    assert "set aside as age-0003.damaged" in orch("workspace", "repair", "-w", workspace).err


def test_one_cause_is_reported_once(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    record = workspace / "age-0001/run.json"
    whole = record.read_bytes()
    for name in ("run.json", "fold-0/member.json", "fold-1/member.json"):
        (workspace / "age-0001" / name).write_text("{}")
    done = orch("predict", people / "eval/images", "-w", workspace)
    assert "2 of the ensemble's 9 members cannot be used" in done.err
    assert done.err.count(f"{record}: ") == 1
    record.write_bytes(whole)
    (workspace / "soft-0001").rename(workspace / "elsewhere")
    (workspace / "soft-0001").symlink_to("nowhere")
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert f"{workspace / 'soft-0001'}: a link that leads nowhere (nowhere), where a folder must be" in done.err
    assert done.err.count(f"`mv {workspace / 'soft-0001'} ") == 1


def test_an_ensembles_folder_that_leads_nowhere_is_moved_away(orch: Orch, people: Path, workspace: Path) -> None:
    for _ in range(2):
        assert orch("ensemble", "-w", workspace).code == 0
    shutil.rmtree(workspace / "soft-0002")
    (workspace / "soft-0002").symlink_to("nowhere")
    done = orch("predict", people / "eval/images", "-w", workspace)
    assert done.code == 2
    aside, use = re.findall(r"`((?:mv|orch) [^`]+)`", done.err)[:2]
    subprocess.run(shlex.split(aside), check=True)
    assert orch(*shlex.split(use)[1:]).code == 0
    assert orch("predict", people / "eval/images", "-w", workspace).code == 0


def test_a_run_that_was_replaced_by_another_is_repaired_first(orch: Orch, people: Path, three_runs: Path) -> None:
    """`orch resume` refuses the record of another run."""
    assert orch("runs", "use", "age-0001", "-w", three_runs).code == 0
    assert orch("ensemble", "-w", three_runs).code == 0
    shutil.rmtree(three_runs / "age-0001")
    shutil.copytree(three_runs / "age-0002", three_runs / "age-0001")
    done = orch("predict", people / "eval/images", "-w", three_runs)
    assert done.code == 2
    assert "orch resume" not in done.err
    (repair,) = {command for command in commands_in(done.err) if "repair" in command}
    assert repair == f"orch workspace repair --workspace {three_runs}"
    repaired = orch(*shlex.split(repair)[1:])
    assert repaired.code == 1  # nothing is left of it: what stands in its place is chosen by hand
    assert "set aside as age-0001.damaged" in repaired.err
    assert "(there are age-0002, age-0003)" in repaired.err
    use, ensemble, *_ = commands_in(repaired.err)
    for command in (use.replace("age-0003", "age-0002"), ensemble):  # age-0003 follows other folds
        assert orch(*shlex.split(command)[1:]).code == 0, command
    again = orch("predict", people / "eval/images", "-w", three_runs)
    assert again.code == 0, again.err


@pytest.mark.parametrize("source", ["train", "."])
def test_tables_that_runs_learnt_from_are_not_written_over(
    orch: Orch, people: Path, workspace: Path, source: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    for record in workspace.glob("*/run.json"):
        data = json.loads(record.read_text())["data"]
        edit_sealed(record, data={**data, "source": str(people / source)})  # the folder, or the one above it
    table, photos = people / "train/train.csv", people / "eval/images"
    before = table.read_bytes()
    for command in (("predict", photos), ("pseudo", photos)):
        done = orch(*command, "--out", table, "-w", workspace)
        assert done.code == 2
        assert f"would write over {table}, which is read" in done.err
    assert table.read_bytes() == before


UNPRIVILEGED = (
    "--bounding-set=-dac_override,-dac_read_search,-fowner",
    "--inh-caps=-dac_override,-dac_read_search,-fowner",
)


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="setpriv (util-linux) takes root's right to read everything away"
)
@pytest.mark.parametrize(
    ("name", "readable"), [("current", "mask-0001"), ("age-0001", "mask-0001"), ("soft-0001", "hard-0001")]
)
def test_a_closed_folder_is_named_and_the_rest_is_told(orch: Orch, workspace: Path, name: str, readable: str) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert orch("ensemble", "--strategy", "hard", "-w", workspace).code == 0
    program = [sys.executable, "-c", "from orchestrator.cli.app import program; program()"]

    def without_rights(*words: object) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", *UNPRIVILEGED, *program, *map(str, words), "-w", str(workspace)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    folder = workspace / name
    folder.chmod(0)
    try:
        done = without_rights("workspace", "check")
        listed = without_rights("ensembles" if name == "soft-0001" else "runs", "list")
    finally:
        folder.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert f"cannot be read (Permission denied). Allow it (`chmod u+rwx {folder}`)" in done.stderr
    assert "files read" in done.stdout
    assert listed.returncode == 1, listed.stderr
    assert readable in listed.stdout


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="setpriv (util-linux) takes root's right to read everything away"
)
def test_a_photo_that_is_named_and_closed_is_marked(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    shut = shutil.copy(next((people / "eval" / "images").iterdir()), tmp_path / "shut.jpg")
    shut.chmod(0)
    words = ["predict", str(shut), "--on-error", "mark", "--json", "-w", str(workspace)]
    program = [sys.executable, "-c", "from orchestrator.cli.app import program; program()"]
    done = subprocess.run(
        ["setpriv", *UNPRIVILEGED, *program, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    (answer,) = json.loads(done.stdout)
    assert (answer["label"], "no permission to read it" in answer["error"]) == (None, True)


def test_a_recipe_of_another_version_is_listed_as_it_stands(orch: Orch, people: Path, workspace: Path) -> None:
    record = workspace / "age-0001" / "run.json"
    kept = json.loads(record.read_text())
    edit_sealed(record, recipe={**kept["recipe"], "sharpness": 3}, chosen=[*kept["chosen"], "sharpness"])
    assert listed(orch, workspace, "--where", "sharpness=3") == ["age-0001"]
    shown = orch("runs", "show", "age-0001", "-w", workspace)
    assert shown.code == 0, shown.err
    assert "sharpness=3" in shown.out
    for words in (["train", "age", *tiny()], ["tta", "age-0001"]):
        refused = orch(*words, "--data", people / "train", "-w", workspace)
        assert refused.code == 2
        assert (
            "another version of orch recorded its recipe, with settings that this one does not take: sharpness."
            in refused.err
        )
    done = train(orch, people, workspace, "train", "age", "--recipe", "quick", *tiny())
    assert done.code == 0, done.err
    assert "age-0001 differs only in sharpness (3 there, - here)." in done.err
    compared = orch("runs", "compare", "age-0001", "age-0002", "-w", workspace)
    assert re.search(r"age-0001 +3 ", compared.out), compared.out
    assert re.search(r"age-0002 +- ", compared.out), compared.out


def test_a_choice_that_is_lost_is_noted_and_a_chosen_run_that_is_gone_is_damage(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    before = json.loads(orch("workspace", "check", "-w", workspace, "--json").out)
    assert (before["in_order"], before["notes"]) == (True, [])
    for what in ("age", "ensemble"):
        (workspace / "current" / f"{what}.json").unlink()
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 0
    assert f"{before['files'] - 2} files read: 0 damaged." in done.out
    for message in (
        "no age run is the current one",
        "orch runs use age-0001",
        "no ensemble is the",
        "orch ensembles use soft-0001",
    ):
        assert message in done.err
    for use in (("runs", "use", "age-0001"), ("ensembles", "use", "soft-0001")):
        assert orch(*use, "-w", workspace).code == 0
    assert json.loads(orch("workspace", "check", "-w", workspace, "--json").out) == before
    shutil.rmtree(workspace / "age-0001")
    done = orch("runs", "list", "-w", workspace)
    assert done.code == 1
    assert "current/age.json: names age-0001, of which there is no folder" in done.err


def test_nothing_that_python_writes_for_empty_values_is_shown(orch: Orch, trained: Path) -> None:
    of_run = ("runs", "show", "age-0001", "-w", trained)
    for words in (("recipes", "show", "age", "quick"), ("recipes", "show", "mask", "standard"), of_run):
        shown = orch(*words)
        assert shown.code == 0, shown.err
        assert not re.search(r"(?<!\w)(\(\)|\[\]|\{\}|None|set\(\))(?!\w)", shown.out), shown.out


def test_what_is_no_condition_is_answered_by_no_far_fetched_key(orch: Orch, trained: Path) -> None:
    done = orch("runs", "list", "-w", trained, "--where", "ensemble=")
    assert done.code == 2
    assert "'ensemble=' is not a condition. Write KEY=VALUE" in done.err
    assert "Did you mean" not in done.err

"""What was tried stays findable: lists, notes, comparisons, deletion."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image
from sklearn.metrics import f1_score

from orchestrator.artifacts.deletion import check_unused, delete
from orchestrator.artifacts.filters import conditions_of, in_order
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import WORKSPACE_FORMAT, Workspace
from orchestrator.core.errors import ConfigError, WorkspaceError
from orchestrator.core.labels import TASKS
from orchestrator.ensembling.build import build_ensemble
from orchestrator.ensembling.intervals import difference
from tests.conftest import ROOT, Done, close_to_readers, edit_held_out, edit_sealed, hashes, tiny, train

Orch = Callable[..., Done]


@pytest.fixture(scope="module")
def three(people: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with two more age runs: another rate, and other folds with another loss."""
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain
    from orchestrator.specialists import SPECIALISTS
    from tests.conftest import TINY, Silent

    place = tmp_path_factory.mktemp("three") / "runs"
    shutil.copytree(trained, place)
    for changes, k in ((("lr=3e-3",), 3), (("loss=focal", "lr=3e-3"), 2)):
        settings = Settings(people / "train", place, changes=(*TINY, *changes), folds=k, jobs=1, device="cpu")
        assert retrain(settings, SPECIALISTS["age"], Silent()).complete
    return place


@pytest.fixture
def place(three: Path, tmp_path: Path) -> Path:
    shutil.copytree(three, tmp_path / "runs")
    return tmp_path / "runs"


def listed(orch: Orch, place: Path, *words: object) -> list[str]:
    done = orch("runs", "list", "-w", place, "--json", *words)
    assert done.code == 0, done.err
    return [one["id"] for one in json.loads(done.out)]


def test_runs_are_found_by_their_settings_and_scores(orch: Orch, three: Path) -> None:
    assert listed(orch, three, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]
    assert listed(orch, three, "--where", "task=age loss=focal lr>=0.003") == ["age-0003"]
    assert listed(orch, three, "--where", "lr>0.0025 k=3") == ["age-0002"]
    assert listed(orch, three, "--where", "run~age current=true") == ["age-0003"]
    assert listed(orch, three, "--where", "augment.flip=0.5 task!=age") == ["gender-0001", "mask-0001"]
    scores = json.loads(orch("runs", "list", "-w", three, "--json", "--sort", "score").out)
    pooled = []
    for run in scores:
        table = pd.concat([pd.read_parquet(path) for path in (three / run["id"]).glob("fold-*/held_out.parquet")])
        answers = table.filter(like="p(").to_numpy()
        classes = list(range(answers.shape[1]))
        pooled.append(
            f1_score(table["truth"], answers.argmax(axis=1), labels=classes, average="macro", zero_division=0)
        )
    assert [run["score"] for run in scores] == pytest.approx(pooled)  # over all rows at once, as every other score here
    assert pooled == sorted(pooled, reverse=True)
    assert listed(orch, three, "--sort", "-run") == ["mask-0001", "gender-0001", "age-0003", "age-0002", "age-0001"]
    table = orch("runs", "list", "-w", three, "--where", "focal_gamma=2 task=age")
    assert "focal_gamma" in table.out
    assert listed(orch, three, "--where", "score>1") == []
    assert listed(orch, three, "--where", "task=age score>'0.0'") == ["age-0001", "age-0002", "age-0003"]
    assert len(listed(orch, three, "--where", "recipe!=x=y")) == 5  # a value with a sign in it
    assert listed(orch, three, "--where", "recipe=x=y") == []


def test_wrong_conditions_are_told_at_once(orch: Orch, three: Path) -> None:
    done = orch("runs", "list", "-w", three, "--where", "lss=focal wrong task=age")
    assert done.code == 2
    assert "nothing is called 'lss'. Did you mean 'loss'?" in done.err
    assert "'wrong' is no condition" in done.err
    assert (
        "batch_size is a number, and 'ten' is none"
        in orch("runs", "list", "-w", three, "--where", "batch_size>ten").err
    )
    assert "nothing is called 'scor'. Did you mean 'score'?" in orch("runs", "list", "-w", three, "--sort", "scor").err


def test_conditions_by_hand() -> None:
    facts = {
        "score": 0.61,
        "loss": "0.4 f1 + 0.6 focal",
        "tag": ["a", "b"],
        "plan": None,
        "epochs": 12,
        "on": True,
        "best": None,
    }
    for text, holds in {
        "score>0.6": True, "score<=0.6": False, "loss='0.4 f1 + 0.6 focal'": True, "loss~focal": True, "tag=b": True,
        "tag!=b": False, "tag=c": False, "plan=none": True, "plan!=none": False, "epochs=12.0": True, "epochs!=12": False,
        "on=true": True, "best>0.5": False, "best<0.5": False, "best!=0.5": True, "best=none": True, "best~on": False,
        "score > 0.6 epochs<13": True,
    }.items():  # fmt: skip
        assert all(one.holds(facts) for one in conditions_of(text, list(facts))) is holds, text
    rows = [{"score": value} for value in (0.5, None, 0.9, 0.7)]
    assert [one["score"] for one in in_order(rows, "score", ["score"])] == [0.9, 0.7, 0.5, None]
    assert [one["score"] for one in in_order(rows, "-score", ["score"])] == [0.5, 0.7, 0.9, None]
    seeds = [{"seed": value} for value in (10, 9, [1, 2], [9, 1])]
    assert [row["seed"] for row in in_order(seeds, "seed", ["seed"])] == [[1, 2], 9, [9, 1], 10]
    with pytest.raises(ConfigError):
        in_order(rows, "other", ["score"])


def test_notes_and_tags_lie_beside_a_run_and_leave_it_as_it_is(orch: Orch, place: Path) -> None:
    before = hashes(place / "age-0002")
    assert orch("runs", "note", "age-0002", "a faster rate", "--tag", "lr", "--tag", "try", "-w", place).code == 0
    assert listed(orch, place, "--where", "tag=lr") == ["age-0002"]
    assert orch("runs", "note", "age-0002", "--untag", "try", "-w", place).code == 0
    shown = json.loads(orch("runs", "show", "age-0002", "-w", place, "--json").out)
    assert (shown["note"], shown["tags"]) == ("a faster rate", ["lr"])
    assert "a faster rate" in orch("runs", "show", "age-0002", "-w", place).out
    after = hashes(place / "age-0002")
    assert {name: after[name] for name in before} == before
    assert "one word" in orch("runs", "note", "age-0002", "--tag", "two words", "-w", place).err
    assert "give a note" in orch("runs", "note", "age-0002", "-w", place).err


def test_a_comparison_says_what_differs_and_whether_it_is_noise(orch: Orch, three: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    done = orch("runs", "compare", "age-0001", "age-0002", "age-0003", "-w", three, "--json", "--picture", picture)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {*found["differing"]} == {"lr", "loss", "plan", "folds"}
    assert found["differing"]["lr"] == [2e-3, 3e-3, 3e-3]
    assert found["differing"]["loss"] == ["soft_age", "soft_age", "focal"]
    tables = [
        pd.concat(
            [pd.read_parquet(path) for path in sorted((three / name).glob("fold-*/held_out.parquet"))]
        ).sort_values("path")
        for name in ("age-0001", "age-0003")
    ]
    answers = [table.filter(like="p(").to_numpy().argmax(axis=1) for table in tables]
    truth, persons = tables[0]["truth"].to_numpy(), tables[0]["person"]
    gain, span = difference(persons, truth, *answers, 3)
    last = found["runs"][2]
    assert last["gain"] == pytest.approx(gain)
    assert last["gain_interval_95"] == pytest.approx([span.low, span.high])
    assert last["verdict"] == ("noise" if span.low <= 0 <= span.high else "better" if gain > 0 else "worse")
    assert found["runs"][0]["verdict"] is None
    chances = [table.filter(like="p(").to_numpy()[np.arange(len(truth)), truth] for table in tables]
    assert last["log_loss"] == pytest.approx(-np.log(chances[1].astype(float)).mean(), abs=1e-6)
    assert last["log_loss_growth"] == pytest.approx(np.log(chances[0] / chances[1]).mean(), abs=1e-6)
    low, high = last["log_loss_growth_interval_95"]
    assert low <= last["log_loss_growth"] <= high
    assert last["log_loss_verdict"] == ("better" if high < 0 else "worse" if low > 0 else "noise")
    with Image.open(picture) as image:
        assert image.width > 1000
    shown = orch("runs", "compare", "age-0001", "age-0002", "-w", three)
    assert "over age-0001" in shown.out
    assert re.search(r"over age-0001 +95 % interval +verdict +log loss +log loss verdict", shown.out)
    for words, told in (
        (("age-0001", "mask-0001"), "only runs of one specialist"), (("age-0001",), "two runs or more"),
        (("age-0001", "age-0009"), "run 'age-0009' is not in"),
    ):  # fmt: skip
        assert told in orch("runs", "compare", *words, "-w", three).err


def test_a_difference_on_the_same_people_has_a_narrow_interval() -> None:
    rng = np.random.default_rng(0)
    persons = pd.Series(np.repeat([f"p{n}" for n in range(300)], 4))
    truth = np.repeat(rng.integers(0, 3, 300), 4)
    before = np.where(rng.random(1200) < 0.3, rng.integers(0, 3, 1200), truth)
    after = np.where((before != truth) & (rng.random(1200) < 0.3), truth, before)
    gain, span = difference(persons, truth, before, after, 3)
    assert span.low < gain < span.high
    assert span.low > 0
    assert span.high - span.low < 0.05
    assert difference(persons, truth, before, before, 3) == (0.0, type(span)(0.0, 0.0))


def test_what_an_ensemble_uses_is_not_deleted_and_ids_are_not_given_out_again(
    orch: Orch, people: Path, place: Path
) -> None:
    assert orch("ensemble", "-w", place, "--members", "age=age-0001").code == 0
    done = orch("runs", "delete", "age-0001", "age-0003", "--yes", "-w", place)
    assert done.code == 2
    assert "soft-0001 answers with it" in done.err
    assert (place / "age-0003").exists()
    done = orch("runs", "delete", "age-0003", "age-0002", "--yes", "-w", place)
    assert done.code == 0, done.err
    assert listed(orch, place) == ["age-0001", "gender-0001", "mask-0001"]
    assert not (place / "deleted").exists()
    assert not (place / "current/age.json").exists()  # age-0003 was the current one
    again = ("train", "age", *tiny("lr=5e-3"), "--valid-only")
    done = train(orch, people, place, *again)
    assert done.code == 2  # which run shall it start from?
    assert f"choose one: `orch runs use age-0001 --workspace {place}`" in done.err
    assert orch("runs", "use", "age-0001", "-w", place).code == 0
    assert train(orch, people, place, *again).code == 0
    assert listed(orch, place, "--where", "task=age") == ["age-0001", "age-0004"]


def test_deletion_asks_first_and_spares_runs_in_training(orch: Orch, place: Path) -> None:
    assert orch("runs", "delete", "age-0003", "-w", place).code != 0  # nobody answers
    assert (place / "age-0003").exists()
    with FileLock(place / "age-0003/run.lock"):
        assert "another orch command is working on it" in orch("runs", "delete", "age-0003", "-y", "-w", place).err
    assert (place / "age-0003").exists()


def test_a_deletion_checks_again_when_it_acts(orch: Orch, place: Path) -> None:
    space = Workspace(place)
    used, busy = space.run("age-0001"), space.run("age-0003")
    check_unused(space, [used, busy])  # nobody uses them, and the question waits for its answer
    assert orch("ensemble", "-w", place, "--members", "age=age-0001").code == 0
    with pytest.raises(WorkspaceError, match="soft-0001 answers with it"):
        delete(space, used)
    with FileLock(place / "age-0003/run.lock"), pytest.raises(WorkspaceError, match="another orch command"):
        delete(space, busy)
    assert listed(orch, place, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]


def test_an_ensemble_of_runs_deleted_meanwhile_is_not_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace(place)
    runs = {task: [space.run(f"{task}-0001")] for task in TASKS}
    whole = space.lock()
    record = place / "mask-0001/run.json"

    class DeletedFirst:
        def __enter__(self) -> None:
            record.parent.rename(place / "deleted-meanwhile")
            whole.acquire()

        def __exit__(self, *_: object) -> None:
            whole.release()

    monkeypatch.setattr(space, "lock", DeletedFirst)
    with pytest.raises(WorkspaceError, match="mask-0001: deleted by another command"):
        build_ensemble(space, "soft", runs)
    assert not list(place.glob("soft-*"))


def test_what_a_killed_deletion_leaves_is_no_run(orch: Orch, place: Path) -> None:
    (place / "deleted").mkdir()
    (place / "age-0002").rename(place / "deleted/age-0002")  # a kill before its files were gone
    assert listed(orch, place, "--where", "task=age") == ["age-0001", "age-0003"]
    assert orch("runs", "delete", "age-0003", "-y", "-w", place).code == 0
    assert not (place / "deleted").exists()


def test_photos_on_whose_truth_runs_disagree_are_left_out_and_counted(orch: Orch, place: Path) -> None:
    file = place / "age-0002/fold-0/held_out.parquet"
    table = pd.read_parquet(file)
    all_photos = json.loads(orch("runs", "compare", "age-0001", "age-0002", "-w", place, "--json").out)
    table.loc[[1, 4], "truth"] = (table.loc[[1, 4], "truth"] + 1) % 3  # a label was corrected between the runs
    edit_held_out(file.parent, table)
    found = json.loads(orch("runs", "compare", "age-0001", "age-0002", "-w", place, "--json").out)
    assert found["relabelled"] == 2
    assert found["photos"] == all_photos["photos"] - 2
    assert all_photos["relabelled"] == 0
    assert "2 photos are left out" in orch("runs", "compare", "age-0001", "age-0002", "-w", place).err
    for fold in range(3):
        file = place / f"age-0002/fold-{fold}/held_out.parquet"
        table = pd.read_parquet(file)
        truth = pd.read_parquet(place / f"age-0001/fold-{fold}/held_out.parquet")["truth"]
        edit_held_out(file.parent, table.assign(truth=(truth + 1) % 3))
    assert "trained on different data" in orch("runs", "compare", "age-0001", "age-0002", "-w", place).err


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


def test_a_path_is_no_runs_name(orch: Orch, three: Path, place: Path) -> None:
    """A run of another workspace would be deleted without a look at the ensembles that use it."""
    before = hashes(three)
    for name in ("../x/age-0001", str(three / "age-0001"), "age-0001/fold-0", ".", ""):
        done = orch("runs", "delete", name, "-y", "-w", place)
        assert done.code == 2
        assert "is not in" in done.err
    assert hashes(three) == before


def test_ensembles_are_listed_chosen_and_deleted(orch: Orch, place: Path) -> None:
    assert "no ensembles yet" in orch("ensembles", "list", "-w", place).err
    assert orch("runs", "use", "age-0001", "-w", place).code == 0
    built = [json.loads(orch("ensemble", "-w", place, "--strategy", one, "--json").out) for one in ("soft", "hard")]
    listed = json.loads(orch("ensembles", "list", "-w", place, "--json").out)
    assert [(one["id"], one["current"]) for one in listed] == [("hard-0001", True), ("soft-0001", False)]
    score = built[0]["evaluation"]["label"]["macro_f1"]
    assert f"{score:.4f}" in orch("ensembles", "list", "-w", place).out
    assert "(was hard-0001)" in orch("ensembles", "use", "soft-0001", "-w", place).err
    assert Workspace(place).current("ensemble") == "soft-0001"
    refused = orch("runs", "delete", "age-0001", "-y", "-w", place)
    assert refused.code == 2
    assert f"`orch ensembles delete hard-0001 soft-0001 --workspace {place}` releases it" in refused.err
    before = hashes(place / "age-0001")
    assert orch("ensembles", "delete", "soft-0001", "soft-9", "-y", "-w", place).code == 2
    assert (place / "soft-0001").exists()  # all names are looked at first
    assert orch("ensembles", "delete", "hard-0001", "soft-0001", "-y", "-w", place).code == 0
    assert hashes(place / "age-0001") == before
    assert "there is no ensemble yet" in orch("export", "--out", place.parent / "out", "-w", place).err
    assert orch("runs", "delete", "age-0001", "-y", "-w", place).code == 0
    again = orch("ensemble", "-w", place, "--no-score")
    assert "no age run is the current one" in again.err  # and an id that is gone is not given out again


def test_who_deletes_what_is_current_is_told_what_to_choose_or_make(orch: Orch, people: Path, place: Path) -> None:
    """Each time by a command that works: the newest of the others, and a new one where there is none."""
    assert orch("runs", "use", "age-0003", "-w", place).code == 0
    for name, next_one in (("age-0003", "age-0002"), ("age-0001", None), ("age-0002", None)):
        current = Workspace(place).current("age")
        done = orch("runs", "delete", name, "--yes", "-w", place)
        assert done.code == 0, done.err
        assert ("It was the current age run" in done.err) is (name == current)
        if next_one is not None:
            (use,) = re.findall(r"`(orch runs use [^`]+)`", done.err)
            assert f" {next_one} " in use
            assert orch(*shlex.split(use)[1:]).code == 0
    (make,) = re.findall(r"`(orch train age [^`]+)`", done.err)
    words = shlex.split(make.replace("--data DIR", shlex.join(["--data", str(people / "train")])))
    assert orch(*words[1:], "--folds", 3, "--jobs", 1, *tiny()).code == 0
    for strategy in ("soft", "hard"):
        assert orch("ensemble", "--strategy", strategy, "-w", place).code == 0
    done = orch("ensembles", "delete", "hard-0001", "--yes", "-w", place)
    (use,) = re.findall(r"`(orch ensembles use [^`]+)`", done.err)
    assert orch(*shlex.split(use)[1:]).code == 0
    done = orch("ensembles", "delete", "soft-0001", "--yes", "-w", place)
    (make,) = re.findall(r"`(orch ensemble [^`]+)`", done.err)
    assert orch(*shlex.split(make)[1:]).code == 0
    assert Workspace(place).current("ensemble") == "soft-0002"


def test_numbers_are_not_held_against_words(orch: Orch, three: Path, place: Path) -> None:
    done = orch("runs", "list", "-w", three, "--where", "score>high lr<1e-2x")
    assert done.code == 2
    assert "--where score>high: score is a number, and 'high' is none." in done.err
    assert "lr is a number" in done.err
    done = orch("runs", "note", "age-0001", "--untag", "nothing", "-w", place)
    assert done.code == 2
    assert "age-0001 has the tags none" in done.err


def test_a_repaired_workspace_gives_out_no_number_that_something_in_it_still_names(orch: Orch, place: Path) -> None:
    (place / "sweeps").mkdir()
    (place / "sweeps" / "age-12345678.db").write_bytes(
        b'\x00run"age-0017"\xff"gender-0001"'
    )  # a search's name is no run's
    (place / "tensorboard" / "mask-0009").mkdir(parents=True)
    (place / "deleted" / "soft-0004").mkdir(parents=True)
    (place / "workspace.json").unlink()
    done = orch("workspace", "repair", "-w", place)
    assert done.code == 0, done.err
    retired = json.loads((place / "workspace.json").read_text())["retired"]
    assert retired == {"age": 17, "gender": 1, "mask": 9, "soft": 4}
    assert listed(orch, place, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]


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
    assert f"Then `orch ensemble --workspace {workspace}` makes another ensemble." in done.err
    done = orch("workspace", "check", "-w", workspace)
    assert done.code == 1
    assert "answers with that member" in done.err  # one ensemble for each file
    assert "names age-0001, of which there is no folder" in done.err
    (workspace / "current/age.json").unlink()
    done = orch("ensembles", "use", "soft-0001", "-w", workspace)
    assert "make another ensemble of runs that are there" in done.err


def test_resuming_needs_no_photos_where_nothing_is_missing(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    here = tmp_path / "people"
    shutil.copytree(people, here)
    words = ("train", "mask", "--data", here / "train", "-w", tmp_path / "own", "--folds", 2, "--jobs", 1, *tiny())
    assert orch(*words).code == 0
    here.rename(tmp_path / "moved")
    assert (
        "is complete, and every file of it is as it was written"
        in orch("resume", "mask-0001", "-w", tmp_path / "own").err
    )
    shutil.rmtree(tmp_path / "own/mask-0001/fold-1")
    done = orch("resume", "mask-0001", "-w", tmp_path / "own")
    assert done.code == 2
    assert "Give their new path: `orch resume mask-0001 --data DIR" in done.err
    done = orch("resume", "mask-0001", "--data", tmp_path / "moved/train", "--jobs", 1, "-w", tmp_path / "own")
    assert done.code == 0, done.err
    assert (tmp_path / "own/mask-0001/fold-1/member.json").is_file()


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
    whole = orch("workspace", "check", "-w", workspace)
    assert whole.code == 0, whole.err
    kept = hashes(workspace)
    assert all(kept[name] == digest for name, digest in before.items() if name.endswith(("safetensors", "parquet")))


def test_what_is_offered_as_current_can_be_taken(orch: Orch, place: Path) -> None:
    """The newest that is whole, by its date and not by its name."""
    assert orch("runs", "use", "age-0001", "-w", place).code == 0
    for strategy in ("soft", "hard", "soft"):
        assert orch("ensemble", "--strategy", strategy, "-w", place).code == 0
    for name, created in (("soft-0001", "2026-01-01"), ("hard-0001", "2026-03-01"), ("soft-0002", "2026-02-01")):
        edit_sealed(place / name / "ensemble.json", created=f"{created}T00:00:00+00:00")
    edit_sealed(place / "soft-0002/ensemble.json", format=2)  # of an older version
    shutil.rmtree(place / "age-0003/fold-0")
    for what in ("age", "ensemble"):
        (place / f"current/{what}.json").write_text("{")
    done = orch("runs", "list", "-w", place)
    (use,) = re.findall(r"`(orch runs use [^`]+)`", done.err)
    assert use.split()[3] == "age-0002"
    assert orch(*shlex.split(use)[1:]).code == 0
    photo = "x.jpg"
    done = orch("predict", photo, "-w", place)
    (use,) = re.findall(r"`(orch ensembles use [^`]+)`", done.err)
    assert use.split()[3] == "hard-0001"
    assert orch(*shlex.split(use)[1:]).code == 0


def test_an_ensemble_of_an_older_version_is_let_go(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    edit_sealed(workspace / "soft-0001/ensemble.json", format=2)
    done = orch("runs", "delete", "age-0001", "--yes", "-w", workspace)
    assert done.code == 2  # whether it answers with the run cannot be told
    assert "written in format 2 by an older version" in done.err
    assert "Use that version of orchestrator; or `mv" in done.err
    assert "orch ensemble" in done.err
    assert orch("ensembles", "delete", "soft-0001", "--yes", "-w", workspace).code == 0
    assert orch("runs", "delete", "age-0001", "--yes", "-w", workspace).code == 0


def test_what_a_newer_version_calls_current_is_not_written_over(orch: Orch, workspace: Path) -> None:
    edit_sealed(workspace / "current/age.json", format=99)
    before = (workspace / "current/age.json").read_bytes()
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "by a newer version" in done.err
    assert "choose another workspace" in done.err
    assert "runs use" not in done.err
    assert (workspace / "current/age.json").read_bytes() == before


def test_damaged_ensembles_are_listed_as_such(orch: Orch, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    assert re.search(r"soft-0001 .* current ", orch("ensembles", "list", "-w", workspace).out)
    (workspace / "age-0001/fold-1/member.json").unlink()
    done = orch("ensembles", "list", "-w", workspace)
    assert done.code == 1
    assert re.search(r"soft-0001 .* damaged ", done.out)
    assert "age-0001/fold-1/member.json: missing" in done.err


def test_a_run_is_resumed_though_its_weights_and_extra_photos_have_moved(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from safetensors.torch import save_model

    monkeypatch.chdir(tmp_path)
    save_model(timm.create_model("test_efficientnet", num_classes=3), "init.safetensors")
    others = tmp_path / "others"
    shutil.copytree(people / "eval", others)
    names = [*sorted(path.name for path in (others / "images").iterdir())]
    (others / "extra.csv").write_text(
        "path,person,mask\n" + "".join(f"images/{name},x{number},wear\n" for number, name in enumerate(names))
    )
    words = ("train", "mask", "--data", people / "train", "-w", "own", "--folds", 2, "--jobs", 1)
    started = orch(*words, "--extra", "others/extra.csv", *tiny("weights=init.safetensors", "epochs=1"))
    assert started.code == 0, started.err
    weights = hashes(tmp_path / "own/mask-0001/fold-1")["weights.safetensors"]
    shutil.rmtree("own/mask-0001/fold-1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # a relative path on record would be another file here
    assert Path(json.loads((tmp_path / "own/mask-0001/run.json").read_text())["recipe"]["weights"]).is_absolute()
    others.rename(tmp_path / "moved")
    (tmp_path / "init.safetensors").rename(tmp_path / "gone.safetensors")
    resume = ("resume", "mask-0001", "--jobs", 1, "-w", tmp_path / "own")
    done = orch(*resume)
    assert done.code == 2
    assert f"`orch resume mask-0001 --extra TABLE --workspace {tmp_path / 'own'}`" in done.err
    (restore,) = re.findall(r"`(cp [^`]+)`", done.err)
    subprocess.run(shlex.split(restore), check=True)
    done = orch(*resume, "--extra", tmp_path / "moved/extra.csv")
    assert done.code == 0, done.err
    assert hashes(tmp_path / "own/mask-0001/fold-1")["weights.safetensors"] == weights


def test_what_has_changed_since_a_run_began_is_told_with_a_training_that_works(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    place = tmp_path / "own place"
    words = ("train", "mask", "--data", people / "train", "-w", place, "--folds", 2, "--plan-seed", 3, "--seed", 4)
    assert orch(*words, "--jobs", 1, *tiny("epochs=1")).code == 0
    shutil.rmtree(place / "mask-0001/fold-1")
    weights = json.loads((place / "mask-0001/run.json").read_text())["initial_weights"]
    edit_sealed(place / "mask-0001/run.json", initial_weights={**weights, "sha256": "0" * 64}, status="unfinished")
    done = orch("resume", "mask-0001", "--jobs", 1, "-w", place)
    assert done.code == 2
    assert "the initial weights would be another" in done.err
    (anew,) = re.findall(r"`(orch train [^`]+)`", done.err)
    done = orch(*shlex.split(anew)[1:], "--jobs", 1)
    assert done.code == 0, done.err
    old, new = (json.loads((place / f"mask-000{number}/run.json").read_text()) for number in (1, 2))
    assert (old["recipe"], old["seed"], old["plan"]) == (new["recipe"], new["seed"], new["plan"])


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
        (make,) = re.findall(r"`(orch ensemble[^`]*)`", done.err)
    assert orch(*shlex.split(make)[1:]).code == 0
    assert orch("predict", photos, "-w", workspace).code == 0


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
    assert "mask-0001/run.json is written anew" in done.err
    assert "by a newer version" in done.err
    assert "`orch resume gender-0001" in done.err
    again = orch("workspace", "repair", "-w", workspace)
    assert (again.code, "nothing to repair" in again.err, "by a newer version" in again.err) == (1, False, True)


def test_what_a_newer_version_calls_current_stops_a_training_before_it_begins(
    orch: Orch, people: Path, workspace: Path
) -> None:
    path = workspace / "current/age.json"
    edit_sealed(path, format=99)
    before = path.read_bytes()
    words = ("--data", people / "train", "-w", workspace, "--jobs", 1)
    for command in (("train-all", *words, "--folds", 3, *tiny("lr=0.01")), ("train", "age", *words, "--seed", 3),
                    ("runs", "use", "age-0001", "-w", workspace)):  # fmt: skip
        done = orch(*command)
        assert (done.code, "by a newer version" in done.err) == (2, True), done.err
    assert path.read_bytes() == before
    assert [run.id for run in Workspace(workspace).runs("age")] == ["age-0001"]


def test_a_damaged_workspace_file_still_tells_which_numbers_were_deleted(orch: Orch, people: Path, place: Path) -> None:
    assert orch("runs", "delete", "age-0003", "--yes", "-w", place).code == 0
    mark = place / "workspace.json"
    mark.write_text(mark.read_text().replace('"created": "', '"created": "1'))
    assert orch("workspace", "repair", "-w", place).code == 0
    assert json.loads(mark.read_text())["retired"] == {"age": 3}


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
    assert record.is_file()  # and was not put aside


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


def test_an_ensemble_whose_record_is_lost_is_made_again_with_its_tables(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    answers = tmp_path / "a b.parquet"
    photos = people / "eval/images"
    assert orch("predict", photos, "--probabilities", answers, "--strategy", "hard", "-w", workspace).code == 0
    assert orch("ensemble", "--with", answers, "-w", workspace).code == 0
    before = json.loads(orch("predict", photos, "--json", "-w", workspace).out)
    (workspace / "soft-0002/ensemble.json").write_text("{")
    done = orch("predict", photos, "--ensemble", "soft-0002", "-w", workspace)
    aside, make = re.findall(r"`((?:mv|orch ensemble) [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert orch(*shlex.split(make)[1:]).code == 0
    after = json.loads(orch("predict", photos, "--json", "-w", workspace).out)
    assert [one["probabilities"] for one in after] == [one["probabilities"] for one in before]


@pytest.mark.parametrize("left", ["source", "nothing"])
def test_a_lost_table_is_told_with_a_command_that_works(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, left: str
) -> None:
    """Where nothing is left of it, the ensemble without it is offered, and called another one."""
    info = pd.read_csv(people / "eval/info.csv").assign(ans=3)
    for name in ("old 1", "old 2"):
        info.assign(ans=3 if name == "old 1" else 5).to_csv(tmp_path / f"{name}.csv", index=False)
    tables = ("--with", tmp_path / "old 1.csv", "--with", tmp_path / "old 2.csv")
    assert orch("ensemble", *tables, "-w", workspace).code == 0
    (workspace / "soft-0001/external-1.parquet").unlink()
    if left == "nothing":
        (tmp_path / "old 1.csv").unlink()
        (tmp_path / "old 2.csv").unlink()  # its copy is whole
    done = orch("predict", people / "eval/images", "-w", workspace)
    assert done.code == 2
    (again,) = re.findall(r"build it again: `(orch ensemble[^`]+)`", done.err)
    assert ("without old 1.csv, of which no copy is left" in done.err) is (left == "nothing")
    built = orch(*shlex.split(again)[1:], "--json")
    assert built.code == 0, built.err
    assert len(json.loads(built.out)["external"]) == (2 if left == "source" else 1)


def test_tables_that_runs_learnt_from_are_not_written_over(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
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
@pytest.mark.parametrize("name", ["current", "age-0001", "soft-0001"])
def test_a_closed_folder_is_named_and_the_rest_is_told(orch: Orch, workspace: Path, name: str) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    program = [sys.executable, "-c", "from orchestrator.cli.app import program; program()"]

    def without_rights(*words: object) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", *UNPRIVILEGED, *program, *map(str, words), "-w", str(workspace)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    place = workspace / name
    place.chmod(0)
    try:
        done = without_rights("workspace", "check")
        listed = without_rights("ensembles" if name == "soft-0001" else "runs", "list")
    finally:
        place.chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert f"cannot be read (Permission denied). Allow it (`chmod u+rwx {place}`)" in done.stderr
    assert "files read" in done.stdout
    assert listed.returncode == 1, listed.stderr
    assert name == "soft-0001" or "mask-0001" in listed.stdout


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


def test_a_recipe_of_another_version_is_listed_as_it_stands(orch: Orch, people: Path, workspace: Path) -> None:
    record = workspace / "age-0001" / "run.json"
    recipe = json.loads(record.read_text())["recipe"]
    edit_sealed(record, recipe={**recipe, "sharpness": 3})
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

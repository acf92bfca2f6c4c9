"""The commands as a user sees them: what they print, what they refuse, what they leave behind."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Done, tiny

Orch = Callable[..., Done]


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace, to change."""
    copy = tmp_path / "runs"
    shutil.copytree(trained, copy)
    return copy


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def train(orch: Orch, people: Path, workspace: Path, *words: object) -> Done:
    return orch(*words, "--data", people / "train", "--workspace", workspace, "--folds", 3, "--jobs", 1)


def test_data_commands_in_sequence(orch: Orch, tmp_path: Path) -> None:
    root = tmp_path / "people"
    done = orch("data", "synth", root, "--people", 12, "--eval-people", 2, "--jobs", 1)
    assert done.code == 0, done.err
    assert f"next: orch train-all --data {root / 'train'}" in done.err
    done = orch("data", "check", "--data", root / "train")
    assert (done.code, done.out) == (0, "84 photos of 12 people opened: 0 errors, 0 notes. Training may start.\n")
    done = orch("data", "describe", "--data", root / "train", "--out", tmp_path / "p.png", "--json")
    assert json.loads(done.out)["photos"] == 84
    assert (tmp_path / "p.png").stat().st_size > 10_000
    done = orch("data", "folds", "--data", root / "train", "--folds", 2, "--json")
    assert json.loads(done.out)["k"] == 2
    next((root / "train" / "images").rglob("normal.jpg")).write_bytes(b"")
    done = orch("data", "check", "--data", root / "train", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert (found["may_train"], found["fatal"]) == (False, 1)
    assert found["problems"][0]["kind"] == "unreadable"


def test_train_all_again_keeps_what_is_complete(orch: Orch, people: Path, workspace: Path) -> None:
    before = hashes(workspace)
    done = train(orch, people, workspace, "train-all", *tiny())
    assert done.code == 0, done.err
    assert done.err.count("is complete already") == 3
    assert hashes(workspace) == before


def test_retraining_one_specialist_leaves_the_others_untouched(orch: Orch, people: Path, workspace: Path) -> None:
    before = {task: hashes(workspace / f"{task}-0001") for task in ("age", "gender", "mask")}
    done = train(orch, people, workspace, "train", "age", *tiny(), "--seed", 1)
    assert done.code == 0, done.err
    assert "age-0002 is now the current age run (was age-0001)." in done.err
    assert {task: hashes(workspace / f"{task}-0001") for task in before} == before
    runs = {run["id"]: run for run in json.loads(orch("runs", "list", "-w", workspace, "--json").out)}
    assert [name for name, run in runs.items() if run["current"]] == ["age-0002", "gender-0001", "mask-0001"]
    assert runs["age-0002"]["seed"] == 1
    weights = [
        member["sha256"]["weights.safetensors"] for name in ("age-0001", "age-0002") for member in runs[name]["members"]
    ]
    assert len(set(weights)) == 6


def test_retraining_one_fold_shares_the_other_members(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--seed", 5)
    assert done.code == 0, done.err
    assert "mask-0002 shares folds 0, 1 with mask-0001." in done.err
    old, new = workspace / "mask-0001", workspace / "mask-0002"
    for fold in (0, 1):
        assert hashes(old / f"fold-{fold}").items() >= {
            (name, digest) for name, digest in hashes(new / f"fold-{fold}").items()
        }
    assert (old / "fold-2/weights.safetensors").read_bytes() != (new / "fold-2/weights.safetensors").read_bytes()
    record = json.loads((new / "run.json").read_text())
    assert (record["parent"], record["retrained"], record["folds"]) == ("mask-0001", [2], [0, 1, 2])
    shutil.rmtree(old)
    assert orch("ensemble", "-w", workspace).code == 0


def test_retraining_a_fold_refuses_another_recipe_plan_or_fold(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--set", "lr=0.5")
    assert done.code == 2
    assert "A run has one recipe" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 2, "--plan-seed", 9)
    assert "members of different plans never mix" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 7)
    assert "--fold 7: allowed: 0 to 2" in done.err
    done = train(orch, people, workspace, "train", "mask", "--fold", 1, "--base", "age-0001")
    assert "a run of the age specialist; needed: one of mask" in done.err


def test_changed_data_recipe_or_plan_is_a_new_run(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    table = pd.read_csv(copy / "train" / "train.csv", dtype=str)
    table.loc[0, "age"] = str(int(table.loc[0, "age"]) + 1)  # type: ignore[arg-type]
    table.to_csv(copy / "train" / "train.csv", index=False)
    assert train(orch, copy, workspace, "train-all", *tiny(), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny(), "--tasks", "mask", "--plan-seed", 4).code == 0
    keys = [json.loads(path.read_text())["key"] for path in sorted(workspace.glob("mask-*/run.json"))]
    assert len(keys) == len(set(keys)) == 4
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "the runs follow different fold plans" in done.err
    assert "--no-score" in done.err
    done = orch("ensemble", "-w", workspace, "--members", "mask=mask-0002")
    assert "the runs were trained on different data" in done.err
    done = orch("ensemble", "-w", workspace, "--no-score", "--json")
    assert json.loads(done.out)["evaluation"] is None


def test_a_single_split_and_training_on_everything(orch: Orch, people: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    assert train(orch, people, one, "train-all", *tiny("epochs=1"), "--valid-only").code == 0
    found = json.loads(orch("ensemble", "-w", one, "--json").out)
    assert found["evaluation"]["label"]["people"] == 8
    everything = tmp_path / "all"
    done = orch("train-all", "--data", people / "train", "-w", everything, "--folds", 0, "--jobs", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "there will be no out-of-fold score" in done.err
    done = orch("ensemble", "-w", everything)
    assert done.code == 0
    assert "no out-of-fold score: mask-0001, gender-0001, age-0001: trained on everything" in done.out
    done = orch("predict", people / "eval" / "images", "-w", everything, "--json")
    assert len(json.loads(done.out)) == 28


def test_an_ensemble_prints_and_saves_its_scores(orch: Orch, workspace: Path) -> None:
    done = orch("ensemble", "--strategy", "soft", "-w", workspace)
    assert done.code == 0, done.err
    for words in (
        "18-way macro F1",
        "95 % interval",
        "wear / male / <30",
        "age-0001",
        "fold 2",
        "whole run",
        "agree on every",
    ):
        assert words in done.out
    record = json.loads((workspace / "soft-0001" / "ensemble.json").read_text())
    table = pd.read_parquet(workspace / "soft-0001" / "out_of_fold.parquet")
    assert len(table) == 168 == record["evaluation"]["label"]["photos"]
    assert (table["age"] == table["age_truth"]).mean() == pytest.approx(record["evaluation"]["age"]["accuracy"])
    again = orch("ensemble", "--strategy", "hard", "-w", workspace, "--json")
    assert json.loads(again.out)["id"] == "hard-0001"
    assert json.loads(again.out)["evaluation"]["label"] == record["evaluation"]["label"]


def test_several_runs_vote_and_their_disagreements_are_listed(orch: Orch, people: Path, workspace: Path) -> None:
    for seed in (1, 2):
        assert train(orch, people, workspace, "train", "age", *tiny("epochs=1"), "--seed", seed).code == 0
    done = orch("ensemble", "-w", workspace, "--members", "age=age-0001,age-0002,age-0003", "--json")
    record = json.loads(done.out)
    assert len(record["members"]["age"]) == 9
    assert [one["run"] for one in record["single"]["age"] if one["fold"] is None] == [
        "age-0001",
        "age-0002",
        "age-0003",
    ]
    listed = pd.read_csv(workspace / record["id"] / "disagreements.csv")
    assert len(listed) == record["disagreements"]
    tables = {
        name: pd.concat([pd.read_parquet(path) for path in sorted(workspace.glob(f"{name}/fold-*/held_out.parquet"))])
        .sort_values("path").filter(like="p(").to_numpy()
        for name in ("age-0001", "age-0002", "age-0003")
    }  # fmt: skip
    mean = np.mean(list(tables.values()), axis=0).argmax(axis=1)
    voices = sum(np.eye(3)[one.argmax(axis=1)] for one in tables.values())
    clear = voices.max(axis=1) > 1
    assert len(listed) >= (mean != voices.argmax(axis=1))[clear].sum()
    text = orch("ensemble", "-w", workspace, "age=age-0001,age-0002,age-0003").out
    assert f"soft and hard voting disagree on {len(listed):,} photos" in text


def test_predicting_files_folders_and_the_contests_eval(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    images = sorted((people / "eval" / "images").iterdir())
    done = orch("predict", images[0], people / "eval" / "images", "-w", workspace, "--json")
    answers = json.loads(done.out)
    assert [answer["path"] for answer in answers] == [str(path) for path in images]
    assert all(sum(answer["probabilities"]["age"].values()) == pytest.approx(1, abs=1e-4) for answer in answers)
    out, shares = tmp_path / "submission.csv", tmp_path / "p.parquet"
    done = orch("predict", "--eval", people / "eval", "--out", out, "--probabilities", shares, "-w", workspace)
    assert done.code == 0, done.err
    info, submission = pd.read_csv(people / "eval" / "info.csv"), pd.read_csv(out)
    assert list(submission.columns) == list(info.columns)
    assert submission["ImageID"].equals(info["ImageID"])
    by_name = {Path(answer["path"]).name: answer["label"] for answer in answers}
    assert submission["ans"].tolist() == [by_name[name] for name in info["ImageID"]]
    table = pd.read_parquet(shares)
    assert np.allclose(table.filter(regex=r"^p\(\w+ / ").sum(axis=1), 1, atol=1e-4)
    assert orch("predict", images[0], "-w", workspace).out.count(" / ") >= 2
    assert orch("predict", images[0], "-w", workspace, "--strategy", "hard", "--json").code == 0


def test_an_unreadable_photo_is_an_error_or_a_marked_row(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    orch("ensemble", "-w", workspace)
    copy = tmp_path / "eval"
    shutil.copytree(people / "eval", copy)
    name = pd.read_csv(copy / "info.csv")["ImageID"][3]
    (copy / "images" / name).write_bytes(b"")
    out = tmp_path / "s.csv"
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace)
    assert done.code == 2
    assert name in done.err
    assert "--on-error mark" in done.err
    assert not out.exists()
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace, "--on-error", "mark")
    assert done.code == 0
    assert "28 rows in info.csv's order, 1 of them empty" in done.err
    rows = out.read_text().splitlines()
    assert rows[4] == f"{name},"
    assert all(row.split(",")[1].isdigit() for row in rows[1:4] + rows[5:])


def test_recipes_and_runs_are_shown_and_copied(orch: Orch, workspace: Path, tmp_path: Path) -> None:
    assert orch("recipes", "list").out.count("quick") == 3
    shown = orch("recipes", "show", "age", "quick").out
    assert "train_border" in shown
    assert "58 rule" in shown
    mine = tmp_path / "mine.toml"
    assert orch("recipes", "copy", "age", "quick", mine).code == 0
    assert "# passes over the sampled photos" in mine.read_text()
    assert "is there already" in orch("recipes", "copy", "age", "quick", mine).err
    shown = orch("runs", "show", "age-0001", "-w", workspace)
    for words in ("fold plan", "fingerprint", "torch", "macro F1", "initial weights"):
        assert words in shown.out
    assert "Did you mean 'age-0001'?" in orch("runs", "show", "age-001", "-w", workspace).err
    assert json.loads(orch("runs", "show", "age-0001", "-w", workspace, "--json").out)["members"][2]["fold"] == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train-all", "--set", "lerning_rate=1"], "unknown key 'lerning_rate'"),
        (["train-all", "--recipe", "qick"], "Did you mean 'quick'?"),
        (["train-all", "--set", "backbone=resnet_18"], "timm "),
        (["train-all", "--device", "cuda"], "sees no GPU here"),
        (["train-all", "--device", "tpu"], "allowed: auto, cpu, cuda"),
        (["train-all", "--folds", "9"], "larger than the smallest class: "),
        (["train-all", "--tasks", "hat"], "'hat' is no task; allowed: mask, gender, age"),
        (["train-all", "--jobs", "-2"], "--jobs -2; allowed: 1 or more"),
        (["train", "hat"], "'hat' is no specialist"),
        (["train-all", "--columns", "person"], "write OURS=THEIRS"),
        (["train-all", "--set", "weights=nowhere.pth"], "no such file; allowed: hub, packaged, none"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    orch: Orch, people: Path, tmp_path: Path, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folds = [] if "--folds" in words else ["--folds", 3]
    done = orch(*words, *folds, "--data", people / "train", "--workspace", tmp_path / "runs")
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def test_wrong_ensembles_are_refused_with_everything_at_once(orch: Orch, people: Path, workspace: Path) -> None:
    record = json.loads((workspace / "age-0001" / "run.json").read_text())
    (workspace / "age-0001" / "run.json").write_text(json.dumps({**record, "status": "unfinished"}))
    (workspace / "age-0001" / "fold-1" / "member.json").unlink()
    done = orch("ensemble", "-w", workspace, "--members", "age=age-0001,mask-0001", "gendr=gender-0001", "mask=mask-9")
    assert done.code == 2
    assert "age-0001 is unfinished (fold 1 missing)" in done.err
    assert "mask-0001 is a run of the mask specialist" in done.err
    assert "Did you mean 'gender'?" in done.err
    assert "run 'mask-9' is not in" in done.err


def test_an_unknown_strategy_is_refused(orch: Orch, workspace: Path) -> None:
    told = orch("ensemble", "--strategy", "sft", "-w", workspace).err
    assert "--strategy sft; allowed: soft, hard. Did you mean 'soft'?" in told


def test_missing_and_changed_member_files_are_all_named(orch: Orch, people: Path, workspace: Path) -> None:
    orch("ensemble", "-w", workspace)
    (workspace / "age-0001" / "fold-0" / "weights.safetensors").unlink()
    place = workspace / "mask-0001" / "fold-2" / "weights.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))
    done = orch("predict", people / "eval" / "images", "-w", workspace)
    assert done.code == 2
    assert "2 of the ensemble's 9 members cannot be used" in done.err
    assert "age-0001/fold-0/weights.safetensors: the member's weights are missing" in done.err
    assert "mask-0001/fold-2/weights.safetensors: wrong sha256" in done.err


def test_weights_that_do_not_fit_their_card_are_told(orch: Orch, people: Path, workspace: Path) -> None:
    card_path = workspace / "age-0001" / "fold-0" / "member.json"
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps({**card, "backbone": "test_resnet"}))
    orch("ensemble", "-w", workspace)
    assert (
        "do not fit the network that the card names" in orch("predict", people / "eval" / "images", "-w", workspace).err
    )
    card_path.write_text(json.dumps({**card, "backbone": "no_such_net"}))
    assert (
        "its backbone 'no_such_net' is unknown to timm"
        in orch("predict", people / "eval" / "images", "-w", workspace).err
    )
    card_path.write_text(json.dumps({**card, "format": 99}))
    assert "newer than this version reads" in orch("ensemble", "-w", workspace).err


def test_newer_foreign_and_missing_workspaces_are_refused(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert "no workspace here" in orch("ensemble", "-w", tmp_path / "none").err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("")
    assert "is not empty and no workspace" in train(orch, people, tmp_path / "full", "train-all").err
    (workspace / "workspace.json").write_text('{"format": 99}')
    done = orch("runs", "list", "-w", workspace)
    assert done.code == 2
    assert "written in format 99 by a newer version; this one reads up to 1" in done.err


def test_predict_needs_one_kind_of_input_and_an_ensemble(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert "give either photos or --eval DIR" in orch("predict", "-w", workspace).err
    assert "--eval and --out go together" in orch("predict", "--eval", people / "eval", "-w", workspace).err
    assert "there is no ensemble yet" in orch("predict", people / "eval" / "images", "-w", workspace).err
    assert "no photos found" in orch("predict", tmp_path, "-w", workspace).err
    assert "--on-error ignore; allowed: fail, mark" in orch("predict", tmp_path, "--on-error", "ignore").err
    assert "a .parquet file is written" in orch("predict", people / "eval" / "images", "--probabilities", "p.csv").err


def test_a_fault_of_ours_is_a_sentence_and_a_traceback_only_when_asked(
    orch: Orch, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("orchestrator.data.check.check", fail)
    monkeypatch.delenv("ORCH_DEBUG", raising=False)
    done = orch("data", "check", "--data", people / "train")
    assert done.code == 70
    assert "fault in orch, not in your input: ZeroDivisionError: a bug" in done.err
    assert "ORCH_DEBUG=1" in done.err
    monkeypatch.setenv("ORCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        orch("data", "check", "--data", people / "train")


def test_a_failing_fold_is_told_at_the_end_and_the_others_are_kept(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.training import jobs

    real = jobs.train_fold

    def fail_once(job: object) -> object:
        if job.task == "age" and job.fold == 1:  # type: ignore[attr-defined]
            raise MemoryError
        return real(job)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "train_fold", fail_once)
    runs = tmp_path / "runs"
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 1
    assert "age-0001 fold 1: age fold 1: MemoryError" in done.err
    assert "the same command trains what is missing" in done.err
    assert "mask-0001 is now the current mask run" in done.err
    assert len(list(runs.glob("age-0001/fold-*/member.json"))) == 2
    kept = hashes(runs / "age-0001" / "fold-0")
    monkeypatch.setattr(jobs, "train_fold", real)
    done = train(orch, people, runs, "train-all", *tiny("epochs=1"))
    assert done.code == 0
    assert hashes(runs / "age-0001" / "fold-0") == kept
    assert orch("ensemble", "-w", runs).code == 0


def test_without_a_store_the_weights_are_the_same(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    done = train(orch, people, tmp_path / "direct", "train-all", *tiny(), "--no-store")
    assert done.code == 0, done.err
    assert not (tmp_path / "direct" / "store").exists()
    for task in ("mask", "gender", "age"):
        place = f"{task}-0001/fold-1/weights.safetensors"
        assert (tmp_path / "direct" / place).read_bytes() == (workspace / place).read_bytes()


def test_one_photo_under_two_people_is_refused_before_training(orch: Orch, people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    folders = sorted((copy / "train" / "images").iterdir())
    one, other = next(folders[0].glob("normal.*")), next(folders[1].glob("normal.*"))
    other.unlink()
    shutil.copy(one, folders[1] / one.name)
    done = train(orch, copy, tmp_path / "runs", "train-all", *tiny())
    assert done.code == 2
    assert "people would leak across folds" in done.err
    assert "stands under 2 people" in done.err
    assert orch("data", "check", "--data", copy / "train").code == 1


def test_a_retraining_keeps_plan_and_recipe_of_the_current_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--set", "lr=1e-4")
    assert done.code == 0, done.err
    assert "recipe: that of age-0001 (quick), changed by --set." in done.err
    old, new = (json.loads((workspace / name / "run.json").read_text()) for name in ("age-0001", "age-0002"))
    assert new["plan"] == old["plan"]
    assert {key for key in new["recipe"] if new["recipe"][key] != old["recipe"][key]} == {"lr"}
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1)
    assert "the same settings, data and seed as age-0002" in done.err
    listed = orch("runs", "list", "-w", workspace).out
    assert "quick +" in listed


def test_an_old_run_never_takes_current_back_unless_asked(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    done = train(orch, people, workspace, "train-all", *tiny())
    assert "age-0001 is complete already" in done.err
    assert "age-0002 stays the current age run" in done.err
    assert json.loads((workspace / "current" / "age.json").read_text())["id"] == "age-0002"
    assert "now the current age run (was age-0002)" in orch("runs", "use", "age-0001", "-w", workspace).err
    assert "age: age-0001 (current)" in orch("ensemble", "-w", workspace).err


def test_a_kill_before_the_last_step_is_made_up_for(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    record = json.loads((workspace / "age-0002" / "run.json").read_text())
    (workspace / "age-0002" / "run.json").write_text(json.dumps({**record, "published": False}))
    (workspace / "current" / "age.json").write_text('{"id": "age-0001"}')
    (workspace / "age-0002" / "fold-0" / "checkpoint.safetensors").write_bytes(b"left behind")
    done = train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1"))
    assert "age-0002 is now the current age run (was age-0001)." in done.err
    assert not (workspace / "age-0003").exists()


def test_a_single_split_does_not_push_out_a_whole_run(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "age", "--valid-only", *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "age-0002 covers people of fold 0 of 3: age-0001 stays the current age run" in done.err


def test_a_fold_that_the_base_lacks_joins_it(orch: Orch, people: Path, tmp_path: Path) -> None:
    runs = tmp_path / "one"
    assert train(orch, people, runs, "train-all", "--valid-only", *tiny("epochs=1")).code == 0
    done = train(orch, people, runs, "train", "age", "--fold", 1)
    assert done.code == 0, done.err
    record = json.loads((runs / "age-0002" / "run.json").read_text())
    assert (record["folds"], record["retrained"]) == ([0, 1], [1])
    assert (runs / "age-0002" / "fold-1" / "member.json").exists()


def test_a_killed_first_command_does_not_block_the_next(orch: Orch, people: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".workspace.json.x.tmp").write_text("{")
    assert train(orch, people, tmp_path / "runs", "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0


def test_changed_held_out_tables_are_refused(orch: Orch, workspace: Path) -> None:
    path = workspace / "age-0001" / "fold-1" / "held_out.parquet"
    table = pd.read_parquet(path)
    table["p(<30)"] = 1.0
    table.to_parquet(path)
    assert "not the file that was written (sha256 differs)" in orch("ensemble", "-w", workspace).err
    assert "write TASK=RUN" in orch("ensemble", "-w", workspace, "--members", "age=").err


def test_a_missing_eval_photo_is_a_marked_row_too(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    orch("ensemble", "-w", workspace)
    copy = tmp_path / "eval"
    shutil.copytree(people / "eval", copy)
    names = list(pd.read_csv(copy / "info.csv")["ImageID"])
    (copy / "images" / names[0]).unlink()
    (copy / "images" / names[-1]).write_bytes(b"")
    out = tmp_path / "s.csv"
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace, "--on-error", "mark", "--batch", 8)
    assert done.code == 0, done.err
    rows = out.read_text().splitlines()
    assert (rows[1], rows[-1]) == (f"{names[0]},", f"{names[-1]},")
    done = orch("predict", *(copy / "images").iterdir(), "-w", workspace, "--batch", 8)
    assert done.code == 2
    assert "1 of 27 photos cannot be read" in done.err


def test_brackets_in_names_are_printed_as_they_are(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orch("ensemble", "-w", workspace)
    photo = tmp_path / "IMG[copy][b].jpg"
    monkeypatch.chdir(tmp_path)  # a short name is not folded
    shutil.copy(next((people / "eval" / "images").iterdir()), photo)
    assert "IMG[copy][b].jpg" in orch("predict", photo.name, "-w", workspace).out


def test_the_demo_deletes_nothing_that_it_did_not_make(orch: Orch, tmp_path: Path) -> None:
    (tmp_path / "people" / "train").mkdir(parents=True)
    (tmp_path / "people" / "train" / "train.csv").write_text("mine")
    for words in ([], ["--fresh"]):
        done = orch("demo", "--out", tmp_path, *words)
        assert done.code == 2
        assert "holds files that no demo has made" in done.err
    assert (tmp_path / "people" / "train" / "train.csv").read_text() == "mine"


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--plan-seed", str(2**32)]])
def test_seeds_have_a_range(orch: Orch, people: Path, tmp_path: Path, words: list[str]) -> None:
    done = orch("train-all", "--data", people / "train", "-w", tmp_path / "runs", *words)
    assert done.code == 2
    assert not (tmp_path / "runs").exists()


def test_several_wrong_inputs_are_told_at_once_and_leave_nothing(orch: Orch, tmp_path: Path) -> None:
    done = orch(
        "train-all", "--data", tmp_path / "nowhere", "-w", tmp_path / "runs", "--device", "tpu", "--set", "foo=1",
        "--set", "age.augment=3", "--set", "age.augment.flip=1",
    )  # fmt: skip
    assert done.code == 2
    assert done.err.count("--set foo=1: unknown key 'foo'") == 1
    assert "another --set made 'augment' a plain value" in done.err
    assert "--device tpu" in done.err
    assert "no such folder or table" in done.err
    assert not (tmp_path / "runs").exists()
    done = orch("train-all", "--data", tmp_path, "--set", "mask.backbone=resnt", "--set", "age.backbone=resnet18.x")
    assert "mask: backbone = 'resnt'" in done.err
    assert "age: backbone = 'resnet18.x'" in done.err

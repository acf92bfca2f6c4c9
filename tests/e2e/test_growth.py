"""Data that grows: corrected labels, new people and people who left, through the commands that a user would give."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.artifacts.origins import plan_of, table_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.labels import CLASSES
from tests.conftest import Done, commands_in, tiny

Orch = Callable[..., Done]


def edited(people: Path, to: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A copy of the training people with another table."""
    shutil.copytree(people / "train", to)
    table = pd.read_csv(to / "train.csv", dtype=str)
    change(table).to_csv(to / "train.csv", index=False)
    return to


def with_others(people: Path, others: Path, to: Path) -> Path:
    """The training people, and six others under new ids."""
    more = pd.read_csv(others.parent / "train/train.csv", dtype=str)
    grown = edited(
        people, to, lambda table: pd.concat([table, more.assign(id="9" + more["id"], path="9" + more["path"])])
    )
    for folder in more["path"]:
        shutil.copytree(others.parent / "train/images" / folder, grown / "images" / f"9{folder}")
    return grown


def folds_of(workspace: Path, run: str) -> dict[str, int]:
    opened = Workspace(workspace)
    return dict(plan_of(opened, opened.run(run)).fold_of)


def run_next(orch: Orch, done: Done) -> Done:
    """What a command says to do next, done."""
    (words,) = re.findall(r"^next: (orch ensemble.*)$", done.err + done.out, re.MULTILINE)
    return orch(*shlex.split(words)[1:])


def test_a_corrected_age_moves_nobody_and_is_all_that_is_trained_again(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    before = folds_of(workspace, "age-0001")
    corrected = edited(
        people, tmp_path / "corrected",
        lambda table: table.assign(age=[str(75 - int(age)) if row < 4 else age for row, age in enumerate(table["age"])]),
    )  # fmt: skip
    done = orch("train-all", "--data", corrected, "-w", workspace, "--folds", 3, "--jobs", 1, *tiny())
    assert done.code == 0, done.err
    assert "mask-0001 is complete already" in done.err
    assert "gender-0001 is complete already" in done.err
    assert "age-0002 is now the current age run" in done.err
    assert folds_of(workspace, "age-0002") == before  # across age borders too
    assert run_next(orch, done).code == 0
    record = json.loads((workspace / "soft-0001/ensemble.json").read_bytes())
    assert "outdated_labels" not in record  # mask and gender have learned from labels that are still right
    done = orch("ensemble", "--members", "age=age-0001", "-w", workspace)
    assert done.code == 0, done.err
    record = json.loads((workspace / "soft-0002/ensemble.json").read_bytes())
    tables = [table_of(Workspace(workspace), Workspace(workspace).run(f"age-000{n}"))["age"] for n in (1, 2)]
    bands = [np.digitize(ages, [30, 60]) for ages in tables]
    wrong = int((bands[0] != bands[1]).sum())
    assert wrong >= 7
    assert record["outdated_labels"] == {"age-0001": wrong}
    assert f"age-0001 learned from older labels: {wrong} of 168 photos have another one now" in done.out
    answers = pd.read_parquet(workspace / "soft-0002/out_of_fold.parquet").sort_values("path")
    assert (answers["age_truth"].to_numpy() == bands[1]).all()


def test_people_who_join_are_dealt_out_and_scored_by_all_members_of_older_runs(
    orch: Orch, people: Path, others: Path, workspace: Path, tmp_path: Path
) -> None:
    before = folds_of(workspace, "mask-0001")
    grown = with_others(people, others, tmp_path / "grown")
    done = orch("train", "age", "--data", grown, "-w", workspace, "--jobs", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    assert "6 new people were dealt out to the folds of plan" in done.err
    opened = Workspace(workspace)
    assert opened.run("age-0002").data_read > opened.run("mask-0001").data_read
    after = folds_of(workspace, "age-0002")
    assert {person: after[person] for person in before} == before
    assert len(after) == len(before) + 6
    answered = run_next(orch, done)
    assert answered.code == 0, answered.err
    assert "answering for photos that joined the data later, or were given another name (42 photos)" in answered.err
    record = json.loads((workspace / "soft-0001/ensemble.json").read_bytes())
    assert record["later_people"] == {"mask-0001": 6, "gender-0001": 6}
    assert record["evaluation"]["label"]["people"] == 30
    assert "mask-0001 was trained before 6 of these 30 people joined: all its members answer for them" in answered.out
    shutil.rmtree(grown)  # what was answered once is kept
    assert orch("ensemble", "-w", workspace).code == 0
    again = json.loads((workspace / "soft-0002/ensemble.json").read_bytes())
    assert again["evaluation"] == record["evaluation"]
    shutil.rmtree(workspace / "cache/later")
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "orch ensemble --data DIR" in done.err
    assert orch("predict", next((people / "eval/images").iterdir()), "-w", workspace).code == 0


def test_answers_for_people_who_joined_are_those_of_the_members_themselves(
    orch: Orch, people: Path, others: Path, workspace: Path, tmp_path: Path
) -> None:
    grown = with_others(people, others, tmp_path / "grown")
    assert orch("train", "age", "--data", grown, "-w", workspace, "--jobs", 1, *tiny("epochs=1")).code == 0
    assert orch("ensemble", "-w", workspace).code == 0
    table = pd.read_parquet(workspace / "soft-0001/out_of_fold.parquet")
    late = table[~table["person"].isin(folds_of(workspace, "mask-0001"))].sort_values("path")
    assert len(late) == 42
    probabilities = tmp_path / "p.parquet"
    photos = [grown / path for path in late["path"]]
    done = orch("predict", *photos, "-w", workspace, "--probabilities", probabilities)
    assert done.code == 0, done.err
    predicted = pd.read_parquet(probabilities)
    for task in ("mask", "gender"):  # age has learned from them
        columns = [column for column in predicted if str(column).startswith(f"p({task} ")]
        assert len(columns) == len(CLASSES[task])
        assert late[columns].to_numpy() == pytest.approx(predicted[columns].to_numpy(), abs=1e-5)


def test_whoever_leaves_stays_known_and_a_new_plan_begins_anew(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    fewer = edited(
        people, tmp_path / "fewer", lambda table: table.drop(index=table[table["age"].astype(int) < 30].index[:2])
    )
    words = ("train", "age", "--data", fewer, "-w", workspace, "--jobs", 1, *tiny("epochs=1"))
    done = orch(*words)
    assert done.code == 0, done.err
    assert "2 people of the plan are not here" in done.err
    assert folds_of(workspace, "age-0002") == folds_of(workspace, "age-0001")
    assert run_next(orch, done).code == 0
    record = json.loads((workspace / "soft-0001/ensemble.json").read_bytes())
    assert record["evaluation"]["label"]["people"] == 22
    assert "later_people" not in record
    done = orch(*words, "--new-plan")
    assert done.code == 0, done.err
    assert len(folds_of(workspace, "age-0003")) == 22
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "the runs follow different fold plans" in done.err
    assert "--new-plan" in orch(*words, "--new-plan", "--fold", 0).err


def test_a_plan_that_is_lost_is_made_again_or_asked_for(
    orch: Orch, people: Path, others: Path, workspace: Path, tmp_path: Path
) -> None:
    grown = with_others(people, others, tmp_path / "grown")
    words = ("train", "age", "--data", grown, "-w", workspace, "--jobs", 1, *tiny("epochs=1"))
    assert orch(*words).code == 0
    drawn, extended = (Workspace(workspace).run(f"age-000{n}").plan_digest[:12] for n in (1, 2))
    (workspace / "plans" / f"{extended}.json").unlink()
    done = orch(*words, "--seed", 1)  # the plan that it extends is there
    assert done.code == 0, done.err
    assert Workspace(workspace).run("age-0003").plan_digest[:12] == extended
    (workspace / "plans" / f"{extended}.json").write_text("{")
    (workspace / "plans" / f"{drawn}.json").unlink()
    done = orch(*words, "--seed", 2)
    assert done.code == 2
    assert f"plans/{extended}.json" in done.err or f"plans/{drawn}.json" in done.err
    assert "--new-plan draws another" in done.err
    done = orch(
        "train", "age", "--data", people / "train", "-w", workspace, "--jobs", 1, "--new-plan", *tiny("epochs=1")
    )
    assert done.code == 0, done.err
    assert (workspace / "plans" / f"{drawn}.json").is_file()  # drawn from the same people again


def test_lost_plans_are_put_together_from_the_answers_that_followed_them(
    orch: Orch, people: Path, others: Path, workspace: Path, tmp_path: Path
) -> None:
    grown = with_others(people, others, tmp_path / "grown")
    assert orch("train", "age", "--data", grown, "-w", workspace, "--jobs", 1, *tiny("epochs=1")).code == 0
    plans = {path: path.read_bytes() for path in (workspace / "plans").glob("*.json")}
    assert len(plans) == 2
    before = {run: folds_of(workspace, run) for run in ("mask-0001", "age-0002")}
    for path in plans:
        path.unlink()
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    (repair,) = set(commands_in(done.err))
    assert orch(*shlex.split(repair)[1:]).code == 0
    assert {run: folds_of(workspace, run) for run in before} == before
    assert orch("ensemble", "-w", workspace).code == 0


def test_a_copy_with_views_does_not_make_its_data_the_newest(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    corrected = edited(
        people, tmp_path / "corrected", lambda table: table.assign(age=[str(75 - int(age)) for age in table["age"]])
    )
    assert orch("train", "age", "--data", corrected, "-w", workspace, "--jobs", 1, *tiny("epochs=1")).code == 0
    assert orch("tta", "mask-0001", "--views", "flip", "--keep", "--data", people / "train", "-w", workspace).code == 0
    done = orch("ensemble", "-w", workspace)
    assert done.code == 0, done.err
    assert "learned from older labels" not in done.out
    truth = pd.read_parquet(workspace / "soft-0001/out_of_fold.parquet").sort_values("path")["age_truth"]
    ages = table_of(Workspace(workspace), Workspace(workspace).run("age-0002")).sort_values("path")["age"]
    assert (truth.to_numpy() == np.digitize(ages, [30, 60])).all()


def test_people_who_were_extra_photos_before_are_judged_by_nobody_that_learned_from_them(
    orch: Orch, people: Path, others: Path, workspace: Path, tmp_path: Path
) -> None:
    grown = with_others(people, others, tmp_path / "grown")
    table = pd.read_csv(grown / "train.csv", dtype=str)
    someone = table.iloc[-1]
    extra = tmp_path / "extra.csv"
    photo = people / "eval/images" / next((people / "eval/images").iterdir()).name
    extra.write_text(f"path,person,gender\n{photo},{someone['id']},{someone['gender']}\n")
    words = ("-w", workspace, "--jobs", 1, *tiny("epochs=1"))
    assert orch("train", "gender", "--data", people / "train", "--extra", extra, *words).code == 0
    assert orch("train", "age", "--data", grown, *words).code == 0
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "gender-0002 cannot be scored on 7 photos of the newest data" in done.err
    assert someone["id"] in done.err
    assert orch("ensemble", "--members", "gender=gender-0001", "-w", workspace).code == 0
    listed = json.loads(orch("runs", "list", "--where", f"person={someone['id']}", "--json", "-w", workspace).out)
    assert {run["id"] for run in listed} == {"gender-0002", "age-0002"}


def test_renamed_folders_are_answered_by_whoever_held_their_people_out(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    """All photos of a fold: none of its member's own answers is left."""
    fold_of = folds_of(workspace, "mask-0001")
    moved = [person for person, fold in fold_of.items() if fold == 0]
    renamed = edited(
        people, tmp_path / "renamed",
        lambda table: table.assign(path=table["path"].where(~table["id"].isin(moved), "z" + table["path"])),
    )  # fmt: skip
    for folder in pd.read_csv(renamed / "train.csv", dtype=str)["path"]:
        if folder.startswith("z"):
            (renamed / "images" / folder[1:]).rename(renamed / "images" / folder)
    assert orch("train", "age", "--data", renamed, "-w", workspace, "--jobs", 1, *tiny("epochs=1")).code == 0
    done = orch("ensemble", "-w", workspace)
    assert done.code == 0, done.err
    record = json.loads((workspace / "soft-0001/ensemble.json").read_bytes())
    assert record["evaluation"]["label"]["photos"] == 168
    assert "later_people" not in record
    assert [entry["fold"] for entry in record["single"]["mask"]] == [None, 1, 2]


def test_people_who_lost_their_zeros_are_not_dealt_out_again(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    respelt = edited(people, tmp_path / "respelt", lambda table: table.assign(id=table["id"].str.lstrip("0")))
    words = ("train", "age", "--data", respelt, "-w", workspace, "--jobs", 1, *tiny("epochs=1"))
    done = orch(*words)
    assert done.code == 2
    assert "24 people may have a fold under another spelling" in done.err
    assert "person '1' is spelt almost as '000001'" in done.err
    assert commands_in(done.err) == []
    assert not (workspace / "age-0002").exists()
    assert orch(*words, "--distinct-people").code == 0

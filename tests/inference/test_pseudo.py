"""Pseudo-labels come from the members that hold a fold out, and leak nothing."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.labels import CLASSES, TASKS
from tests.conftest import Done, hashes, member_files, tiny, train

Orch = Callable[..., Done]


def test_pseudo_labels_come_from_the_folds_own_members_and_train_them_alone(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    out = tmp_path / "pseudo.parquet"
    done = orch("pseudo", "--eval", people / "eval", "--out", out, "--threshold", 0.5, "-w", workspace, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    table = pd.read_parquet(out)
    assert report["rows"] == len(table) <= 3 * report["photos"]
    record = RunRecord.load(workspace / "age-0001")
    assert record.plan is not None
    assert set(table["plan"]) == {record.plan.digest[:12]}
    # By hand: the labels of fold 1 are those of the single members that hold fold 1 out.
    from orchestrator.data.preprocessing import decode
    from orchestrator.inference.engines import torch_runners
    from orchestrator.inference.member import load_members
    from orchestrator.inference.shared_backbone import unshared

    for task in TASKS:
        members = load_members(member_files(workspace, f"{task}-0001", 1))
        (runner,) = torch_runners([unshared(members[0])], "cpu")
        part = table[table["fold"] == 1].head(8)
        for row in part.itertuples():
            pixels = members[0].preprocess.geometry.apply(decode(Path(row.path)))[None]
            answer = runner(pixels)[0]
            word = getattr(row, task)
            assert word == (CLASSES[task][int(answer.argmax())] if answer.max() >= 0.5 else "")
    before = hashes(workspace / "gender-0001")
    done = train(orch, people, workspace, "train", "gender", *tiny(), "--extra", out)
    assert done.code == 0, done.err
    known = table[table["gender"] != ""]
    assert f"gender: {known['path'].nunique()} extra photos with {len(known)} labels join training" in done.err
    new = RunRecord.load(workspace / "gender-0002")
    assert new.data.extra.photos == len(table)
    assert new.data.fingerprint == RunRecord.load(workspace / "gender-0001").data.fingerprint
    assert new.data.photo_set == record.data.photo_set
    assert hashes(workspace / "gender-0001") == before
    for fold in range(3):
        card = json.loads((workspace / f"gender-0002/fold-{fold}/member.json").read_text())
        assert card["train"]["extra"] == int(((table["fold"] == fold) & (table["gender"] != "")).sum())
        held = pd.read_parquet(workspace / f"gender-0002/fold-{fold}/held_out.parquet")
        assert not set(held["path"]) & set(table["path"])
    assert orch("ensemble", "-w", workspace).code == 0
    again = train(orch, people, workspace, "train", "gender", *tiny(), "--extra", out)
    assert "gender-0002 has it already" in again.err
    done = train(orch, people, workspace, "train", "gender", "--fold", 1, "--seed", 3)
    assert done.code == 2
    assert "trained with other extra photos" in done.err


def test_what_cannot_label_by_folds_is_told_with_a_command_that_can(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("pseudo", "--eval", people / "eval", "--out", tmp_path / "p.csv", "--threshold", 0.5, "-w", workspace)
    assert orch("ensemble", "-w", workspace, "--no-score").code == 0
    assert orch(*words).code == 0  # folds are what it takes, and no score
    table = tmp_path / "old table.csv"
    assert orch("predict", "--eval", people / "eval", "-w", workspace, "--out", table).code == 0
    assert orch("ensemble", "-w", workspace, "--with", table).code == 0

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a member was loaded")

    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.inference.opening.load_members", load)
        done = orch(*words)
    assert done.code == 2
    assert "external tables have no folds" in done.err
    command = re.search(r"`orch ([^`]*)`", done.err)
    assert command
    assert orch(*shlex.split(command[1])).code == 0
    assert orch(*words).code == 0
    everybody = (
        "train",
        "age",
        *tiny("epochs=1"),
        "--data",
        people / "train",
        "-w",
        workspace,
        "--folds",
        0,
        "--jobs",
        1,
    )
    assert orch(*everybody).code == 0
    made = orch("ensemble", "-w", workspace, "--no-score", "--members", "age=age-0002", "--json")
    done = orch(*words, "--ensemble", json.loads(made.out)["id"])
    assert done.code == 2
    assert (
        "age-0002 learned from everybody (--folds 0). Train by folds: `orch train age --data DIR --folds 3 " in done.err
    )


def test_a_run_of_some_folds_labels_those_alone(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    words = ("--folds-used", 1, "--seed", 3, *tiny("epochs=1"))
    assert train(orch, people, workspace, "train", "mask", *words).code == 0
    assert orch("ensemble", "--members", "mask=mask-0002", "--no-score", "-w", workspace).code == 0
    out = tmp_path / "pseudo.csv"
    images = people / "eval/images"
    done = orch("pseudo", images, "--ensemble", "soft-0001", "--threshold", 0.5, "--out", out, "-w", workspace)
    assert done.code == 0, done.err
    table = pd.read_csv(out)
    others = table[table["fold"] > 0]
    assert len(others)
    assert others["mask"].isna().all()
    assert (others["p(mask)"] == 0).all()

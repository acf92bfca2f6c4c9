"""An ensemble that has lost its record or a table is reported with the command that makes it again."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import precision_recall_fscore_support

from orchestrator.artifacts.ensembles import ENSEMBLE, EnsembleRecord
from orchestrator.core.errors import DamagedError
from tests.conftest import Done, edit_sealed

Orch = Callable[..., Done]


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
    assert [answer["probabilities"] for answer in after] == [answer["probabilities"] for answer in before]


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
        (tmp_path / "old 2.csv").unlink()  # its copy is intact
    done = orch("predict", people / "eval/images", "-w", workspace)
    assert done.code == 2
    (again,) = re.findall(r"build it again: `(orch ensemble[^`]+)`", done.err)
    assert ("without old 1.csv, of which no copy is left" in done.err) is (left == "nothing")
    built = orch(*shlex.split(again)[1:], "--json")
    assert built.code == 0, built.err
    assert len(json.loads(built.out)["external"]) == (2 if left == "source" else 1)


def test_a_record_reads_as_it_was_written_and_other_shapes_are_named(orch: Orch, three_runs: Path) -> None:
    members = ("--members", "age=age-0001,age-0002")
    assert orch("ensemble", *members, "-w", three_runs).code == 0
    folder = three_runs / "soft-0001"
    record = EnsembleRecord.load(folder, "")
    assert record.evaluation
    assert json.loads(json.dumps(record.as_json())) == {
        name: value
        for name, value in json.loads((folder / ENSEMBLE).read_text()).items()
        if name not in ("kind", "id", "format", "digest")
    }
    label, age = record.evaluation["label"], record.evaluation["age"]
    assert sum(map(sum, label.confusion)) == label.photos == age.photos == 168
    assert label.intervals["macro_f1"].low <= label.macro_f1 <= label.intervals["macro_f1"].high
    table = pd.read_parquet(folder / "out_of_fold.parquet")
    by_class = precision_recall_fscore_support(table["age_truth"], table["age"], labels=range(3), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "photos"), by_class, strict=True):
        assert [getattr(scores, name) for scores in age.classes.values()] == pytest.approx(list(values))
    assert {voter.run for voter in record.single["age"]} == {"age-0001", "age-0002"}
    assert set(record.added_by) == {"age-0001", "age-0002"}
    whole = json.loads((folder / ENSEMBLE).read_text())
    for name, value in (
        ("evaluation", {"label": {}}), ("evaluation", []), ("single", {"age": [{"run": "x"}]}), ("single", 3),
        ("added_by", {"x": {"macro_f1": 0, "interval_95": [1]}}),
        ("evaluation", {**whole["evaluation"], "age": {**whole["evaluation"]["age"], "more": 1}}),
    ):  # fmt: skip
        edit_sealed(folder / ENSEMBLE, **{**whole, name: value})
        with pytest.raises(DamagedError, match="not the record of an ensemble"):
            EnsembleRecord.load(folder, "")
    edit_sealed(folder / ENSEMBLE, **{**whole, "labels": whole["labels"][::-1]})
    with pytest.raises(DamagedError, match="of other classes than this version's"):
        EnsembleRecord.load(folder, "")


def test_a_combiner_that_this_version_does_not_know_is_named(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    record = workspace / "soft-0001" / ENSEMBLE
    edit_sealed(record, strategy="stacked")
    predict = ("predict", people / "eval/images", "-w", workspace)
    for command in (predict, (*predict, "--cascade"), ("workspace", "check", "-w", workspace)):
        done = orch(*command)
        assert done.code in (1, 2), done.err
        assert (
            "combined in a way that this version of orch does not know: --strategy stacked; allowed: soft, hard"
            in done.err + done.out
        )
        assert "Use the version that built it." in done.err + done.out

"""Slices count every photo where it belongs, and hide none for being small."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import api
from orchestrator.core.errors import ConfigError, DataError
from orchestrator.core.interval import share_interval
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.core.metrics import macro_f1
from orchestrator.data.further import column_of
from orchestrator.data.readers import read
from orchestrator.ensembling.slices import GROUPINGS, slices_of
from tests.conftest import Done

Orch = Callable[..., Done]


def drawn(photos: int, seed: int) -> tuple[pd.Series, dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    persons = pd.Series([f"p{number}" for number in rng.integers(0, max(1, photos // 3), photos)])
    truth, choice = ({task: rng.integers(0, len(CLASSES[task]), photos) for task in TASKS} for _ in range(2))
    return persons, truth, choice


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_every_photo_is_in_one_slice_of_each_grouping_and_counted_rightly(photos: int, seed: int) -> None:
    persons, truth, choice = drawn(photos, seed)
    race = [f"race {number % 2}" for number in range(photos)]
    slices = slices_of(persons, truth, choice, {"race": race})
    for task in TASKS:
        right = truth[task] == choice[task]
        for names in ((), *GROUPINGS, ("race",)):
            parts = [part for part in slices if part.task == task and tuple(part.by) == names]
            assert sum(part.photos for part in parts) == photos
            assert sum(part.photos * part.accuracy for part in parts) == pytest.approx(right.sum())
            for part in parts:
                rows = np.logical_and.reduce([np.ones(photos, bool), *[
                    np.array(race if name == "race" else [CLASSES[name][code] for code in truth[name]]) == value
                    for name, value in part.by.items()
                ]])  # fmt: skip
                assert part.photos == rows.sum() > 0
                assert part.people == persons[rows].nunique()
                assert part.accuracy == pytest.approx(right[rows].mean())
                assert part.interval == share_interval(part.accuracy, part.people)
                if len(set(truth[task][rows])) < len(CLASSES[task]):
                    assert part.macro_f1 is None
                else:
                    assert part.macro_f1 == macro_f1(truth[task][rows], choice[task][rows], len(CLASSES[task]))
    accuracies = [part.accuracy for part in slices]
    assert accuracies == sorted(accuracies)


def test_tasks_without_a_truth_divide_nothing() -> None:
    persons, truth, choice = drawn(30, 1)
    slices = slices_of(persons, {"mask": truth["mask"]}, choice)
    assert {part.task for part in slices} == {"mask"}
    assert {tuple(part.by) for part in slices} == {(), ("mask",)}


def test_slices_of_an_ensemble_are_of_its_out_of_fold_answers(orch: Orch, people: Path, workspace: Path) -> None:
    api.ensemble(workspace=workspace)
    result = api.slices(workspace=workspace, by=["race"])
    table = pd.read_parquet(workspace / "soft-0001/out_of_fold.parquet")
    old = table[table["age_truth"] == CLASSES["age"].index(">=60")]
    (part,) = [part for part in result.slices if part.task == "age" and dict(part.by) == {"age": ">=60"}]
    assert (part.photos, part.people) == (len(old), old["person"].nunique())
    assert part.accuracy == pytest.approx((old["age"] == old["age_truth"]).mean())
    assert sum(part.photos for part in result.slices if part.task == "mask" and tuple(part.by) == ("race",)) == 168
    done = orch("ensembles", "slices", "-w", workspace, "--tasks", "age")
    assert done.code == 0, done.err
    assert "soft-0001, out of fold: age, the worst first" in done.out
    assert "soft-0001, out of fold: mask" not in done.out
    assert len([line for line in done.out.splitlines() if ", >=60, " in line]) == 6
    shown = json.loads(orch("ensembles", "slices", "-w", workspace, "--json").out)
    assert shown["kind"] == "out-of-fold"
    assert len(shown["slices"]) == 3 * (1 + 3 + 2 + 3 + 18)
    done = orch("ensembles", "slices", "-w", workspace, "--by", "rase")
    assert (done.code, "has no such column" in done.err, "Did you mean 'race'?" in done.err) == (2, True, True)
    assert orch("ensembles", "slices", "-w", workspace, "--tasks", "ages").code == 2
    assert orch("ensemble", "--no-score", "-w", workspace).code == 0
    assert "soft-0002 has no score" in orch("ensembles", "slices", "soft-0002", "-w", workspace).err


def test_a_further_column_is_read_for_each_photo_of_any_layout(people: Path, tmp_path: Path) -> None:
    photos = read(people / "train")
    paths = photos.table["path"].tolist()
    train = pd.read_csv(people / "train/train.csv", dtype=str)
    train["team"] = [f"team {number % 3}" for number in range(len(train))]
    copy = tmp_path / "train"
    copy.mkdir()
    (copy / "images").symlink_to(people / "train/images")
    train.to_csv(copy / "train.csv", index=False)
    team_of = dict(zip(train["path"], train["team"], strict=True))
    expected = [team_of[path.split("/")[1]] for path in paths]
    assert column_of(copy, "team", paths) == expected
    assert column_of(copy / "train.csv", "team", paths) == expected
    manifest = tmp_path / "photos.csv"
    table = photos.table.assign(path=[str(path) for path in photos.paths], team=expected).rename(
        columns={"path": "file"}
    )
    table.loc[0, "team"] = " "
    table.sample(frac=1, random_state=0).to_csv(manifest, index=False)
    own = read(manifest, {"path": "file"})
    values = column_of(manifest, "team", own.table["path"].tolist(), {"path": "file"})
    assert sorted(values) == sorted(["(empty)", *expected[1:]])
    assert values[own.table["path"].tolist().index(table["file"].iloc[1])] == expected[1]
    with pytest.raises(ConfigError, match=r"--by tem: .*photos\.csv has no such column.*Did you mean 'team'"):
        column_of(manifest, "tem", [], {"path": "file"})
    with pytest.raises(DataError, match="names no row for 1 photo, images/nobody/normal.jpg among them"):
        column_of(copy, "team", ["images/nobody/normal.jpg"])

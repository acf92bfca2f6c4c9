"""Classes that nobody holds, or too few people: reported before any work."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.labels import CLASSES
from orchestrator.data.classes import check_classes
from orchestrator.data.folds import FoldPlan
from orchestrator.data.photos import Photos
from tests.conftest import Done, tiny

Row = tuple[str, str, str, float]  # person, mask, gender, age


def photos_of(rows: list[Row]) -> Photos:
    table = pd.DataFrame(rows, columns=["person", "mask", "gender", "age"])
    table.insert(0, "path", [f"{number:03d}.jpg" for number in range(len(rows))])
    return Photos(Path("data"), table, "manifest")


def plan_of(**fold_of: int) -> FoldPlan:
    return FoldPlan(1 + max(fold_of.values()), 0, fold_of, ())


def kinds(photos: Photos, plan: FoldPlan | None, *tasks: str, extra: bool = False) -> list[tuple[str, bool]]:
    return [(problem.kind, problem.fatal) for problem in check_classes(photos, tasks or tuple(CLASSES), plan, extra)]


def test_a_class_that_nobody_holds_and_one_that_a_single_person_holds() -> None:
    rows: list[Row] = [
        ("a", "wear", "male", 20),
        ("b", "wear", "female", 40),
        ("a", "incorrect", "male", 20),
        ("b", "wear", "female", 40),
    ]
    problems = check_classes(photos_of(rows), ["mask", "gender", "age"], plan_of(a=0, b=1))
    messages = [str(problem) for problem in problems]
    assert any(
        "mask: no photo is 'not_wear', so it is never learned here, and counts as 0 in macro F1" in message
        for message in messages
    )
    assert any(
        "mask: only one person, a, has 'incorrect': the member of fold 0 trains without it" in message
        for message in messages
    )
    assert any("age: no photo is '>=60'" in message for message in messages)
    assert any("learns from a single person" in message for message in messages)
    assert not any(problem.fatal for problem in problems)
    messages = [str(problem) for problem in check_classes(photos_of(rows), ["mask"], None)]
    assert [message.split(": ", 1)[1] for message in messages] == [
        "mask: only one person, a, has 'incorrect'.",
        "mask: no photo is 'not_wear', so it is never learned here, and counts as 0 in macro F1.",
    ]


def test_a_single_class_is_an_error_but_where_photos_from_elsewhere_join() -> None:
    rows: list[Row] = [(name, "wear", "male", 20) for name in "abcd"]
    plan = plan_of(a=0, b=1, c=0, d=1)
    assert kinds(photos_of(rows), plan, "gender") == [("single_class", True)]
    assert kinds(photos_of(rows), plan, "gender", extra=True) == [("single_class", False)]
    assert kinds(photos_of(rows), plan, "joint") == [("single_class", True)] * 3
    (problem,) = check_classes(photos_of(rows), ["gender"], plan)
    assert "every photo is 'male', so there is nothing to tell apart. Add photos of female, or leave gender out" in str(
        problem
    )


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)), min_size=1, max_size=12), st.integers(2, 3))
def test_notes_name_exactly_the_folds_that_train_without_a_class(pairs: list[tuple[str, int]], k: int) -> None:
    """Against the plain rule: a fold's member trains without a class that the data has."""
    rows: list[Row] = [(person, CLASSES["mask"][code], "male", 20.0) for person, code in pairs]
    plan = FoldPlan(
        k, 0, {person: number % k for number, person in enumerate(sorted({person for person, _ in pairs}))}, ()
    )
    messages = {str(problem) for problem in check_classes(photos_of(rows), ["mask"], plan)}
    table = photos_of(rows).table
    fold = plan.folds(table["person"])
    for name in CLASSES["mask"]:
        without = [
            held_out
            for held_out in range(k)
            if (table["mask"] == name).any() and not ((table["mask"] == name) & (fold != held_out)).any()
        ]
        named = [message for message in messages if f" has '{name}'" in message or f" have '{name}'" in message]
        if table["mask"].nunique() == 1:
            assert any("there is nothing to tell apart" in message for message in messages)
        elif without:
            assert len(named) == 1
            assert f"fold {without[0]}" in named[0]
        else:
            assert not named
        absent = any(f"no photo is '{name}'" in message for message in messages)
        assert absent == (not (table["mask"] == name).any() and table["mask"].nunique() > 1)


def test_the_synthetic_people_lack_nothing(people: Path) -> None:
    from orchestrator.data.folds import plan_folds
    from orchestrator.data.readers import read

    photos = read(people / "train")
    assert kinds(photos, plan_folds(photos.people, 3, 0)) == []
    assert kinds(photos, None) == []


@pytest.mark.parametrize("folds", [0, 2])
def test_check_and_training_say_it_before_any_work(
    orch: Callable[..., Done], people: Path, tmp_path: Path, folds: int
) -> None:
    table = pd.read_csv(people / "train/train.csv", dtype=str)
    rows = []
    for number, row in enumerate(table.itertuples(index=False)):
        for stem, mask in (("mask1", "wear"), ("incorrect_mask", "incorrect"), ("normal", "not_wear")):
            file = next((people / "train/images" / row.path).glob(f"{stem}.*"))
            if mask != "incorrect" or number == 3:
                rows.append((str(file), row.id, "male", mask))
    frame = pd.DataFrame(rows, columns=["path", "person", "gender", "mask"])
    frame.to_csv(tmp_path / "m.csv", index=False)
    words = ("--data", tmp_path / "m.csv", "--folds", folds)
    done = orch("data", "check", *words, "--tasks", "mask")
    assert done.code == 0, done.out
    lone = f"mask: only one person, {table['id'][3]}, has 'incorrect'"
    assert lone in done.out
    done = orch("data", "check", *words, "--tasks", "gender,mask")
    assert done.code == 1
    single = "gender: every photo is 'male', so there is nothing to tell apart"
    assert single in done.out
    runs = ("--workspace", tmp_path / "runs", "--jobs", 1, *tiny("epochs=1"))
    done = orch("train-all", *words, *runs, "--tasks", "gender,mask")
    assert done.code == 2
    assert single in done.err
    assert not (tmp_path / "runs").exists()
    done = orch("train-all", *words, *runs, "--tasks", "mask")
    assert done.code == 0, done.err
    assert lone in done.err
    assert np.isin(frame["mask"], CLASSES["mask"]).all()

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.answers import Answers, Voter

CLASSES = {"mask": 3, "gender": 2}


def drawn(photos: int, folds: int, seed: int = 0) -> Answers:
    """A run of each task, its members by folds, and a table that knows half of the photos."""
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, classes in CLASSES.items():
        for fold in range(folds):
            voters.append(Voter(task, f"{task}-0001", fold))
            arrays.append(rng.dirichlet(np.ones(classes), photos).astype(np.float32))
    voters.append(Voter("mask", "old.csv", weight=float(folds), external=True))
    arrays.append(np.where(np.arange(photos)[:, None] % 2, rng.dirichlet(np.ones(3), photos), 0).astype(np.float32))
    return Answers(CLASSES, photos, tuple(voters), tuple(arrays))


@given(st.integers(0, 20), st.integers(1, 4), st.data())
def test_stretches_and_parts_put_together_are_the_whole(photos: int, folds: int, data: st.DataObject) -> None:
    answers = drawn(photos, folds)
    cut = data.draw(st.integers(0, photos))
    again = Answers.stacked([answers.take(slice(cut)), answers.take(slice(cut, None))])
    assert len(again) == photos
    assert again.voters == answers.voters
    for array, other in zip(again.probabilities, answers.probabilities, strict=True):
        assert np.array_equal(array, other)
    mask = np.arange(photos) < cut
    for rows in (mask, np.flatnonzero(mask)):
        assert len(answers.take(rows)) == cut
        assert np.array_equal(answers.take(rows).probabilities[0], answers.probabilities[0][:cut])
    members, tables = (
        answers.where(lambda voter, external=external: voter.external is external) for external in (False, True)
    )
    both = members.with_voters(tables)
    assert (both.voters, len(members.voters), len(tables.voters)) == (answers.voters, 2 * folds, 1)


def test_who_answers_is_told_by_name_and_not_by_place() -> None:
    answers = drawn(6, 2)
    assert [voter.name for voter in answers.of("mask").voters] == ["mask-0001/fold-0", "mask-0001/fold-1", "old.csv"]
    assert answers.sources == ["mask-0001", "gender-0001", "old.csv"]
    assert answers.without("mask-0001").sources == ["gender-0001", "old.csv"]
    assert answers.of("mask").weights == [1, 1, 2]
    turned = Answers(CLASSES, 6, answers.voters[::-1], answers.probabilities[::-1])
    for task in CLASSES:
        mine, theirs = (
            dict(zip(variant.of(task).voters, variant.of(task).probabilities, strict=True))
            for variant in (answers, turned)
        )
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[voter], theirs[voter]) for voter in mine)


def test_members_that_were_asked_are_counted_once_whatever_they_answer_for() -> None:
    answers = drawn(4, 2)
    arrays = list(answers.probabilities)
    arrays[1] = arrays[1] * np.array([[1], [0], [1], [0]], np.float32)  # not asked about two photos
    joint = [Voter(task, "joint-0001", 0) for task in CLASSES]
    sure = [np.ones((4, classes)) / classes for classes in CLASSES.values()]
    whole = Answers(CLASSES, 4, (*answers.voters, *joint), (*arrays, *sure))
    assert whole.asked().tolist() == [5, 4, 5, 4]  # the table is no member


@pytest.mark.parametrize(("voter", "array", "message"), [
    (Voter("age", "age-0001"), np.ones((2, 3)), "answers for 'age'; the tasks are mask, gender"),
    (Voter("mask", "mask-0001"), np.ones((2, 2)), r"shape \(2, 2\); needed: \(2, 3\)"),
    (Voter("mask", "mask-0001", 3), np.ones((5, 3)), "mask-0001/fold-3: its answers for mask"),
])  # fmt: skip
def test_answers_that_do_not_fit_are_refused(voter: Voter, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Answers(CLASSES, 2, (voter,), (array,))
    with pytest.raises(ValueError, match="0 arrays for 1 voters"):
        Answers(CLASSES, 2, (voter,), ())


def test_batches_of_other_voters_are_not_put_together() -> None:
    batch = drawn(4, 2)
    turned = Answers(CLASSES, 4, batch.voters[::-1], batch.probabilities[::-1])
    assert len(Answers.stacked([batch, batch])) == 8
    with pytest.raises(
        ValueError, match=r"got a batch of the voters mask old\.csv, .* after one of mask mask-0001/fold-0"
    ):
        Answers.stacked([batch, turned])


@pytest.mark.parametrize(
    "rows",
    [
        slice(0, 3),
        slice(2, 99),
        slice(None, None, 2),
        slice(-2, None),
        np.array([4, 0, 0]),
        np.array([True, False, True, False, True]),
    ],
)
def test_some_photos_are_counted_as_they_are_taken(rows: Any) -> None:
    values = np.linspace(0.1, 0.9, 5, dtype=np.float32)
    answers = Answers({"gender": 2}, 5, (Voter("gender", "gender-0001"),), (np.stack([values, 1 - values], axis=1),))
    taken = answers.take(rows)
    assert len(taken) == len(values[rows])
    assert np.array_equal(taken.probabilities[0][:, 0], values[rows])

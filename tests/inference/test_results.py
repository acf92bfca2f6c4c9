"""Predictions are columns, and their items say the same row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.inference.reader import Unreadable
from orchestrator.inference.results import Predictions
from tests.conftest import SOFT


def drawn(photos: int, unreadable: set[int], seed: int) -> Predictions:
    rng = np.random.default_rng(seed)
    shares = {task: rng.dirichlet(np.ones(len(CLASSES[task])), photos) for task in TASKS}
    label = compose(*(shares[task].argmax(axis=1) for task in TASKS))
    agreement = rng.random(photos)
    for number in unreadable:
        label[number], agreement[number] = -1, np.nan
        for array in shares.values():
            array[number] = np.nan
    errors = {number: Unreadable(f"reason {number}", "damaged") for number in unreadable}
    names = tuple(f"{number}.jpg" for number in range(photos))
    faces = tuple(None if number in unreadable else number % 2 == 0 for number in range(photos))
    return Predictions(names, SOFT, label, shares, agreement, np.full(photos, 9), faces, label % 2 == 0, errors)


@given(st.integers(1, 30), st.sets(st.integers(0, 29), max_size=5), st.integers(0, 2**32 - 1))
def test_rows_and_columns_say_the_same(photos: int, unreadable: set[int], seed: int) -> None:
    answers = drawn(photos, {number for number in unreadable if number < photos}, seed)
    assert len(answers) == len(list(answers)) == photos
    for number, answer in enumerate(answers):
        assert answer.photo == answers.photos[number] == f"{number}.jpg"
        if number in answers.errors:
            assert (answer.label, answer.shares) == (None, {})
            assert (answer.error, answer.error_kind) == (f"reason {number}", "damaged")
            continue
        assert (answer.label, answer.name) == (answers.label[number], LABELS[answers.label[number]])
        assert (answer.error, answer.error_kind) == ("", "")
        assert answer.changed_by_external == (answer.label % 2 == 0)
        for task in TASKS:
            values = answers.shares[task][number].tolist()
            assert list(answer.shares[task].values()) == [round(value, 6) for value in values]
    assert answers[-1] == answers[photos - 1]
    assert answers[1:3] == list(answers)[1:3]
    with pytest.raises(IndexError):
        answers[photos]


def test_batches_put_together_are_the_whole() -> None:
    whole = drawn(10, {3, 9}, 5)
    assert Predictions.concatenated([whole]) == whole
    twice = Predictions.concatenated([whole, whole])
    assert list(twice) == [*whole, *whole]
    assert {number: why.reason for number, why in twice.errors.items()} == {
        3: "reason 3", 9: "reason 9", 13: "reason 3", 19: "reason 9",
    }  # fmt: skip
    assert twice != whole

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.sampling import draw_epoch, epoch_size

counts_of = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def persons_of(counts: list[int]) -> pd.Series:
    return pd.Series([f"p{number}" for number, count in enumerate(counts) for _ in range(count)])


@given(counts_of, st.integers(0, 2**32 - 1))
def test_per_person_draws_each_person_once(counts: list[int], seed: int) -> None:
    persons = persons_of(counts)
    rows = draw_epoch("per_person", persons, np.random.default_rng(seed))
    assert sorted(persons[rows]) == sorted(persons.unique())
    assert len(rows) == epoch_size("per_person", persons) == len(counts)


@given(counts_of, st.integers(0, 2**32 - 1))
def test_per_photo_draws_each_photo_once(counts: list[int], seed: int) -> None:
    persons = persons_of(counts)
    rows = draw_epoch("per_photo", persons, np.random.default_rng(seed))
    assert sorted(rows) == list(range(len(persons)))
    assert len(rows) == epoch_size("per_photo", persons)


def test_a_persons_photos_are_equally_likely_and_drawn_anew_each_epoch() -> None:
    persons = persons_of([7, 1, 3])
    drawn = [draw_epoch("per_person", persons, np.random.default_rng([5, epoch])) for epoch in range(7000)]
    first = np.bincount([int(row) for rows in drawn for row in rows if row < 7], minlength=7)
    assert (abs(first - 1000) < 150).all()  # 5 standard deviations of a binomial
    assert np.array_equal(drawn[0], draw_epoch("per_person", persons, np.random.default_rng([5, 0])))

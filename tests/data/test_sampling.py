import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.data.sampling import class_factors, draw_epoch, epoch_size, expected_draws

Codes = NDArray[np.int64]

counts_of = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def persons_of(counts: list[int]) -> Codes:
    return np.repeat(np.arange(len(counts)), counts)


@given(counts_of, st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_per_person_draws_each_person_once(counts: list[int], seed: int, random) -> None:
    persons = persons_of(counts)
    kinds = np.array([random.randrange(3) for _ in persons])
    rows = draw_epoch("per_person", persons, kinds, np.random.default_rng(seed))
    assert sorted(persons[rows]) == list(range(len(counts)))
    assert len(rows) == epoch_size("per_person", persons, kinds) == len(counts)


@given(counts_of, st.integers(0, 2**32 - 1))
def test_per_photo_draws_each_photo_once(counts: list[int], seed: int) -> None:
    persons = persons_of(counts)
    rows = draw_epoch("per_photo", persons, np.zeros_like(persons), np.random.default_rng(seed))
    assert sorted(rows) == list(range(len(persons)))
    assert len(rows) == epoch_size("per_photo", persons, persons)


def draws(persons: Codes, kinds: Codes, epochs: int = 7000) -> list[Codes]:
    return [draw_epoch("per_person", persons, kinds, np.random.default_rng([5, epoch])) for epoch in range(epochs)]


def test_a_persons_photos_are_equally_likely_and_drawn_anew_each_epoch() -> None:
    persons = persons_of([7, 1, 3])
    drawn = draws(persons, np.zeros_like(persons))
    first = np.bincount([int(row) for rows in drawn for row in rows if row < 7], minlength=7)
    assert (abs(first - 1000) < 150).all()  # 5 standard deviations of a binomial
    assert np.array_equal(drawn[0], draw_epoch("per_person", persons, np.zeros(11, int), np.random.default_rng([5, 0])))


def test_a_persons_kinds_are_equally_likely_and_then_their_photos() -> None:
    persons = persons_of([7, 2])
    kinds = np.array([0, 0, 0, 0, 0, 1, 2, 1, 1])  # the contest's seven photos; somebody with one kind only
    rows = np.concatenate(draws(persons, kinds))
    seen = np.bincount(rows, minlength=9)
    expected = 7000 * np.array([1 / 15] * 5 + [1 / 3, 1 / 3, 1 / 2, 1 / 2])
    assert (abs(seen - expected) < 5 * np.sqrt(expected)).all()
    assert np.allclose(expected_draws("per_person", persons, kinds) * 7000, expected)


@given(counts_of, st.randoms(use_true_random=False))
def test_expected_draws_are_what_is_drawn_on_average(counts: list[int], random) -> None:
    persons = persons_of(counts)
    kinds = np.array([random.randrange(3) for _ in persons])
    expected = expected_draws("per_person", persons, kinds)
    assert np.allclose(np.bincount(persons, expected), 1)
    for person in range(len(counts)):  # kinds alike within a person, photos alike within a kind
        own = persons == person
        of_kind = [expected[own & (kinds == kind)] for kind in np.unique(kinds[own])]
        assert np.allclose([part.sum() for part in of_kind], 1 / len(of_kind))
        assert all(np.allclose(part, part[0]) for part in of_kind)
    assert np.array_equal(expected_draws("per_photo", persons, kinds), np.ones(len(persons)))


def test_the_order_of_an_epoch_is_not_the_order_of_people() -> None:
    persons = persons_of([2] * 50)
    orders = [persons[rows] for rows in draws(persons, np.zeros_like(persons), 200)]
    assert abs(np.mean([order[0] for order in orders]) - 24.5) < 5 * 14.4 / np.sqrt(200)
    assert len({tuple(order) for order in orders}) == 200


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=30),
    st.tuples(*[st.floats(0.2, 5)] * 3), st.sampled_from(["per_person", "per_photo"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_factors_round_up_or_down(
    people: list[tuple[int, int]], factor: tuple[float, ...], sampling, seed: int
) -> None:
    """A row whose factor is 2.3 comes two or three times; classes here belong to people, so the epoch's size is exact."""
    persons = persons_of([photos for photos, _ in people])
    classes = np.array([code for _, code in people])[persons]
    kinds = np.zeros_like(persons)
    factors = class_factors(classes, expected_draws(sampling, persons, kinds), 0.0, np.array(factor))
    rows = draw_epoch(sampling, persons, kinds, np.random.default_rng(seed), factors)
    assert len(rows) == epoch_size(sampling, persons, kinds, factors)
    unit = persons if sampling == "per_person" else np.arange(len(persons))
    times = np.bincount(unit[rows], minlength=unit.max() + 1)
    expected = np.bincount(unit, expected_draws(sampling, persons, kinds, factors))
    total = expected.sum()
    scale = len(rows) / total  # the size is a whole number
    assert (times >= np.floor(expected * scale - 1e-6)).all()
    assert (times <= np.ceil(expected * scale + 1e-6)).all()


def test_balance_draws_classes_alike_and_factors_make_some_more_frequent() -> None:
    persons = np.repeat(np.arange(100), 7)
    classes = np.where(persons < 10, 0, np.where(persons < 40, 1, 2))
    once = expected_draws("per_person", persons, np.zeros_like(persons))
    even = class_factors(classes, once, 1.0, np.ones(3))
    drawn = draw_epoch("per_person", persons, np.zeros_like(persons), np.random.default_rng(0), even)
    assert len(drawn) == 100
    assert np.bincount(classes[drawn]).tolist() in ([33, 33, 34], [33, 34, 33], [34, 33, 33])
    root = class_factors(classes, once, 0.5, np.ones(3))
    counts = np.bincount(classes, once * root)
    assert np.allclose(counts / counts[0], np.sqrt([0.1, 0.3, 0.6]) / np.sqrt(0.1))
    assert counts.sum() == pytest.approx(100)
    tripled = class_factors(classes, once, 0.0, np.array([3.0, 1.0, 0.5]))
    assert np.allclose(np.bincount(classes, once * tripled), [30, 30, 30])

"""A person's photos answer together: one gender and one age for all of them, and nobody else's photos have a say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.combiners import Combiner
from orchestrator.combining.people import NOBODY, PeoplePool
from orchestrator.combining.rules import Multipliers
from orchestrator.combining.votes import Decision
from orchestrator.core.labels import CLASS_COUNTS, TASKS
from tests.combining.test_combiners import EACH, drawn
from tests.conftest import HARD, SOFT

POOLS = {
    "mean": PeoplePool({"gender": "mean", "age": "mean"}),
    "log": PeoplePool({"gender": "log", "age": "log"}),
    "weighted": PeoplePool({"gender": "log", "age": "mean"}, "mask", {"age": (0.4, 1.8, 1.0)}),
    "rule": PeoplePool({"age": "log"}, rule=Multipliers({"age": (0.8, 0.9, 1.6)})),
}
pools = st.sampled_from(list(POOLS))


def persons_of(photos: int, seed: int) -> np.ndarray:
    """Up to six people, and photos of nobody knows whom."""
    return np.random.default_rng(seed).integers(NOBODY, 6, photos)


@pytest.mark.parametrize("name", list(POOLS))
def test_a_pool_survives_json(name: str) -> None:
    assert PeoplePool.from_dict(json.loads(json.dumps(POOLS[name].as_dict(), allow_nan=False))) == POOLS[name]
    combiner = replace(SOFT, people=POOLS[name])
    assert Combiner.from_dict(json.loads(json.dumps(combiner.as_dict()))) == combiner
    assert combiner.title == "soft vote, people's photos together"
    assert "answer together" in combiner.how


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="pooled by mean, log, not median"):
        PeoplePool({"age": "median"})
    with pytest.raises(ValueError, match="weights of photos must be positive"):
        PeoplePool({"age": "mean"}, "mask", {"age": (0.0, 1.0, 1.0)})
    with pytest.raises(ValueError, match="shares of votes are no probabilities"):
        replace(HARD, people=POOLS["mean"])


@given(pools, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_all_photos_of_a_person_have_one_gender_and_one_age(name: str, photos: int, seed: int) -> None:
    answers, persons = drawn(photos, 3, seed, digits=3), persons_of(photos, seed)
    pool = replace(POOLS[name], means={"gender": "log", "age": "log"})
    together = replace(EACH["by mask"], people=pool).combine(answers, persons)
    alone = EACH["by mask"].combine(answers)
    for task in ("gender", "age"):
        for person in set(persons.tolist()) - {NOBODY}:
            assert len(set(together.decisions[task].choice[persons == person].tolist())) == 1
            assert len(np.unique(together.decisions[task].shares[persons == person], axis=0)) == 1
    nobody = persons == NOBODY
    assert np.array_equal(together.label[nobody], alone.label[nobody])  # they answer as they would alone
    assert np.array_equal(together.decisions["mask"].choice, alone.decisions["mask"].choice)  # a photo's own
    assert np.array_equal(replace(EACH["by mask"], people=pool).combine(answers).label, alone.label)  # nobody is known


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_means_are_the_formulas(photos: int, seed: int) -> None:
    answers, persons = drawn(photos, 2, seed, digits=3), persons_of(photos, seed)
    voted = SOFT.combine(answers).decisions
    pooled = POOLS["weighted"].pool(voted, persons)
    for person in set(persons.tolist()) - {NOBODY}:
        rows = persons == person
        weights = np.array([0.4, 1.8, 1.0])[voted["mask"].choice[rows]]
        age = np.average(voted["age"].shares[rows], axis=0, weights=weights)
        assert np.allclose(pooled["age"].shares[rows], age, atol=1e-9)
        gender = np.exp(np.log(np.maximum(voted["gender"].shares[rows], 1e-7)).mean(axis=0))
        assert np.allclose(pooled["gender"].shares[rows], gender / gender.sum(), atol=1e-9)


@given(pools, st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_neither_the_order_of_photos_nor_the_names_of_people_count(name: str, photos: int, seed: int) -> None:
    answers, persons = drawn(photos, 2, seed, digits=3), persons_of(photos, seed)
    combiner = replace(SOFT, people=POOLS[name])
    order = np.random.default_rng(seed).permutation(photos)
    first = combiner.combine(answers, persons)
    other = combiner.combine(answers.take(order), persons[order])
    renamed = combiner.combine(answers, np.where(persons == NOBODY, NOBODY, 1000 - persons))
    for task in TASKS:
        assert np.allclose(first.decisions[task].shares[order], other.decisions[task].shares, atol=1e-12)
        assert np.allclose(first.decisions[task].shares, renamed.decisions[task].shares, atol=1e-12)


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_other_peoples_photos_have_no_say(photos: int, seed: int) -> None:
    answers, persons = drawn(photos, 2, seed, digits=3), persons_of(photos, seed)
    combiner = replace(SOFT, people=POOLS["weighted"])
    together = combiner.combine(answers, persons)
    own = np.flatnonzero(persons == persons[0])
    if persons[0] != NOBODY:
        apart = combiner.combine(answers.take(own), persons[own])
        assert np.allclose(apart.decisions["age"].shares, together.decisions["age"].shares[own], atol=1e-12)


def test_pooled_photos_have_a_rule_of_their_own() -> None:
    shares = np.array([[0.45, 0.30, 0.25], [0.45, 0.30, 0.25]])
    rest = {task: Decision(np.zeros(2, np.int64), np.eye(CLASS_COUNTS[task])[[0, 0]]) for task in ("mask", "gender")}
    voted = {**rest, "age": Decision(shares.argmax(axis=1), shares)}
    alone, together = Multipliers({"age": (1.0, 2.0, 1.0)}), Multipliers({"age": (1.0, 1.0, 3.0)})
    combiner = Combiner(SOFT.votes, rule=alone, people=PeoplePool({"age": "log"}, rule=together))
    assert combiner.finish(voted, np.array([0, NOBODY])).decisions["age"].choice.tolist() == [2, 1]

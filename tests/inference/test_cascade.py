"""A cascade asks fewer members; exactly it never changes an answer, by sureness it keeps to its rate."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.votes import agreement, hard_vote, soft_vote
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import CLASS_COUNTS
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.learning import plain_combiner
from orchestrator.inference.cascade import EXACT, Cascade, ask, calibrate, simulate
from tests.conftest import HARD, SOFT, Done

Orch = Callable[..., Done]

PLAIN = ["soft", "hard", "geometric", "power:0.5"]


def members_like(photos: int, members: int, noise: float, seed: int) -> Answers:
    """Members that see the same photos and differ by noise, as folds do; one photo in five is hard."""
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, classes in CLASS_COUNTS.items():
        sure = np.where(rng.random((photos, 1)) < 0.2, 0.7, 6.0)
        logits = sure * np.eye(classes)[rng.integers(0, classes, photos)]
        for fold in range(members):
            shifted = np.exp(logits + noise * rng.normal(size=logits.shape))
            voters.append(Voter(task, f"{task}-0001", fold))
            arrays.append((shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers(CLASS_COUNTS, photos, tuple(voters), tuple(arrays))


def of_mask(*members: np.ndarray) -> Answers:
    """Answers of members of one task."""
    voters = tuple(Voter("mask", "mask-0001", fold) for fold in range(len(members)))
    return Answers({"mask": members[0].shape[1]}, len(members[0]), voters, members)


@given(st.integers(1, 7), st.integers(1, 40), st.sampled_from(PLAIN), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_an_exact_cascade_never_changes_a_choice(
    members: int, photos: int, strategy: str, noise: float, seed: int
) -> None:
    answers, combiner = members_like(photos, members, noise, seed), plain_combiner(Strategy.parse(strategy))
    for task in answers.classes:
        own = answers.of(task)
        rounded = [np.round(array, 1) + np.float32(0.01) for array in own.probabilities]  # ties occur
        rounded = [array / array.sum(axis=1, keepdims=True) for array in rounded]
        settled = partial(EXACT.settled, combiner=combiner)
        some = ask(own.voters, [array.__getitem__ for array in rounded], photos, settled)
        few, all_ = (
            combiner.votes[task].decide(Answers(own.classes, photos, own.voters, tuple(arrays)))
            for arrays in (some, rounded)
        )
        assert np.array_equal(few.choice, all_.choice)
        is_asked = np.stack([array.any(axis=1) for array in some])
        assert is_asked[0].all()
        assert (np.diff(is_asked.astype(int), axis=0) <= 0).all()  # who is not asked once is not asked again


def test_unanimous_members_need_a_majority_of_votes_and_no_more() -> None:
    sure = np.tile(np.float32([1, 0, 0]), (4, 1))
    for combiner in (SOFT, HARD):
        settled = partial(EXACT.settled, combiner=combiner)
        some = ask(of_mask(*[sure] * 5).voters, [sure.__getitem__] * 5, 4, settled)
        assert [bool(array.any()) for array in some] == [True, True, True, False, False]


def test_shares_and_agreement_count_those_who_were_asked() -> None:
    answers = [np.float32([[0.9, 0.1]]), np.float32([[0.7, 0.3]]), np.zeros((1, 2), np.float32)]
    for vote in (soft_vote, hard_vote):
        assert agreement(vote(answers, [1.0] * 3).choice, answers, [1.0] * 3) == pytest.approx([1])
    assert soft_vote(answers, [1.0] * 3).shares[0] == pytest.approx([0.8, 0.2], abs=1e-6)
    assert hard_vote(answers, [1.0] * 3).shares[0] == pytest.approx([1, 0])


def test_the_rate_holds_on_photos_that_the_sureness_was_not_chosen_on() -> None:
    answers, combiner = members_like(20_000, 5, 0.8, seed=1), SOFT
    first, second = answers.take(slice(10_000)), answers.take(slice(10_000, None))
    chosen, curve = calibrate(first, combiner, 0.002)
    assert curve[0].changed == 0
    assert any(point is chosen for point in curve)
    there, here = simulate(second, combiner, chosen.cascade), simulate(first, combiner, chosen.cascade)
    assert here.changed <= 0.002
    assert there.changed <= 0.004  # chance: 20 of 10,000 are expected, give or take 9
    assert there.asked < 0.8 * curve[0].asked
    counts = [point.asked for point in curve]
    assert counts == sorted(counts, reverse=True)  # who is content with less never asks more
    none, _ = calibrate(first, combiner, 0.0)
    assert simulate(first, combiner, none.cascade).changed == 0


def test_sureness_by_hand() -> None:
    # Two of four members asked, leads 0.6 and 0.4: mean 0.5, squares 0.02; the usual spread counts as one observation more.
    so_far = of_mask(np.array([[0.8, 0.2]]), np.array([[0.7, 0.3]]))
    pending = [Voter("mask", "mask-0001", fold) for fold in (2, 3)]
    variance = (0.1 * (1 - 0.25 + 1e-4) ** 1.5 + 0.02) / 2
    error = (variance * 2 / (4 * 2)) ** 0.5
    for sure, settled in ((0.5 / error - 0.01, True), (0.5 / error + 0.01, False)):
        assert Cascade(0.1, sure, {"mask": 0.1}).settled(so_far, pending, SOFT).tolist() == [settled]


def test_a_rate_that_the_photos_cannot_show_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"100 photos cannot show a rate of 0.001 changed labels: give at least 3,000"
    ):
        calibrate(members_like(100, 3, 0.5, 0), SOFT, 0.001)

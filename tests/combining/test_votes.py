from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.votes import Decision, agreement, hard_vote, soft_vote

VOTES: dict[str, Callable[..., Decision]] = {"soft": soft_vote, "hard": hard_vote}


def vote(members: list[np.ndarray], strategy: str, weights: list[float] | None = None) -> Decision:
    return VOTES[strategy](members, [1.0] * len(members) if weights is None else weights)


members_of = st.tuples(st.integers(1, 7), st.integers(1, 30), st.integers(2, 5), st.integers(0, 2**32 - 1))
strategies = st.sampled_from(["soft", "hard"])


def draw(shape: tuple[int, int, int, int]) -> list[np.ndarray]:
    members, photos, classes, seed = shape
    rng = np.random.default_rng(seed)
    # Rounded to few digits, so that ties occur often.
    raw = np.round(rng.dirichlet(np.ones(classes), (members, photos)), 1) + 0.05
    return [(array / array.sum(axis=1, keepdims=True)).astype(np.float32) for array in raw]


@given(members_of, strategies, st.randoms(use_true_random=False))
def test_no_order_of_members_changes_a_bit(shape: tuple[int, int, int, int], strategy: str, random: object) -> None:
    members = draw(shape)
    shuffled = list(members)
    random.shuffle(shuffled)
    first, other = vote(members, strategy), vote(shuffled, strategy)
    assert np.array_equal(first.shares, other.shares)
    assert np.array_equal(first.choice, other.choice)
    weights = [1.0] * len(members)
    assert np.array_equal(agreement(first.choice, members, weights), agreement(other.choice, shuffled, weights))


@given(members_of, strategies)
def test_shares_sum_to_one_and_lie_between_the_members(shape: tuple[int, int, int, int], strategy: str) -> None:
    members = draw(shape)
    result = vote(members, strategy)
    assert np.allclose(result.shares.sum(axis=1), 1, atol=1e-12)
    assert (result.shares >= 0).all()
    if strategy == "soft":
        assert np.allclose(result.shares, np.mean(members, axis=0), atol=1e-6)


@given(members_of, strategies)
def test_a_unanimous_vote_wins(shape: tuple[int, int, int, int], strategy: str) -> None:
    members = draw(shape)
    choices = np.stack([member.argmax(axis=1) for member in members])
    unanimous = (choices == choices[0]).all(axis=0)
    result = vote(members, strategy)
    if strategy == "hard":
        assert np.array_equal(result.choice[unanimous], choices[0][unanimous])
        assert np.allclose(agreement(result.choice, members, [1.0] * len(members))[unanimous], 1)
    # A soft vote sums in steps of 2^-23, so a lead of two steps always counts; a smaller one may round to a tie.
    ordered = np.sort(np.stack(members).astype(np.float64), axis=2)
    clear = (ordered[:, :, -1] - ordered[:, :, -2]).min(axis=0) >= 2.0**-22
    assert np.array_equal(result.choice[unanimous & clear], choices[0][unanimous & clear])


def reference_hard(members: list[np.ndarray]) -> list[int]:
    """The rule in plain Python: majority, then higher mean (in steps of 2^-23), then lower class."""
    answers = []
    for photo in range(len(members[0])):
        rows = [member[photo].astype(float) for member in members]
        votes = [sum(int(np.argmax(row)) == code for row in rows) for code in range(len(rows[0]))]
        sums = [sum(round(float(row[code]) * 2**23) for row in rows) for code in range(len(rows[0]))]
        answers.append(max(range(len(votes)), key=lambda code: (votes[code], sums[code], -code)))
    return answers


@given(members_of)
def test_hard_voting_equals_the_rule_written_out(shape: tuple[int, int, int, int]) -> None:
    members = draw(shape)
    assert vote(members, "hard").choice.tolist() == reference_hard(members)


def test_hard_ties_go_to_the_higher_mean_then_to_the_lower_class() -> None:
    first, other = np.array([[0.6, 0.4, 0.0]]), np.array([[0.1, 0.9, 0.0]])
    assert vote([first, other], "hard").choice == [1]
    even = [np.array([[0.7, 0.2, 0.1]]), np.array([[0.2, 0.7, 0.1]])]
    assert vote(even, "hard").choice == [0]
    assert vote(even, "hard").shares.tolist() == [[0.5, 0.5, 0.0]]


@pytest.mark.parametrize("members", [1, 2, 4, 128, 255, 256, 264, 511, 1000])
def test_any_number_of_certain_members_adds_up(members: int) -> None:
    certain, doubtful = np.array([[0.0, 1.0, 0.0]], np.float32), np.array([[0.0, 0.0, 1.0]], np.float32)
    for strategy in ("soft", "hard"):
        result = vote([certain] * members, strategy)
        assert result.shares.tolist() == [[0, 1, 0]]
        assert result.choice.tolist() == [1]
        assert agreement(result.choice, [certain] * members, [1.0] * members).tolist() == [1]
        more = vote([certain] * (members + 1) + [doubtful] * members, strategy, [3.0] * (2 * members + 1))
        assert more.choice.tolist() == [1]
        assert more.shares.tolist() == [[0, (members + 1) / (2 * members + 1), members / (2 * members + 1)]]


def reference(members: list[np.ndarray], weights: list[int], strategy: str) -> tuple[list[int], list[list[Fraction]]]:
    """The rule in whole numbers of any size: choices, and shares."""
    choices, shares = [], []
    for photo in range(len(members[0])):
        # float32 adds 1 and keeps 23 bits, halves to the even one: what voting rounds probabilities to
        units = [
            [int((np.float32(value) + np.float32(1)).view(np.int32)) - 0x3F800000 for value in member[photo]]
            for member in members
        ]
        sums = [
            sum(weight * unit[code] for weight, unit in zip(weights, units, strict=True))
            for code in range(len(units[0]))
        ]
        votes = [
            sum(
                weight
                for weight, member in zip(weights, members, strict=True)
                if member[photo].any() and member[photo].argmax() == code
            )
            for code in range(len(sums))
        ]
        counted = sums if strategy == "soft" else votes
        choices.append(max(range(len(sums)), key=lambda code: (counted[code], sums[code], -code)))
        shares.append([Fraction(value, sum(counted)) for value in counted])
    return choices, shares


@given(members_of, strategies, st.integers(1, 60), st.sampled_from([1, 40]))
def test_votes_equal_the_rule_in_whole_numbers(
    shape: tuple[int, int, int, int], strategy: str, most: int, times: int
) -> None:
    members = draw(shape) * times  # 280 members at most
    weights = [int(weight) for weight in np.random.default_rng(shape[3]).integers(1, most + 1, len(members))]
    result = vote(members, strategy, list(map(float, weights)))
    choices, shares = reference(members, weights, strategy)
    assert result.choice.tolist() == choices
    assert result.shares.tolist() == [[float(share) for share in row] for row in shares]


positive = st.one_of(st.integers(1, 9).map(float), st.floats(0.05, 20), st.tuples(st.integers(1, 99), st.integers(1, 9)).map(
    lambda pair: pair[0] / pair[1]))  # a run's weight is members by runs  # fmt: skip


@given(members_of, strategies, st.data())
def test_a_voter_that_abstains_changes_no_bit(
    shape: tuple[int, int, int, int], strategy: str, data: st.DataObject
) -> None:
    members = draw(shape)
    weights = [data.draw(positive) for _ in members]
    if data.draw(st.booleans()):
        weights = weights[:1] * len(members)
    some = np.random.default_rng(shape[3]).random(len(members[0])) < 0.5  # it answers for the others
    joined, theirs = list(members), list(weights)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(joined)))
        joined.insert(position, np.where(some[:, None], np.float32(0), members[0]))
        theirs.insert(position, data.draw(positive))
    alone, together = vote(members, strategy, weights), vote(joined, strategy, theirs)
    assert np.array_equal(alone.choice[some], together.choice[some])
    assert np.array_equal(alone.shares[some], together.shares[some])
    alone_agreement = agreement(alone.choice, members, weights)
    assert np.array_equal(alone_agreement[some], agreement(together.choice, joined, theirs)[some])


def test_soft_and_hard_can_differ() -> None:
    members = [np.array([[0.51, 0.49]]), np.array([[0.51, 0.49]]), np.array([[0.0, 1.0]])]
    assert vote(members, "hard").choice == [0]
    assert vote(members, "soft").choice == [1]
    assert agreement(vote(members, "soft").choice, members, [1.0] * 3) == pytest.approx([1 / 3])


def test_agreement_is_the_share_of_weight_and_not_of_voters() -> None:
    first, other = np.array([[0.6, 0.4]]), np.array([[0.1, 0.9]])
    assert agreement(np.array([0]), [first, other], [3.0, 1.0]) == pytest.approx([0.75])
    assert agreement(np.array([1]), [first, other], [3.0, 1.0]) == pytest.approx([0.25])


@given(members_of, strategies, st.floats(0.01, 100))
def test_weights_count_by_their_ratio(shape: tuple[int, int, int, int], strategy: str, scale: float) -> None:
    members = draw(shape)
    weights = np.random.default_rng(shape[3]).uniform(0.1, 2, len(members))
    plain, other = vote(members, strategy, list(weights)), vote(members, strategy, list(weights * scale))
    assert np.allclose(plain.shares, other.shares)
    assert np.allclose(plain.shares.sum(axis=1), 1)
    doubled = vote([members[0], *members], "soft")
    weighted = vote(members, "soft", [2.0, *([1.0] * (len(members) - 1))])
    assert np.allclose(doubled.shares, weighted.shares, atol=1e-9)


@pytest.mark.parametrize(
    ("members", "weights", "message"),
    [
        ([], None, "at least one"),
        ([np.ones((2, 3)), np.ones((2, 3))], [1e-9, 1e9], "too far apart"),
        ([np.ones((2, 3))], [1.0, 2.0], "2 weights for 1"),
        ([np.ones((2, 3))], [0.0], "positive"),
        ([np.ones((2, 3))], [float("nan")], "positive"),
    ],
)
def test_wrong_votes_are_refused(members: list[np.ndarray], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vote(members, "soft", weights)

"""A vote is a value: it survives JSON, no order of voters changes it, and what it calls settled no pending voter turns."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.votes import power_vote, soft_vote
from orchestrator.combining.voting import VOTES, HardVote, PowerVote, SoftVote, Vote, WeightedVote, read_vote

RUNS = ("age-0001", "age-0002", "age-0003")
EACH: dict[str, Vote] = {
    "soft": SoftVote(),
    "hard": HardVote(),
    "geometric": PowerVote(0.0),
    "power:0.5": PowerVote(0.5),
    "weighted": WeightedVote(dict(zip(RUNS, (0.5, 0.3, 0.2), strict=True))),
}
votes = st.sampled_from(list(EACH))


def drawn(photos: int, folds: int, seed: int, digits: int = 1, classes: int = 3) -> Answers:
    """Members of three runs; rounded to few digits, so that ties occur."""
    rng = np.random.default_rng(seed)
    voters = [Voter("age", run, fold) for run in RUNS for fold in range(folds)]
    arrays = []
    for _ in voters:
        raw = np.round(rng.dirichlet(np.ones(classes), photos), digits) + 0.05
        arrays.append((raw / raw.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers({"age": classes}, photos, tuple(voters), tuple(arrays))


def in_order(answers: Answers, order: Sequence[int]) -> Answers:
    voters, arrays = answers.voters, answers.probabilities
    return Answers(
        answers.classes, len(answers), tuple(voters[n] for n in order), tuple(arrays[n] for n in order)
    )  # fmt: skip


@pytest.mark.parametrize("name", list(EACH))
def test_a_vote_survives_json(name: str) -> None:
    vote = EACH[name]
    assert read_vote(json.loads(json.dumps(vote.as_dict(), allow_nan=False))) == vote
    assert VOTES[vote.name] is type(vote)
    assert vote.how.endswith(".")


def test_what_is_no_vote_is_refused() -> None:
    for value in (
        {"name": "best"},
        {"name": "power", "exponent": 1.5},
        {"name": "power", "exponent": 1e-6},
        {"name": "weighted", "weights": {"a": -1}},
    ):
        with pytest.raises(ValueError, match=r"vote 'best'; allowed: soft, |must lie in 0\.\.1, got 1|negative"):
            read_vote(value)


@given(votes, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_no_order_of_voters_changes_a_bit(name: str, folds: int, seed: int) -> None:
    answers = drawn(25, folds, seed)
    order = np.random.default_rng(seed).permutation(len(answers.voters)).tolist()
    first, other = EACH[name].decide(answers), EACH[name].decide(in_order(answers, order))
    assert np.array_equal(first.choice, other.choice)
    assert np.array_equal(first.shares, other.shares)


@given(votes, st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_a_member_that_abstains_changes_no_bit_of_an_unweighted_vote(name: str, folds: int, seed: int) -> None:
    answers = drawn(25, folds, seed)
    silent = Answers(answers.classes, 25, (Voter("age", RUNS[0], folds),), (np.zeros((25, 3), np.float32),))
    if name != "weighted":  # there a run's weight is divided among its members
        first, other = EACH[name].decide(answers), EACH[name].decide(answers.with_voters(silent))
        assert np.array_equal(first.shares, other.shares)


@given(st.integers(1, 5), st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_a_power_mean_is_the_formula(members: int, exponent: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.dirichlet(np.ones(3), 20).astype(np.float32) for _ in range(members)]
    weights = rng.integers(1, 5, members).astype(float).tolist()
    wide = np.stack(arrays).astype(np.float64)

    def normalised(scores: np.ndarray) -> np.ndarray:
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    power = np.average(wide**exponent, axis=0, weights=weights) ** (1 / exponent)
    assert np.allclose(power_vote(arrays, weights, exponent).shares, normalised(power), atol=1e-4)
    geometric = np.exp(np.average(np.log(np.maximum(wide, 2.0**-23)), axis=0, weights=weights))
    assert np.allclose(power_vote(arrays, weights, 0).shares, normalised(geometric), atol=1e-4)
    assert np.allclose(power_vote(arrays, weights, 1).shares, soft_vote(arrays, weights).shares, atol=1e-6)


def test_one_voter_that_rules_a_class_out_counts_for_more_the_lower_the_exponent() -> None:
    sure, torn = np.float32([[0.0, 1.0]]), np.float32([[0.7, 0.3]])
    arrays, weights = [sure, torn, torn], [1.0] * 3
    shares = [power_vote(arrays, weights, exponent).shares[0, 0] for exponent in (0, 0.25, 0.5, 1)]
    assert shares == sorted(shares)
    assert shares[0] < 0.02
    assert shares[-1] == pytest.approx(1.4 / 3, abs=1e-6)


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_run_has_its_weight_however_many_members_it_has(folds: int, seed: int) -> None:
    answers = drawn(20, folds, seed, digits=3)
    answers = answers.where(lambda voter: voter.source != RUNS[1] or voter.fold == 0)
    means = [np.mean(answers.where(lambda voter, run=run: voter.source == run).probabilities, axis=0) for run in RUNS]
    expected = 0.5 * means[0] + 0.3 * means[1] + 0.2 * means[2]
    assert np.allclose(EACH["weighted"].decide(answers).shares, expected, atol=1e-5)


def test_a_weight_of_nothing_leaves_a_run_out_and_an_unknown_run_is_named() -> None:
    answers = drawn(20, 2, 0, digits=3)
    only = WeightedVote({RUNS[0]: 1.0, RUNS[1]: 0.0, RUNS[2]: 0.0}).decide(answers)
    alone = SoftVote().decide(answers.where(lambda voter: voter.source == RUNS[0]))
    assert np.array_equal(only.shares, alone.shares)
    with pytest.raises(ValueError, match="no weight was learned for age-0003"):
        WeightedVote({RUNS[0]: 1.0, RUNS[1]: 1.0}).decide(answers)


def test_where_all_that_have_a_weight_abstain_the_others_answer() -> None:
    answers = drawn(20, 2, 5, digits=3)
    table = np.tile(np.float32([0.1, 0.2, 0.7]), (20, 1))
    table[::2] = 0
    voter = Voter("age", "old.csv", external=True)
    whole = answers.with_voters(Answers({"age": 3}, 20, (voter,), (table,)))
    vote = WeightedVote({**dict.fromkeys(RUNS, 0.0), "old.csv": 1.0})
    decision, plain = vote.decide(whole), SoftVote().decide(answers)
    assert np.allclose(decision.shares[1::2], [0.1, 0.2, 0.7], atol=1e-6)
    assert np.allclose(decision.shares[::2], plain.shares[::2], atol=1e-12)
    assert np.array_equal(vote.decide(answers).shares, plain.shares)  # the table was taken out, to see what it changes
    assert not vote.settled(answers, [voter]).any()
    with pytest.raises(ValueError, match=r"no weight was learned for new\.csv"):
        vote.check({"old.csv", "new.csv"})


factors_of = st.sampled_from([(), (1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (3.0, 0.2, 1.0)])


@given(votes, st.integers(1, 3), st.integers(1, 8), factors_of, st.integers(0, 2**32 - 1))
def test_no_answer_of_pending_voters_turns_a_settled_vote(
    name: str, folds: int, answered: int, factors: tuple[float, ...], seed: int
) -> None:
    vote, whole = EACH[name], drawn(30, folds, seed)
    order = np.random.default_rng(seed).permutation(len(whole.voters)).tolist()
    so_far = in_order(whole, order[:answered])
    pending = [whole.voters[number] for number in order[answered:]]
    settled = vote.settled(so_far, pending, factors)
    scale = np.array(factors or (1.0,) * 3)

    def chosen(answers: Answers) -> np.ndarray:
        decision = vote.decide(answers)
        return np.asarray((decision.shares * scale).argmax(axis=1)) if factors else decision.choice

    # In the whole vote the voters so far have the weights that `settled` reckons with; those that are silent weigh nothing.
    silent = [np.zeros((30, 3), np.float32)] * len(pending)
    now = chosen(so_far.with_voters(Answers(so_far.classes, 30, tuple(pending), tuple(silent))))
    for answer in np.eye(3, dtype=np.float32):
        rest = tuple(np.tile(answer, (30, 1)) for _ in pending)
        then = chosen(so_far.with_voters(Answers(so_far.classes, 30, tuple(pending), rest)))
        assert np.array_equal(now[settled], then[settled])


def test_votes_settle_as_soon_as_the_rest_cannot_catch_up() -> None:
    certain = np.tile(np.float32([0, 1]), (3, 1))
    voters = [Voter("gender", "gender-0001", fold) for fold in range(5)]
    for vote in (SoftVote(), HardVote(), PowerVote(0.0), PowerVote(0.5), WeightedVote({"gender-0001": 1.0})):
        for answered, settled in ((1, False), (2, False), (3, True)):
            so_far = Answers({"gender": 2}, 3, tuple(voters[:answered]), (certain,) * answered)
            assert vote.settled(so_far, voters[answered:]).tolist() == [settled] * 3
    so_far = Answers({"gender": 2}, 3, tuple(voters[:3]), (certain,) * 3)
    assert SoftVote().settled(so_far, voters[3:], (1.0, 1.4)).all()
    assert not SoftVote().settled(so_far, voters[3:], (1.6, 1.0)).any()  # two of five, times 1.6, beat three

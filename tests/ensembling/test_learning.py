"""What is learned from out-of-fold answers: weights, calibrations and multipliers serve their ends, and chance is not learned."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.voting import WeightedVote
from orchestrator.core.labels import CLASS_COUNTS, LABELS, TASKS, compose
from orchestrator.core.metrics import log_losses, macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.learning import StrategyLearner, greedy_weights, plain_combiner
from orchestrator.ensembling.out_of_fold import OutOfFold, cross_fit

PHOTOS = 4


def people_of(count: int) -> np.ndarray:
    """Each person on `PHOTOS` photos."""
    return np.repeat([f"p{number:04}" for number in range(count)], PHOTOS)


def answers_for(
    truth: dict[str, np.ndarray], noise: dict[str, float], seed: int, sharpness: float = 1.0, sources: int = 1
) -> Answers:
    """Answers that are calibrated where the sharpness is 1: logits of Gaussian classes, drawn around the truth.

    With means one apart and a deviation of `noise`, the log odds of two classes are the difference of their coordinates over
    its square.
    """
    rng = np.random.default_rng(seed)
    voters, arrays = [], []
    for task, codes in truth.items():
        for number in range(sources):
            seen = np.eye(CLASS_COUNTS[task])[codes] + noise[task] * rng.normal(size=(len(codes), CLASS_COUNTS[task]))
            logits = sharpness * seen / noise[task] ** 2
            raised = np.exp(logits - logits.max(axis=1, keepdims=True))
            voters.append(Voter(task, f"{task}-{number:04d}"))
            arrays.append((raised / raised.sum(axis=1, keepdims=True)).astype(np.float32))
    return Answers(CLASS_COUNTS, len(next(iter(truth.values()))), tuple(voters), tuple(arrays))


def truth_of(people: int, shares: list[float], seed: int) -> dict[str, np.ndarray]:
    """A truth whose age bands have these shares; age and gender are a person's, the mask a photo's."""
    rng = np.random.default_rng(seed)
    return {
        "mask": rng.integers(0, 3, people * PHOTOS),
        "gender": np.repeat(rng.integers(0, 2, people), PHOTOS),
        "age": np.repeat(rng.choice(3, people, p=shares), PHOTOS),
    }


def out_of_fold_of(truth: dict[str, np.ndarray], answers: Answers, folds: int = 5) -> OutOfFold:
    people = people_of(len(answers) // PHOTOS)
    photos = pd.DataFrame({"path": [f"{number:05}" for number in range(len(answers))], "person": people})
    photos["fold"] = pd.factorize(people)[0] % folds
    return OutOfFold(photos, truth, answers)


NOISE = {"mask": 0.6, "gender": 0.6, "age": 0.9}


def fit(strategy: Strategy, answers: Answers, truth: dict[str, np.ndarray]) -> object:
    return StrategyLearner(strategy).fit(answers, truth, people_of(len(answers) // PHOTOS))


@pytest.mark.parametrize("word", ["soft", "hard", "geometric", "power:0.5", "mask=hard,age=geometric"])
def test_what_learns_nothing_is_the_plain_combiner(word: str) -> None:
    truth = truth_of(20, [0.4, 0.4, 0.2], 0)
    strategy = Strategy.parse(word)
    assert fit(strategy, answers_for(truth, NOISE, 1), truth) == plain_combiner(strategy)
    assert not StrategyLearner(strategy).learns


@given(st.integers(0, 2**16))
@hypothesis_settings(max_examples=10)
def test_greedy_selection_leaves_out_who_only_harms_and_beats_the_mean(seed: int) -> None:
    truth = truth_of(150, [0.4, 0.4, 0.2], seed)
    good = answers_for(truth, NOISE, seed + 1, sources=2).of("age")
    rng = np.random.default_rng(seed)
    wrong = rng.dirichlet(np.full(3, 0.2), len(good)).astype(np.float32)  # sure, and knows nothing
    answers = good.with_voters(Answers({"age": 3}, len(good), (Voter("age", "bad"),), (wrong,)))
    vote = greedy_weights(answers, truth["age"], people_of(150))
    assert isinstance(vote, WeightedVote)
    assert sum(vote.weights.values()) == pytest.approx(1)
    assert vote.weights["bad"] < 0.03
    assert min(vote.weights["age-0000"], vote.weights["age-0001"]) > 0.2
    mean = np.mean(answers.probabilities, axis=0)
    assert log_losses(truth["age"], vote.decide(answers).shares).mean() < log_losses(truth["age"], mean).mean()


def test_a_table_that_abstains_is_weighed_by_what_it_answers() -> None:
    truth = truth_of(150, [0.4, 0.4, 0.2], 3)
    own = answers_for(truth, NOISE, 4).of("age")
    better = answers_for(truth, {**NOISE, "age": 0.5}, 5).of("age").probabilities[0].copy()
    better[::2] = 0
    voter = Voter("age", "old.csv", external=True)
    vote = greedy_weights(
        own.with_voters(Answers({"age": 3}, len(own), (voter,), (better,))), truth["age"], people_of(150)
    )
    assert isinstance(vote, WeightedVote)
    assert vote.weights["old.csv"] > vote.weights["age-0000"] > 0


def test_one_run_has_all_the_weight() -> None:
    truth = truth_of(20, [0.4, 0.4, 0.2], 0)
    assert greedy_weights(answers_for(truth, NOISE, 1).of("age"), truth["age"], people_of(20)) == WeightedVote(
        {"age-0000": 1.0}
    )


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_a_temperature_is_what_makes_probabilities_honest(sharpness: float) -> None:
    """Answers that are too sure by a known factor: its inverse is reached."""
    truth = truth_of(900, [1 / 3] * 3, 6)
    answers = answers_for(truth, NOISE, 7, sharpness)
    combiner = StrategyLearner(Strategy.parse("soft", "temperature")).fit(answers, truth, people_of(900))
    for task in TASKS:
        assert combiner.calibrations[task].scale[0][0] == pytest.approx(1 / sharpness, rel=0.12)
        assert combiner.calibrations[task].keeps_order
    assert np.array_equal(combiner.combine(answers).label, plain_combiner(Strategy.parse()).combine(answers).label)


@given(st.integers(0, 2**16), st.sampled_from(["temperature", "vector"]))
@hypothesis_settings(max_examples=10)
def test_a_calibration_never_loses_log_loss_where_it_was_learned(seed: int, kind: str) -> None:
    truth = truth_of(60, [0.6, 0.3, 0.1], seed)
    answers = answers_for(truth, NOISE, seed + 1, 1.7)
    combiner = StrategyLearner(Strategy.parse("soft", kind)).fit(answers, truth, people_of(60))
    plain, calibrated = plain_combiner(Strategy.parse()).combine(answers), combiner.combine(answers)
    for task in TASKS:
        before, after = (log_losses(truth[task], made.decisions[task].shares).mean() for made in (plain, calibrated))
        assert after <= before + 1e-4


def test_a_vector_moves_classes_that_are_answered_too_seldom() -> None:
    """The answers expect equal shares; a tenth of the people are old. The bias of a class is the logarithm of its share."""
    shares = [0.5, 0.4, 0.1]
    truth = truth_of(3000, shares, 8)
    answers = answers_for(truth, NOISE, 9)
    combiner = StrategyLearner(Strategy.parse("soft", "vector")).fit(answers, truth, people_of(3000))
    bias = np.array(combiner.calibrations["age"].bias[0])
    assert bias - bias[2] == pytest.approx(np.log(np.array(shares) / 0.1), abs=0.25)


def test_a_class_that_nobody_holds_keeps_numbers_finite() -> None:
    truth = truth_of(40, [0.6, 0.4, 0.0], 10)
    combiner = StrategyLearner(Strategy.parse("soft", "vector", "macro-f1")).fit(
        answers_for(truth, NOISE, 11), truth, people_of(40)
    )
    assert np.isfinite(combiner.calibrations["age"].bias).all()


def test_multipliers_gain_where_a_rare_class_is_answered_too_seldom() -> None:
    """Probabilities that are honest make the fewest mistakes, and answer a rare class seldom: macro F1 wants it sooner."""
    truth = truth_of(1200, [0.5, 0.42, 0.08], 12)
    answers = answers_for(truth, NOISE, 13)
    honest = StrategyLearner(Strategy.parse("soft", "vector"))
    decided = StrategyLearner(Strategy.parse("soft", "vector", "macro-f1"))
    drawn = out_of_fold_of(truth, answers)
    scores = [
        macro_f1(drawn.label, cross_fit(drawn, learner).combine(drawn).label, len(LABELS))
        for learner in (honest, decided)
    ]
    assert scores[1] > scores[0] + 0.01
    rule = decided.fit(answers, truth, people_of(1200)).rule
    assert rule is not None
    factors = rule.factors["age"]
    assert factors[2] > factors[0]
    assert np.prod(factors) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_no_multipliers_are_learned_from_chance(seed: int) -> None:
    """Classes of equal shares and honest answers: there is nothing to gain, and the nested score loses next to nothing."""
    truth = truth_of(300, [1 / 3] * 3, 20 + seed)
    answers = answers_for(truth, NOISE, 30 + seed)
    drawn = out_of_fold_of(truth, answers)
    plain = plain_combiner(Strategy.parse()).combine(answers).label
    learner = StrategyLearner(Strategy.parse("soft", "none", "macro-f1"))
    nested = cross_fit(drawn, learner).combine(drawn).label
    assert macro_f1(drawn.label, nested, len(LABELS)) > macro_f1(drawn.label, plain, len(LABELS)) - 0.02
    rule = learner.fit(answers, truth, people_of(300)).rule
    assert rule is None or all(0.6 < factor < 1.7 for row in rule.factors.values() for factor in row)


def test_multipliers_are_the_best_on_the_way_by_the_score_itself() -> None:
    """No single further step of the last sweep raises the score where they were learned by much: the search has arrived."""
    truth = truth_of(800, [0.5, 0.42, 0.08], 14)
    answers = answers_for(truth, NOISE, 15, 1.5)
    combiner = StrategyLearner(Strategy.parse("soft", "none", "macro-f1")).fit(answers, truth, people_of(800))
    assert combiner.rule is not None
    shares = {task: decision.shares for task, decision in combiner.combine(answers).decisions.items()}
    label = compose(*(truth[task] for task in TASKS))

    def score(factors: dict[str, np.ndarray]) -> float:
        choices = (
            ((shares[task] * factors[task]) if task in factors else shares[task]).argmax(axis=1) for task in TASKS
        )
        return macro_f1(label, compose(*choices), len(LABELS))

    reached = {task: np.array(row) for task, row in combiner.rule.factors.items()}
    assert "age" in reached
    assert score(reached) == macro_f1(label, combiner.combine(answers).label, len(LABELS)) > score({})
    for code in range(3):
        for step in (0.8, 0.9, 1.1, 1.25):
            moved = {**reached, "age": np.where(np.arange(3) == code, step, 1.0) * reached["age"]}
            assert score(moved) < score(reached) + 0.006


def test_peoples_photos_are_pooled_by_what_they_are_worth() -> None:
    """Ages are hard to see behind one kind of mask: these photos count least, and pooling gains on people not learned from."""
    truth = truth_of(500, [0.5, 0.38, 0.12], 16)
    clear, masked = (answers_for(truth, {**NOISE, "age": noise}, 17) for noise in (0.8, 2.5))
    behind = (truth["mask"] == 0)[:, None]
    arrays = tuple(
        np.where(behind, other, array) if voter.task == "age" else array
        for voter, array, other in zip(clear.voters, clear.probabilities, masked.probabilities, strict=True)
    )
    answers = Answers(CLASS_COUNTS, len(clear), clear.voters, arrays)
    drawn = out_of_fold_of(truth, answers)
    alone, together = (StrategyLearner(Strategy.parse(pool_people=pool)) for pool in (False, True))
    people = together.fit(answers, truth, people_of(500)).people
    assert people is not None
    assert set(people.means) == {"gender", "age"}
    if people.means["age"] == "mean":  # logarithms weigh photos by themselves: one that says little moves them little
        assert people.weights is not None
        assert people.weights["age"][0] < 0.6 * min(people.weights["age"][1:])
    scores = [
        macro_f1(drawn.label, cross_fit(drawn, learner).combine(drawn).label, len(LABELS))
        for learner in (alone, together)
    ]
    assert scores[1] > scores[0] + 0.05


@given(st.integers(0, 2**16))
@hypothesis_settings(max_examples=5)
def test_the_same_answers_give_the_same_numbers_in_any_order_of_photos(seed: int) -> None:
    truth = truth_of(60, [0.5, 0.4, 0.1], seed)
    answers = answers_for(truth, NOISE, seed + 1, sources=2)
    people = people_of(60)
    learner = StrategyLearner(Strategy.parse("greedy", "vector", "macro-f1", pool_people=True))
    first = learner.fit(answers, truth, people)
    assert learner.fit(answers, truth, people) == first

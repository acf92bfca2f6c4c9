"""Learning a combiner's numbers from out-of-fold answers: weights of runs, calibrations, a decision rule.

Whatever is learned fits the people whom it was learned from. Scores are therefore nested (`out_of_fold.cross_fit`): learned
from some folds' people, scored on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers
from orchestrator.combining.calibration import Calibration
from orchestrator.combining.combiners import Combiner
from orchestrator.combining.people import MEANS, PeoplePool
from orchestrator.combining.rules import Multipliers
from orchestrator.combining.votes import Decision
from orchestrator.combining.voting import HardVote, PowerVote, SoftVote, Vote, WeightedVote
from orchestrator.core.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.core.metrics import LEAST, f1_of, log_losses
from orchestrator.core.strategies import OF_A_PERSON, Strategy, exponent_of
from orchestrator.ensembling.intervals import difference

__all__ = ["LEARNED", "PLAIN", "Learner", "StrategyLearner", "Truth", "greedy_weights", "plain_combiner"]

Truth = Mapping[str, NDArray[Any]]
Probabilities = Mapping[str, NDArray[np.float64]]

BAGS, STEPS = 20, 40
"""Greedy selection: draws of people whose weights are averaged, and runs that are picked in each."""

MOST_SCALE, MOST_BIAS = 4.0, 30.0
"""Largest logarithm of a scale, and largest bias: what no photo depends on, as of an absent class, would grow without end."""

SHRINKING = 1e-6
"""Weight of the squares of a calibration's numbers beside its log loss."""

MOST_LOG, WORTH = 3.0, 0.002
"""Largest logarithm of a photo's weight, and the share of the log loss that weights must save to be used."""

GROUPS = 5
"""Groups of people of the inner scores that say of which tasks the answers gain by multipliers."""

DRAWS, LIKELY = 200, 0.84
"""Draws of people of such a gain, and the share of them that must show one: about one standard error above 0."""

RANGE, POINTS, SWEEPS, SMOOTHED = 1.2, 33, 3, 5
"""Search of a multiplier: its logarithm within +-RANGE at so many points, in so many sweeps over the classes, each with half the
range; the score at a point is the mean over so many neighbours, since the best single point is luck."""


class Learner(Protocol):
    """What makes a combiner from out-of-fold answers."""

    @property
    def learns(self) -> bool:
        """Whether the combiner depends on the answers."""

    def fit(self, answers: Answers, truth: Truth, people: NDArray[Any]) -> Combiner:
        """The combiner.

        Args:
            answers: out-of-fold answers for N photos.
            truth: task -> true class codes, shape (N,).
            people: the person of each photo, shape (N,).
        """


@dataclass(frozen=True)
class StrategyLearner:
    """Learns the numbers that a strategy asks for.

    Attributes:
        strategy: the strategy.
    """

    strategy: Strategy

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn."""
        return self.strategy.learns

    def fit(self, answers: Answers, truth: Truth, people: NDArray[Any]) -> Combiner:
        """Weights first, then calibrations of what was voted, then multipliers of what was calibrated, then people."""
        votes = {
            task: LEARNED[word](answers.of(task), truth[task], people) if word in LEARNED else _vote(word)
            for task, word in self.strategy.votes.items()
        }
        combiner = Combiner(votes)
        if self.strategy.calibrate != "none":
            voted = combiner.vote(answers)
            combiner = Combiner(
                votes, {task: _calibration(voted[task].shares, truth[task], self.strategy.calibrate) for task in TASKS}
            )
        if self.strategy.decide == "macro-f1":
            decisions = combiner.combine(answers).decisions
            shares = {task: decision.shares for task, decision in decisions.items()}
            combiner = replace(combiner, rule=_multipliers(shares, truth, people))
        if self.strategy.pool_people:
            decisions = replace(combiner, rule=None).combine(answers).decisions
            pool = _people_pool(decisions, truth, people)
            if self.strategy.decide == "macro-f1":
                together = pool.pool(decisions, pd.factorize(people)[0])
                shares = {task: decision.shares for task, decision in together.items()}
                pool = replace(pool, rule=_multipliers(shares, truth, people))
            combiner = replace(combiner, people=pool)
        return combiner


def plain_combiner(strategy: Strategy) -> Combiner:
    """The combiner of a strategy that learns nothing."""
    return Combiner({task: _vote(word) for task, word in strategy.votes.items()})


def _vote(word: str) -> Vote:
    exponent = exponent_of(word)
    if exponent is not None:
        return PowerVote(exponent)
    return PLAIN[word]


def greedy_weights(answers: Answers, truth: NDArray[Any], people: NDArray[Any]) -> WeightedVote:
    """A weight for each run and table of one task: greedy selection with replacement, for log loss, bagged over people.

    From an empty selection, the source is added that lowers the log loss of the selection's mean most, again and again; a
    source's weight is how often it was picked in the best selection on the way (Caruana et al. 2004). One that hurts is never
    picked. Picks are averaged over `BAGS` draws of people, which makes them steadier.
    """
    sources = [voter.source for voter in answers.voters]
    if len(sources) == 1:
        return WeightedVote({sources[0]: 1.0})
    rows = np.arange(len(truth))
    right = np.stack([array[rows, truth] for array in answers.probabilities]).astype(np.float64)  # (V, N)
    spoke = np.stack([array.any(axis=1) for array in answers.probabilities]).astype(np.float64)
    codes, _ = pd.factorize(people)
    rng, persons = np.random.default_rng(0), int(codes.max()) + 1
    picked = np.zeros(len(sources))
    for _ in range(BAGS):
        drawn = rng.multinomial(persons, np.full(persons, 1 / persons))[codes].astype(np.float64)
        picked += _picks(right, spoke, drawn)
    return WeightedVote(dict(zip(sources, (picked / picked.sum()).tolist(), strict=True)))


PLAIN: Mapping[str, Vote] = {"soft": SoftVote(), "hard": HardVote()}
"""Words of `--strategy` -> votes that learn nothing; power means, which have a number in their word, aside."""

LEARNED: Mapping[str, Callable[[Answers, NDArray[Any], NDArray[Any]], Vote]] = {"greedy": greedy_weights}
"""Words of `--strategy` -> what learns a task's vote from its out-of-fold answers, its truth (N,) and the photos' people (N,)."""


def _picks(right: NDArray[np.float64], spoke: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each of V sources is picked, as a share, shape (V,).

    Args:
        right: each source's probability of the true class, shape (V, N); 0 where it abstains.
        spoke: 1 where a source answers, otherwise 0, shape (V, N).
        weight: weight of each photo, shape (N,).
    """
    sums, counts = np.zeros(right.shape[1]), np.zeros(right.shape[1])
    picks: list[int] = []
    best_loss, best_length = np.inf, 1
    for length in range(1, STEPS + 1):
        losses = []
        for of_source, answered in zip(right, spoke, strict=True):
            mean = np.divide(sums + of_source, counts + answered, out=np.zeros_like(sums), where=counts + answered > 0)
            losses.append(float(weight @ -np.log(np.maximum(mean, LEAST))))
        pick = int(np.argmin(losses))
        picks.append(pick)
        sums, counts = sums + right[pick], counts + spoke[pick]
        if losses[pick] < best_loss:
            best_loss, best_length = losses[pick], length
    return np.bincount(picks[:best_length], minlength=len(right)) / best_length


def _calibration(probabilities: NDArray[np.float64], truth: NDArray[Any], kind: str) -> Calibration:
    """The calibration of least log loss (Guo et al. 2017).

    Args:
        probabilities: shape (N, C).
        truth: true class codes, shape (N,).
        kind: `temperature`: one scale; `vector`: a scale and a bias for each class, none for the last.
    """
    from scipy.optimize import minimize

    photos, classes = probabilities.shape
    logs = np.log(np.maximum(probabilities, LEAST))
    right = np.zeros((photos, classes))
    right[np.arange(photos), truth] = 1
    scales = 1 if kind == "temperature" else classes

    def of(numbers: NDArray[np.float64]) -> Calibration:
        scale = np.broadcast_to(np.exp(numbers[:scales]), classes)
        bias = np.zeros(classes) if scales == 1 else np.append(numbers[scales:], 0.0)
        return Calibration((tuple(scale.tolist()),), (tuple(bias.tolist()),))

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The log loss and its gradient. The last terms keep numbers finite that no photo depends on, as of an absent class."""
        calibration = of(numbers)
        calibrated = calibration.apply(probabilities)
        value = -np.log(np.maximum((calibrated * right).sum(axis=1), LEAST)).mean() + SHRINKING * numbers @ numbers
        by_class = ((calibrated - right) * logs).mean(axis=0) * np.array(calibration.scale[0])
        of_scale = by_class.sum(keepdims=True) if scales == 1 else by_class
        of_bias = np.zeros(0) if scales == 1 else (calibrated - right).mean(axis=0)[:-1]
        return float(value), np.concatenate([of_scale, of_bias]) + 2 * SHRINKING * numbers

    bounds = [(-MOST_SCALE, MOST_SCALE)] * scales + ([] if scales == 1 else [(-MOST_BIAS, MOST_BIAS)] * (classes - 1))
    return of(np.asarray(minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds).x))


def _people_pool(decisions: Mapping[str, Decision], truth: Truth, people: NDArray[Any]) -> PeoplePool:
    """How a person's photos answer together: for each task the way of least log loss.

    The ways are the mean of the probabilities or of their logarithms, with photos that count alike; then weights by the answer
    for the mask, where these save enough.
    """
    persons = pd.factorize(people)[0]
    means: dict[str, str] = {}
    weights: dict[str, tuple[float, ...]] = {}
    for task in OF_A_PERSON:
        alike = {mean: _pooled_loss(decisions, truth, persons, task, mean) for mean in MEANS}
        means[task] = min(MEANS, key=alike.__getitem__)
        row = _photo_weights(decisions, truth, persons, task, means[task])
        if _pooled_loss(decisions, truth, persons, task, means[task], row) < alike[means[task]] * (1 - WORTH):
            weights[task] = row
    return PeoplePool(means, "mask", weights)


def _pooled_loss(
    decisions: Mapping[str, Decision],
    truth: Truth,
    persons: NDArray[np.int64],
    task: str,
    mean: str,
    row: tuple[float, ...] | None = None,
) -> float:
    """The log loss of a task's answers by people, their photos weighted by their masks, or alike."""
    pool = PeoplePool({task: mean}, "mask", None if row is None else {task: row})
    return float(log_losses(truth[task], pool.pool(decisions, persons)[task].shares).mean())


def _photo_weights(
    decisions: Mapping[str, Decision], truth: Truth, persons: NDArray[np.int64], task: str, mean: str
) -> tuple[float, ...]:
    """The weights of photos by their masks that have the least log loss; those of the last class weigh 1."""
    from scipy.optimize import minimize

    def row_of(numbers: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(np.exp([*np.clip(numbers, -MOST_LOG, MOST_LOG), 0.0]).tolist())

    def loss(numbers: NDArray[np.float64]) -> float:
        return _pooled_loss(decisions, truth, persons, task, mean, row_of(numbers))

    start = np.zeros(len(CLASSES["mask"]) - 1)
    return row_of(minimize(loss, start, method="Nelder-Mead", options={"maxfev": 60}).x)


def _multipliers(probabilities: Probabilities, truth: Truth, people: NDArray[Any]) -> Multipliers | None:
    """Multipliers for the 18-way macro F1, of the tasks where they likely gain on people whom they were not learned from; None
    where there is no such task.

    With numbers for all tasks they fit chance: on 1,800 people those of mask and gender lost what those of age
    gained (docs/decisions/0015-combiners.md).
    """
    persons = pd.Series(people)
    groups = pd.factorize(people)[0] % GROUPS
    plain = {task: np.asarray(shares.argmax(axis=1)) for task, shares in probabilities.items()}
    true_label = compose(*(truth[task] for task in TASKS))
    before = compose(*(plain[task] for task in TASKS))
    gaining = []
    for task in TASKS:
        choice = plain[task].copy()
        for group in range(GROUPS):
            rest, own = groups != group, groups == group
            if not own.any() or not rest.any():
                continue
            part = {name: shares[rest] for name, shares in probabilities.items()}
            factors = _search(part, {name: codes[rest] for name, codes in truth.items()}, [task])
            choice[own] = (probabilities[task][own] * factors[task]).argmax(axis=1)
        label = compose(*(choice if name == task else plain[name] for name in TASKS))
        gain = difference(persons, true_label, before, label, len(LABELS), DRAWS)
        if gain.value > 0 and gain.probability > LIKELY:
            gaining.append(task)
    if not gaining:
        return None
    factors = _search(probabilities, truth, gaining)
    return Multipliers({task: tuple(factors[task].tolist()) for task in gaining})


def _search(probabilities: Probabilities, truth: Truth, tasks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Multipliers of some tasks that raise the 18-way macro F1, found class by class; shape (C,) each, geometric mean 1."""
    logs = {task: np.zeros(probabilities[task].shape[1]) for task in tasks}
    choice = {task: np.asarray(shares.argmax(axis=1)) for task, shares in probabilities.items()}
    true_label = compose(*(truth[task] for task in TASKS))
    for sweep in range(SWEEPS):
        steps = np.linspace(-RANGE, RANGE, POINTS) * 0.5**sweep
        for task in tasks:
            scores = np.log(np.maximum(probabilities[task], LEAST)) + logs[task]
            # Only ratios count: of two classes one number says all.
            for code in range(scores.shape[1] if scores.shape[1] > 2 else 1):
                curve = _curve(scores, code, steps, choice, task, true_label)
                padded = np.pad(curve, SMOOTHED // 2, mode="edge")
                smoothed = np.convolve(padded, np.full(SMOOTHED, 1 / SMOOTHED), "valid")
                best = int(smoothed.argmax())
                if smoothed[best] > smoothed[POINTS // 2]:
                    logs[task][code] += steps[best]
                    scores[:, code] += steps[best]
            choice[task] = np.asarray(scores.argmax(axis=1))
    return {task: np.exp(values - values.mean()) for task, values in logs.items()}


def _curve(
    scores: NDArray[np.float64],
    code: int,
    steps: NDArray[np.float64],
    choice: Truth,
    task: str,
    true_label: NDArray[Any],
) -> NDArray[np.float64]:
    """18-way macro F1 if each step in turn is added to one class's scores, shape (S,), from counts of all steps at once.

    Args:
        scores: log probabilities of the task's classes, shape (N, C).
        code: the class.
        steps: S numbers, increasing.
        choice: task -> the class that is chosen, shape (N,).
        task: the task.
        true_label: true labels, shape (N,).
    """
    others = scores.copy()
    others[:, code] = -np.inf
    second = others.argmax(axis=1)
    # From this step on a photo's answer is the class; a tie goes to the lower class.
    needed = np.take_along_axis(others, second[:, None], axis=1)[:, 0] - scores[:, code]
    first = np.where(code < second, np.searchsorted(steps, needed, "left"), np.searchsorted(steps, needed, "right"))
    labels = len(LABELS)

    def counts(of_task: NDArray[Any]) -> NDArray[np.int64]:
        """Counts by (first step, truth, label), shape (S + 1, L, L), if the photos' answers for the task are these."""
        answered = compose(*(of_task if name == task else choice[name] for name in TASKS))
        cells = (first * labels + true_label) * labels + answered
        return np.bincount(cells, minlength=(len(steps) + 1) * labels**2).reshape(-1, labels, labels)

    as_class, as_second = counts(np.full(len(scores), code)), counts(second)
    taken, left = np.cumsum(as_class, axis=0)[:-1], as_second.sum(axis=0) - np.cumsum(as_second, axis=0)[:-1]
    return np.asarray(f1_of(taken + left).mean(axis=-1))

"""`--strategy auto`: several strategies are tried, and the best is used if it is surely better than a soft vote.

The choice is learned like any other number: from some people, scored on others (`out_of_fold.cross_fit`), so the score of `auto`
counts what choosing among many costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import TriedStrategy
from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combiner
from orchestrator.combining.voting import WeightedVote
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import LABELS, TASKS, compose
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.intervals import difference
from orchestrator.ensembling.learning import Learner, StrategyLearner, Truth

__all__ = ["AutoLearner", "Tried", "try_strategies"]

SURE = 0.95
"""Probability of being better than a soft vote, with other people, from which another strategy is used: of five independent ones
that are no better, some one reaches 0.84 in 58 of 100 tries (1 - 0.84^5), and 0.95 in 23."""

GROUPS, DRAWS = 5, 400
"""Groups of people of the scores that decide, and draws of people of their differences."""

SOFT = "soft"
WITHOUT_WEAK = "soft, without runs that hurt"
DECIDED = "+macro-f1"


@dataclass(frozen=True)
class _WithoutWeak:
    """A soft vote without the runs and tables that surely lower the 18-way macro F1, one after the other."""

    strategy: Strategy
    learns = True

    def fit(self, answers: Answers, truth: Truth, people: NDArray[Any]) -> Combiner:
        """As of `Learner`."""
        left_out: list[str] = []
        learner = StrategyLearner(self.strategy)
        while (weakest := self._weakest(answers, truth, people, left_out)) is not None:
            left_out.append(weakest)
        combiner = learner.fit(answers.where(lambda voter: voter.source not in left_out), truth, people)
        return replace(combiner, votes=_votes_without(combiner, answers, left_out)) if left_out else combiner

    def _weakest(self, answers: Answers, truth: Truth, people: NDArray[Any], left_out: list[str]) -> str | None:
        """The source without which the score surely rises most; None if there is none."""
        combiner = StrategyLearner(replace(self.strategy, calibrate="none", decide="argmax", pool_people=False)).fit(
            answers, truth, people
        )
        true_label, persons = compose(*(truth[task] for task in TASKS)), pd.Series(people)

        def label(without: list[str]) -> NDArray[np.int64]:
            return replace(combiner, votes=_votes_without(combiner, answers, without)).combine(answers).label

        before, gains = label(left_out), dict[str, float]()
        score = macro_f1(true_label, before, len(LABELS))
        for source in answers.sources:
            if source in left_out or not _is_spare(answers, [*left_out, source]):
                continue
            after = label([*left_out, source])
            gain = macro_f1(true_label, after, len(LABELS)) - score
            if gain > 0 and difference(persons, true_label, before, after, len(LABELS), DRAWS).probability >= SURE:
                gains[source] = gain
        return max(gains, key=gains.__getitem__) if gains else None


def _votes_without(combiner: Combiner, answers: Answers, left_out: list[str]) -> Mapping[str, Any]:
    """Soft votes in which some sources have no weight."""
    votes = dict(combiner.votes)
    for task in answers.classes:
        sources = answers.of(task).sources
        if set(sources) & set(left_out):
            votes[task] = WeightedVote({source: float(source not in left_out) for source in sources})
    return votes


def _is_spare(answers: Answers, left_out: list[str]) -> bool:
    """Whether every task of every photo is answered without some sources."""
    rest = answers.where(lambda voter: voter.source not in left_out)
    for task in answers.classes:
        arrays = rest.of(task).probabilities
        if not arrays or not np.logical_or.reduce([array.any(axis=1) for array in arrays]).all():
            return False
    return True


@dataclass(frozen=True)
class Tried:
    """Strategies that were tried on the same people.

    Attributes:
        strategies: what was tried, the soft vote first; one is chosen.
        learner: what learns the chosen one.
    """

    strategies: tuple[TriedStrategy, ...]
    learner: Learner


@dataclass(frozen=True)
class AutoLearner:
    """Chooses a strategy, and learns its numbers.

    Attributes:
        strategy: what was asked for beside the vote.
    """

    strategy: Strategy
    learns = True

    def fit(self, answers: Answers, truth: Truth, people: NDArray[Any]) -> Combiner:
        """As of `Learner`."""
        return try_strategies(self.strategy, answers, truth, people).learner.fit(answers, truth, people)


def try_strategies(asked: Strategy, answers: Answers, truth: Truth, people: NDArray[Any]) -> Tried:
    """Tries all votes that may differ from a soft one, each learned from some people and scored on the others; then a decision
    for macro F1 after the best.

    Args:
        asked: what was asked for beside the vote.
        answers: out-of-fold answers for N photos.
        truth: task -> true class codes, shape (N,).
        people: the person of each photo, shape (N,).
    """
    persons = pd.factorize(people)[0].astype(np.int64)
    true_label, drawn = compose(*(truth[task] for task in TASKS)), pd.Series(people)
    labels, strategies = dict[str, NDArray[np.int64]](), list[TriedStrategy]()
    learners = _votes(asked, answers)

    def tried(name: str) -> TriedStrategy:
        labels[name] = _nested_label(learners[name], answers, truth, people, persons)
        gain = None if name == SOFT else difference(drawn, true_label, labels[SOFT], labels[name], len(LABELS), DRAWS)
        return TriedStrategy(name, macro_f1(true_label, labels[name], len(LABELS)), gain)

    strategies += [tried(name) for name in learners]
    best = max(filter(_is_sure, strategies), key=lambda strategy: strategy.macro_f1, default=strategies[0])
    if asked.decide == "argmax" and best.name != "hard":  # shares of votes cannot be decided for macro F1
        name = f"{best.name} {DECIDED}"
        voted = learners[best.name]
        assert isinstance(voted, StrategyLearner | _WithoutWeak)
        learners[name] = replace(voted, strategy=replace(voted.strategy, decide="macro-f1"))
        strategies.append(tried(name))
        gain = difference(drawn, true_label, labels[best.name], labels[name], len(LABELS), DRAWS)
        best = strategies[-1] if gain.probability >= SURE else best
    return Tried(tuple(replace(strategy, chosen=strategy is best) for strategy in strategies), learners[best.name])


def _is_sure(strategy: TriedStrategy) -> bool:
    return strategy.over_soft is not None and strategy.over_soft.probability >= SURE


def _votes(asked: Strategy, answers: Answers) -> dict[str, Learner]:
    """Name -> what learns a vote, the soft one first: those alone that can answer otherwise than it out of fold."""
    learners: dict[str, Learner] = {}
    soft = replace(asked, votes=dict.fromkeys(TASKS, SOFT))
    learners[SOFT] = StrategyLearner(soft)
    if any(len(answers.of(task).sources) > 1 for task in TASKS):
        for word in ("geometric", "hard", "greedy"):
            try:
                strategy = Strategy.parse(word, asked.calibrate, asked.decide, asked.pool_people)
            except ConfigError:  # shares of votes cannot be calibrated
                continue
            learners[word] = StrategyLearner(strategy)
        learners[WITHOUT_WEAK] = _WithoutWeak(soft)
    return learners


def _nested_label(
    learner: Learner, answers: Answers, truth: Truth, people: NDArray[Any], persons: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The label of each photo by what was learned from other groups of people, shape (N,)."""
    if not learner.learns:
        return learner.fit(answers, truth, people).combine(answers, persons).label
    label, groups = np.zeros(len(persons), np.int64), persons % GROUPS
    for group in range(GROUPS):
        own = groups == group
        if own.any() and not own.all():
            rest = {task: codes[~own] for task, codes in truth.items()}
            combiner = learner.fit(answers.take(~own), rest, people[~own])
            label[own] = combiner.combine(answers.take(own), persons[own]).label
    return label

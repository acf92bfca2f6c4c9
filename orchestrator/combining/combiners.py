"""Combiners: ways to turn several answers into one. They may be fitted to out-of-fold answers, and are saved as JSON.

A new combiner is a class here or in a sibling module, with its name in `COMBINERS` and in the package's `STRATEGIES`.
Scoring, prediction, cascades, pseudo-labels and exported programs then use it. One that changes another's answers (a
calibration, a decision rule) holds that combiner and returns other decisions; it does not inherit from it, since what is
true of a vote (that it averages, that it is settled) may not be true of the rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from .answers import Answers, Floats, Voter
from .votes import UNIT_BITS, Decision, agreement, hard_vote, integer_weights, lead_of, soft_vote, sums_of, tally

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["COMBINERS", "Combined", "Combiner", "HardVote", "SoftVote", "by_source", "read_combiner"]


@dataclass(frozen=True, eq=False)
class Combined:
    """One answer for each of N photos.

    Attributes:
        decisions: task -> its combined answer, in the order of the label's digits, the most significant first; at least one.
    """

    decisions: Mapping[str, Decision]

    @cached_property
    def label(self) -> NDArray[np.int64]:
        """The classes of all tasks as one number, shape (N,), int64."""
        label = np.zeros(len(next(iter(self.decisions.values())).choice), np.int64)
        for decision in self.decisions.values():
            label = label * decision.scores.shape[1] + decision.choice
        return label

    def agreement(self, answers: Answers) -> NDArray[np.float64]:
        """The smallest (weighted) share over the tasks of voters whose first choice is the class chosen, shape (N,), 0..1.

        Args:
            answers: the answers that were combined.
        """
        of_tasks = [(decision.choice, answers.of(task)) for task, decision in self.decisions.items()]
        return np.asarray(
            np.min([agreement(chosen, own.probabilities, own.weights) for chosen, own in of_tasks], axis=0)
        )

    @staticmethod
    def gathered(parts: Sequence[tuple[NDArray[np.int64], Combined]]) -> Combined:
        """The answers for all photos, from those for some of them.

        Args:
            parts: row numbers among all photos, shape (n,), and the answers for these; every row in one part.
        """
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        tasks = parts[0][1].decisions
        return Combined(
            {task: Decision.concatenated([part.decisions[task] for _, part in parts]).take(order) for task in tasks}
        )


def by_source(answers: Answers) -> Answers:
    """One voter of weight 1 for each run or table and task: the mean of its members' answers, as out of fold.

    Out of fold a run answers once, by the member that has not seen the person; in prediction each of its members does. What is
    learned from out-of-fold answers, a weight for each run for instance, is applied to these.

    Args:
        answers: answers of members, or out of fold; members that abstain for a photo do not count there.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for number, voter in enumerate(answers.voters):
        groups.setdefault((voter.task, voter.source), []).append(number)
    voters, arrays = [], []
    for (task, source), numbers in groups.items():
        sums = sums_of([answers.probabilities[number] for number in numbers], [1] * len(numbers))
        total = sums.sum(axis=1, keepdims=True)
        voters.append(Voter(task, source, external=answers.voters[numbers[0]].external))
        arrays.append(np.divide(sums, total, where=total > 0, out=np.zeros(sums.shape)))
    return replace(answers, voters=tuple(voters), probabilities=tuple(arrays))


class Combiner(ABC):
    """How answers become one. Constructed without arguments, it is not fitted.

    Attributes:
        name: its name as a value of `--strategy`.
        how: one sentence for users who combine exported networks by their own program.
        averages: whether a task's answer is the plain mean of its voters, so that some of them predict it (`orch
            cascade`).
        learns: whether `fit` learns from out-of-fold answers, without which it combines nothing.
    """

    name: ClassVar[str]
    how: ClassVar[str]
    averages: ClassVar[bool] = False
    learns: ClassVar[bool] = False

    def fit(self, answers: Answers, truth: Mapping[str, NDArray[Any]], people: NDArray[Any]) -> Self:  # noqa: ARG002  (others use it)
        """The fitted combiner; itself if there is nothing to fit. A fitted combiner may be fitted again, to other answers.

        Args:
            answers: out-of-fold answers for N photos.
            truth: task -> true class codes, shape (N,).
            people: the person of each photo, shape (N,); any split made for fitting must be by person.
        """
        return self

    @abstractmethod
    def decide(self, answers: Answers) -> Decision:
        """The decision of one task.

        Args:
            answers: answers for that task alone: out of fold one voter for each run, in prediction one for each member. A
                combiner that learned something of each run begins with `by_source`. Sources that it learned something of may
                be missing: an external table is taken out to see what it changes.

        Raises:
            ValueError: no voters, or voters that it cannot combine.
        """

    def probabilities(self, answers: Answers) -> Floats:
        """Probabilities of the classes of one task, shape (N, C), for thresholds: those of the decision.

        Args:
            answers: answers for that task alone.

        Raises:
            ValueError: no voters, or voters that it cannot combine.
        """
        return self.decide(answers).shares

    def combine(self, answers: Answers) -> Combined:
        """One answer for each photo.

        Raises:
            ValueError: a task without voters, or voters that it cannot combine.
        """
        return Combined({task: self.decide(answers.of(task)) for task in answers.classes})

    def settled(self, so_far: Answers, pending: Sequence[Voter]) -> NDArray[np.bool_]:  # noqa: ARG002  (others use it)
        """Photos whose decision no answers of the pending voters could change, shape (N,), bool.

        Args:
            so_far: answers of one task, none of which abstains.
            pending: voters of the same task that have not been asked.
        """
        return np.zeros(len(so_far), bool)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `read_combiner` reads it back."""
        return {"name": self.name}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:  # noqa: ARG003  (others use it)
        """The inverse of `as_dict`.

        Raises:
            ValueError: the value does not describe this combiner.
        """
        return cls()


@final
class SoftVote(Combiner):
    """The (weighted) mean of the voters' probabilities; the highest wins."""

    name = "soft"
    how = "Within a task take the mean of the members' probabilities; the highest wins, a tie goes to the lower class."
    averages = True

    def decide(self, answers: Answers) -> Decision:
        """As `soft_vote`."""
        return soft_vote(answers.probabilities, answers.weights)

    def settled(self, so_far: Answers, pending: Sequence[Voter]) -> NDArray[np.bool_]:
        """Where the lead is more than the probabilities of all pending voters could make up for."""
        weights, pending_weight = _weights_apart(so_far, pending)
        return np.asarray(lead_of(sums_of(so_far.probabilities, weights)) > pending_weight * 2**UNIT_BITS)


@final
class HardVote(Combiner):
    """Each voter's first choice counts; the majority wins."""

    name = "hard"
    how = (
        "Within a task each member votes for its most probable class; the most votes win, a tie goes to the "
        "class of the higher mean probability."
    )

    def decide(self, answers: Answers) -> Decision:
        """As `hard_vote`."""
        return hard_vote(answers.probabilities, answers.weights)

    def probabilities(self, answers: Answers) -> Floats:
        """The mean of the voters' probabilities: shares of votes are not probabilities."""
        return soft_vote(answers.probabilities, answers.weights).shares

    def settled(self, so_far: Answers, pending: Sequence[Voter]) -> NDArray[np.bool_]:
        """Where the lead is more than the votes of all pending voters."""
        weights, pending_weight = _weights_apart(so_far, pending)
        return np.asarray(lead_of(tally(so_far.probabilities, weights)) > pending_weight)


def _weights_apart(so_far: Answers, pending: Sequence[Voter]) -> tuple[list[int], int]:
    """Integer weights of the voters that answered, and the sum of the pending voters' weights, on one scale."""
    weights = [*so_far.weights, *(voter.weight for voter in pending)]
    integers = integer_weights(len(weights), weights)
    return integers[: len(so_far.voters)], sum(integers[len(so_far.voters) :])


COMBINERS: Mapping[str, type[Combiner]] = {combiner.name: combiner for combiner in (SoftVote, HardVote)}
"""Name -> class."""


def read_combiner(value: Mapping[str, Any]) -> Combiner:
    """Restores a combiner from its `as_dict`.

    Raises:
        ValueError: the name is unknown, or the value does not describe that combiner.
    """
    name = str(value.get("name"))
    if name not in COMBINERS:
        raise ValueError(f"combiner {name!r}; allowed: {', '.join(COMBINERS)}")
    return COMBINERS[name].from_dict(value)

"""Votes: ways to make one answer of a task's voters. Each is a value that is kept as JSON.

A new vote is a class here, entered in `VOTES`. If its numbers are learned, `ensembling/learning.py` learns them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import PROBABILITY, SHARE
from .answers import Answers, Floats, Voter
from .votes import (
    UNIT_BITS,
    Decision,
    hard_vote,
    integer_weights,
    lead_of,
    power_sums,
    power_vote,
    soft_vote,
    sums_of,
    tally,
)

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["VOTES", "HardVote", "PowerVote", "SoftVote", "Vote", "WeightedVote", "read_vote"]


LEAST_EXPONENT = 0.01
"""Smallest exponent above 0: with less, all probabilities to that power are the same number in units of 2^-23."""


class Vote(ABC):
    """How the answers of one task's voters become one.

    Attributes:
        name: its name in JSON.
        prefix: prefix of its columns in tables: `PROBABILITY`, or `SHARE` where its shares are none.
        averages: whether its answer is the plain mean of its voters, so that some of them predict it (`orch cascade`).
    """

    name: ClassVar[str]
    prefix: ClassVar[str] = PROBABILITY
    averages: ClassVar[bool] = False

    @property
    def title(self) -> str:
        """Its name in messages, with what sets it apart from others of the name."""
        return self.name

    @property
    @abstractmethod
    def how(self) -> str:
        """One sentence for users who combine exported networks by their own program."""

    @abstractmethod
    def decide(self, answers: Answers) -> Decision:
        """The decision of one task.

        Args:
            answers: answers for that task alone: out of fold one voter for each run, in prediction one for each member. Sources
                that it has learned something of may be missing: a table is taken out to see what it changes.

        Raises:
            ValueError: no voters, or voters that it cannot combine.
        """

    def probabilities(self, answers: Answers) -> Floats:
        """Probabilities of the classes, shape (N, C), float64, for thresholds: those of the decision; errors likewise."""
        return self.decide(answers).shares

    def settled(
        self,
        so_far: Answers,
        pending: Sequence[Voter],  # noqa: ARG002  (likewise)
        factors: Sequence[float] = (),  # noqa: ARG002  (likewise)
    ) -> NDArray[np.bool_]:
        """Photos whose decision no answers of the pending voters could change, shape (N,), bool.

        Args:
            so_far: answers of one task, none of which abstains.
            pending: voters of the same task that have not been asked.
            factors: C positive numbers by which the probabilities are multiplied before the highest wins; empty: by none.
        """
        return np.zeros(len(so_far), bool)

    def check(self, sources: Set[str]) -> None:  # noqa: B027  (only votes that learn have numbers to check)
        """Refuses numbers for other voters than those that answer.

        Args:
            sources: the runs and tables that answer.

        Raises:
            ValueError: one of them has no number.
        """

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `read_vote` reads it back."""
        return {"name": self.name}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:  # noqa: ARG003  (others use it)
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: the value does not describe this vote.
        """
        return cls()


@dataclass(frozen=True)
class SoftVote(Vote):
    """The (weighted) mean of the voters' probabilities; the highest wins."""

    name = "soft"
    averages = True

    @property
    def how(self) -> str:
        """As of `Vote`."""
        return "take the mean of the members' probabilities; the highest wins, a tie goes to the lower class."

    def decide(self, answers: Answers) -> Decision:
        """As `soft_vote`."""
        return soft_vote(answers.probabilities, answers.weights)

    def settled(self, so_far: Answers, pending: Sequence[Voter], factors: Sequence[float] = ()) -> NDArray[np.bool_]:
        """Where the lead is more than the probabilities of all pending voters could make up for."""
        return _settled_mean(so_far, _weights(so_far.voters), _weights(pending), factors)


@dataclass(frozen=True)
class HardVote(Vote):
    """Each voter's first choice counts; the majority wins."""

    name = "hard"
    prefix = SHARE

    @property
    def how(self) -> str:
        """As of `Vote`."""
        return (
            "each member votes for its most probable class; the most votes win, a tie goes to the class of the higher mean "
            "probability."
        )

    def decide(self, answers: Answers) -> Decision:
        """As `hard_vote`."""
        return hard_vote(answers.probabilities, answers.weights)

    def probabilities(self, answers: Answers) -> Floats:
        """The mean of the voters' probabilities: shares of votes are not probabilities."""
        return soft_vote(answers.probabilities, answers.weights).shares

    def settled(self, so_far: Answers, pending: Sequence[Voter], factors: Sequence[float] = ()) -> NDArray[np.bool_]:
        """Where the lead is more than the votes of all pending voters."""
        if len(factors):
            return super().settled(so_far, pending, factors)
        weights, pending_weight = _on_one_scale(_weights(so_far.voters), _weights(pending))
        return np.asarray(lead_of(tally(so_far.probabilities, weights)) > pending_weight)


@dataclass(frozen=True)
class PowerVote(Vote):
    """A power mean of the voters' probabilities: between the geometric mean and the mean.

    Attributes:
        exponent: 0, the geometric mean, or `LEAST_EXPONENT` up to 1, the mean.
    """

    exponent: float
    name = "power"

    def __post_init__(self) -> None:
        if self.exponent != 0 and not LEAST_EXPONENT <= self.exponent <= 1:
            raise ValueError(f"the exponent of a power mean must lie in 0..1, got {self.exponent}")

    @property
    def title(self) -> str:
        """`geometric`, or `power:0.5`."""
        return f"power:{self.exponent:g}" if self.exponent else "geometric"

    @property
    def how(self) -> str:
        """As of `Vote`."""
        mean = f"power mean (exponent {self.exponent:g})" if self.exponent else "geometric mean"
        return f"take the {mean} of the members' probabilities; the highest wins, a tie goes to the lower class."

    def decide(self, answers: Answers) -> Decision:
        """As `power_vote`."""
        return power_vote(answers.probabilities, answers.weights, self.exponent)

    def settled(self, so_far: Answers, pending: Sequence[Voter], factors: Sequence[float] = ()) -> NDArray[np.bool_]:
        """Where the lead is more than the pending voters could make up for, whatever they answer."""
        if len(factors):
            return super().settled(so_far, pending, factors)
        weights, pending_weight = _on_one_scale(_weights(so_far.voters), _weights(pending))
        sums, _ = power_sums(so_far.probabilities, weights, self.exponent)
        return np.asarray(lead_of(sums) > pending_weight * 2**UNIT_BITS)

    def as_dict(self) -> dict[str, Any]:
        """As of `Vote`."""
        return {"name": self.name, "exponent": self.exponent}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """As of `Vote`."""
        return cls(float(value["exponent"]))


@dataclass(frozen=True)
class WeightedVote(Vote):
    """The mean of the voters' probabilities, where each run or table has a weight of its own, which its members share.

    Attributes:
        weights: run or table -> its weight, not negative; 0 leaves it out.
    """

    weights: Mapping[str, float]
    name = "weighted"

    def __post_init__(self) -> None:
        if not all(np.isfinite(weight) and weight >= 0 for weight in self.weights.values()):
            raise ValueError(f"weights must not be negative, got {dict(self.weights)}")

    @property
    def how(self) -> str:
        """As of `Vote`."""
        weights = ", ".join(f"{source} {weight:.3g}" for source, weight in self.weights.items())
        return (
            f"take the mean of the members' probabilities, weighted by their run ({weights}; a run's weight is divided among its "
            "members); the highest wins, a tie goes to the lower class."
        )

    def decide(self, answers: Answers) -> Decision:
        """As `soft_vote`, with these weights; photos for which every run and table that has a weight abstains: as without any."""
        own = answers.where(lambda voter: self._weight(voter) > 0)
        spoke = np.zeros(len(answers), bool)
        for array in own.probabilities:
            spoke |= np.asarray(array.any(axis=1))
        if spoke.all():
            return soft_vote(own.probabilities, self._shared(own.voters, own.voters))
        rest, silent = soft_vote(answers.probabilities, [1.0] * len(answers.voters)), np.flatnonzero(~spoke)
        if not spoke.any():
            return rest
        rows = np.flatnonzero(spoke)
        heard = own.take(rows)
        parts = [soft_vote(heard.probabilities, self._shared(heard.voters, heard.voters)), rest.take(silent)]
        return Decision.concatenated(parts).take(np.argsort(np.concatenate([rows, silent])))

    def settled(self, so_far: Answers, pending: Sequence[Voter], factors: Sequence[float] = ()) -> NDArray[np.bool_]:
        """As of a soft vote."""
        own = so_far.where(lambda voter: self._weight(voter) > 0)
        rest = [voter for voter in pending if self._weight(voter) > 0]
        if not own.voters:
            return super().settled(so_far, pending, factors)
        every = [*own.voters, *rest]
        return _settled_mean(own, self._shared(own.voters, every), self._shared(rest, every), factors)

    def check(self, sources: Set[str]) -> None:
        """As of `Vote`."""
        if missing := sources - self.weights.keys():
            raise ValueError(f"no weight was learned for {', '.join(sorted(missing))}")

    def _weight(self, voter: Voter) -> float:
        try:
            return self.weights[voter.source]
        except KeyError:
            raise ValueError(f"no weight was learned for {voter.source}") from None

    def _shared(self, voters: Sequence[Voter], every: Sequence[Voter]) -> list[float]:
        """The weight of each voter: its source's, divided among all of its members."""
        sources = [voter.source for voter in every]
        return [self._weight(voter) / sources.count(voter.source) for voter in voters]

    def as_dict(self) -> dict[str, Any]:
        """As of `Vote`."""
        return {"name": self.name, "weights": dict(self.weights)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """As of `Vote`."""
        return cls({str(source): float(weight) for source, weight in value["weights"].items()})


def _weights(voters: Sequence[Voter]) -> list[float]:
    return [voter.weight for voter in voters]


def _on_one_scale(weights: Sequence[float], pending: Sequence[float]) -> tuple[list[int], int]:
    """Integer weights of the voters that answered, and the sum of the pending voters' weights, on one scale."""
    integers = integer_weights(len(weights) + len(pending), [*weights, *pending])
    return integers[: len(weights)], sum(integers[len(weights) :])


def _settled_mean(
    so_far: Answers, weights: Sequence[float], pending: Sequence[float], factors: Sequence[float]
) -> NDArray[np.bool_]:
    """Where no answers of pending voters could change which class has the highest mean, times its factor."""
    integers, pending_weight = _on_one_scale(weights, pending)
    sums, most = sums_of(so_far.probabilities, integers), pending_weight * 2**UNIT_BITS
    if not len(factors):
        return np.asarray(lead_of(sums) > most)
    # At worst the pending voters are certain of one other class, and give the leader nothing.
    scaled, factor_of = sums.astype(np.float64) * np.asarray(factors), np.asarray(factors, np.float64)
    leader = scaled.argmax(axis=1)[:, None]
    others = np.where(np.arange(scaled.shape[1]) == leader, -1.0, scaled + most * factor_of)
    lead = np.take_along_axis(scaled, leader, axis=1)[:, 0] - others.max(axis=1)
    return np.asarray(lead > scaled.max() * 1e-12)  # more than rounding could make up for


VOTES: Mapping[str, type[Vote]] = {vote.name: vote for vote in (SoftVote, HardVote, PowerVote, WeightedVote)}
"""Name in JSON -> class."""


def read_vote(value: Mapping[str, Any]) -> Vote:
    """Restores a vote from its `as_dict`.

    Raises:
        KeyError, TypeError, ValueError: the name is unknown, or the value does not describe that vote.
    """
    name = str(value.get("name"))
    if name not in VOTES:
        raise ValueError(f"vote {name!r}; allowed: {', '.join(VOTES)}")
    return VOTES[name].from_dict(value)

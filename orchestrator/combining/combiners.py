"""Combiners: how several answers become one, as a value that is kept as JSON.

    voters' answers -> a vote for each task -> calibration [-> a person's photos together] -> a decision rule -> the label

A combiner holds numbers alone; `ensembling/learning.py` learns those that come from out-of-fold answers. Scoring, prediction,
cascades, pseudo-labels and exported programs use combiners by what they do, and know none of their parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import PROBABILITY
from .answers import Answers, Floats, Voter
from .calibration import LARGEST_LOG, Calibration
from .people import NOBODY, PeoplePool
from .rules import Multipliers
from .votes import Decision, agreement
from .voting import SoftVote, Vote, read_vote

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["Combined", "Combiner", "soft_combiner"]


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


@dataclass(frozen=True)
class Combiner:
    """How answers become one.

    Attributes:
        votes: task -> how its voters' answers become one.
        calibrations: task -> what its probabilities are then changed by; tasks may be missing.
        rule: which label is answered, given the probabilities; None: each task's most probable class.
        people: how a person's photos answer together, where it is known who is on them; None: each photo answers alone.

    Raises:
        ValueError: calibrations or a rule for shares of votes, which are no probabilities, or for other tasks.
    """

    votes: Mapping[str, Vote]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    rule: Multipliers | None = None
    people: PeoplePool | None = None

    def __post_init__(self) -> None:
        changed = {
            *self.calibrations,
            *(self.people.means if self.people else ()),
            *(task for rule in self._rules for task in rule.factors),
        }
        given = {calibration.given for calibration in self.calibrations.values()} - {""}
        if unknown := (changed | given) - set(self.votes):
            raise ValueError(f"numbers for {', '.join(sorted(unknown))}, whose answers are not combined")
        if bare := [task for task in self.votes if task in changed and self.votes[task].prefix != PROBABILITY]:
            raise ValueError(f"{bare[0]}: shares of votes are no probabilities that could be changed")

    @property
    def _rules(self) -> list[Multipliers]:
        """Its rules: for photos alone, and for those that answer together."""
        return [rule for rule in (self.rule, self.people.rule if self.people else None) if rule is not None]

    @property
    def title(self) -> str:
        """Its name in messages: `soft vote`, `soft vote, calibrated, with multipliers`."""
        titles = {task: vote.title for task, vote in self.votes.items()}
        votes = list(titles.values())[:1]
        if len(set(titles.values())) > 1:
            votes = [f"{task} {title}" for task, title in titles.items()]
        parts = [f"{', '.join(votes)} vote"]
        parts += ["calibrated"] if self.calibrations else []
        parts += ["with multipliers"] if self.rule is not None else []
        parts += ["people's photos together"] if self.people is not None else []
        return ", ".join(parts)

    @property
    def averages(self) -> bool:
        """Whether each task's answer is the plain mean of its voters, so that some of them predict it (`orch cascade`)."""
        plain = all(calibration.keeps_order for calibration in self.calibrations.values())
        return plain and self.rule is None and all(vote.averages for vote in self.votes.values())

    @property
    def how(self) -> str:
        """Sentences for users who combine exported networks by their own program."""
        sentences = [f"{task}: {vote.how}" for task, vote in self.votes.items()]
        if len({vote.how for vote in self.votes.values()}) == 1:
            sentences = [f"Within a task {next(iter(self.votes.values())).how}"]
        for task, calibration in self.calibrations.items():
            by = f", by the answer for {calibration.given}" if calibration.given else ""
            sentences.append(
                f"Then the probabilities p of {task} become softmax(scale * log(p) + bias){by}: scale {calibration.scale}, "
                f"bias {calibration.bias}."
            )
        return " ".join([*sentences, *(part.how for part in (self.people, self.rule) if part is not None)])

    @property
    def prefixes(self) -> dict[str, str]:
        """Task -> prefix of its columns in tables."""
        return {task: vote.prefix for task, vote in self.votes.items()}

    def answerable(self, tasks: Set[str]) -> list[str]:
        """The tasks that can be answered where some tasks alone have voters: not those that are calibrated by another one."""
        given = {task: calibration.given for task, calibration in self.calibrations.items()}
        return [task for task in self.votes if task in tasks and given.get(task, "") in {"", *tasks}]

    def check(self, classes: Mapping[str, int], sources: Mapping[str, Set[str]]) -> None:
        """Refuses numbers for other classes, tasks or voters than an ensemble's.

        Args:
            classes: task -> its number of classes.
            sources: task -> the runs and tables that answer for it.

        Raises:
            ValueError: numbers that do not fit.
        """
        if set(self.votes) != set(classes):
            raise ValueError(f"votes for {', '.join(self.votes)}")
        for task, vote in self.votes.items():
            vote.check(sources[task])
        for task, calibration in self.calibrations.items():
            if [*map(len, calibration.scale)] != [classes[task]] * classes.get(calibration.given, 1):
                raise ValueError(f"a calibration of other classes than those of {task}")
        if any(len(row) != classes.get(task) for rule in self._rules for task, row in rule.factors.items()):
            raise ValueError("multipliers of other classes")
        people = self.people
        weights = {} if people is None else people.weights or {}
        if people is not None and any(len(row) != classes.get(people.given) for row in weights.values()):
            raise ValueError(f"weights of photos by {people.given!r}")

    def vote(self, answers: Answers) -> dict[str, Decision]:
        """The votes alone: task -> its decision, before calibration and rule.

        Raises:
            ValueError: a task without voters, or voters that its vote cannot combine.
        """
        return {task: self.votes[task].decide(answers.of(task)) for task in answers.classes}

    def finish(self, voted: Mapping[str, Decision], persons: NDArray[np.int64] | None = None) -> Combined:
        """Calibration, a person's photos together, and the rule, after the votes.

        Args:
            voted: task -> its vote's decision.
            persons: a code for the person on each photo, shape (N,), `NOBODY` where it is not known; the N photos must hold all
                of a person's. None: each photo answers alone.
        """
        decisions = self._calibrated(voted)
        alone = Combined(_decided(decisions, self.rule))
        if self.people is None or persons is None:
            return alone
        together = _decided(self.people.pool(decisions, persons), self.people.rule)
        known = persons != NOBODY
        return Combined({
            task: Decision(
                np.where(known, together[task].choice, decision.choice),
                np.where(known[:, None], together[task].shares, decision.shares),
            )
            for task, decision in alone.decisions.items()
        })  # fmt: skip

    def _calibrated(self, voted: Mapping[str, Decision]) -> dict[str, Decision]:
        decisions = dict(voted)
        for task, calibration in self.calibrations.items():
            if task not in voted:
                continue
            groups = voted[calibration.given].choice if calibration.given else None
            scores = calibration.apply(voted[task].shares, groups)
            keeps = calibration.keeps_order  # rounding must not turn a tie
            decisions[task] = Decision(voted[task].choice if keeps else scores.argmax(axis=1), scores)
        return decisions

    def combine(self, answers: Answers, persons: NDArray[np.int64] | None = None) -> Combined:
        """One answer for each photo; `persons` as of `finish`, errors as of `vote`."""
        return self.finish(self.vote(answers), persons)

    def probabilities(self, answers: Answers) -> dict[str, Floats]:
        """Task -> calibrated probabilities of its classes, shape (N, C), for thresholds; errors as in `vote`."""
        finished = self._calibrated(self.vote(answers))
        return {
            task: finished[task].shares if vote.prefix == PROBABILITY else vote.probabilities(answers.of(task))
            for task, vote in self.votes.items()
            if task in finished
        }

    def settled(self, so_far: Answers, pending: Sequence[Voter]) -> NDArray[np.bool_]:
        """Photos whose decision no answers of the pending voters could change, shape (N,), bool.

        Args:
            so_far: answers of one task, none of which abstains.
            pending: voters of the same task that have not been asked.
        """
        (task,) = so_far.classes
        calibration, rule = self.calibrations.get(task), None if self.rule is None else self.rule.factors.get(task)
        if calibration is None and rule is None:
            return self.votes[task].settled(so_far, pending)
        factors = (1.0,) * so_far.classes[task] if calibration is None else calibration.factors()
        # The vote's own choice, before any rule, says how another task is calibrated.
        if factors is None or any(other.given == task for other in self.calibrations.values()):
            return np.zeros(len(so_far), bool)
        scale = 1.0 if calibration is None else calibration.scale[0][0]
        # A temperature raises all probabilities to a power, so numbers after it are roots before it.
        logs = np.log(factors) + (0.0 if rule is None else np.log(rule) / scale)
        scaled = np.exp(np.maximum(logs - logs.max(), -2 * LARGEST_LOG)).tolist()
        return self.votes[task].settled(so_far, pending, tuple(scaled) if len(set(scaled)) > 1 else ())

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back."""
        return {
            "votes": {task: vote.as_dict() for task, vote in self.votes.items()},
            "calibrations": {task: calibration.as_dict() for task, calibration in self.calibrations.items()},
            "rule": None if self.rule is None else self.rule.as_dict(),
            "people": None if self.people is None else self.people.as_dict(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the value does not describe a combiner.
        """
        return cls(
            {str(task): read_vote(vote) for task, vote in value["votes"].items()},
            {str(task): Calibration.from_dict(part) for task, part in value["calibrations"].items()},
            None if value["rule"] is None else Multipliers.from_dict(value["rule"]),
            None if value["people"] is None else PeoplePool.from_dict(value["people"]),
        )


def _decided(decisions: Mapping[str, Decision], rule: Multipliers | None) -> dict[str, Decision]:
    """The decisions after a rule."""
    chosen = (
        {}
        if rule is None
        else {task: rule.choose(task, decisions[task].shares) for task in rule.factors.keys() & decisions.keys()}
    )
    return {
        task: replace(decision, choice=chosen[task]) if task in chosen else decision for task, decision in decisions.items()
    }  # fmt: skip


def soft_combiner(tasks: Sequence[str]) -> Combiner:
    """Soft votes for some tasks."""
    return Combiner({task: SoftVote() for task in tasks})

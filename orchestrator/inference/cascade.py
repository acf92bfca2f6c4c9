"""Less arithmetic, the same answer: ask one member first, and the others only while the vote could still change.

Exact: a vote is settled when no answers of the pending members could change it; that saves up to half of them.
By confidence: a soft vote also counts as settled when the winner's lead exceeds zero by so many standard errors that,
on photos that no member has seen, the pending members almost never changed it. Such photos are needed because all
members of a run but one have seen any given training photo, and members agree more on a photo that they have seen than
on a new one. Labels are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers, Floats, Voter
from orchestrator.combining.combiners import Combiner
from orchestrator.combining.votes import soft_vote
from orchestrator.inference.options import check_rate

__all__ = ["EXACT", "Cascade", "Point", "Settled", "ask", "calibrate", "simulate"]

Settled = Callable[[Answers, Sequence[Voter]], NDArray[np.bool_]]
"""(answers of the members asked, all of one task, members not asked yet) -> whether each photo needs no further member, (n,)."""

SURE = np.arange(1.0, 16.25, 0.25)
"""Thresholds that a calibration tries, in standard errors of the lead."""


@dataclass(frozen=True)
class Cascade:
    """When a vote is settled.

    The lead of a photo is the winner's probability minus the runner-up's, averaged over the m members asked. Its
    variance between members, s2, is estimated from the differences of these members (m - 1 observations) and, as one
    more observation, the task's usual variance at such a lead, spread * (1 - lead^2)^1.5: confident members differ
    little. The lead over all M members then has the standard error sqrt(s2 * (M - m) / (M * m)).

    Attributes:
        rate: share of photos whose label may differ from the full vote's, 0..1; 0: none.
        sure: lead in standard errors at which asking stops; infinite: asking stops when the vote cannot change.
        spread: task -> usual variance of the lead between members, at a lead of 0.
    """

    rate: float = 0.0
    sure: float = float("inf")
    spread: Mapping[str, float] = field(default_factory=dict)

    def settled(self, so_far: Answers, pending: Sequence[Voter], combiner: Combiner) -> NDArray[np.bool_]:
        """Whether each photo needs no further member, shape (n,), bool.

        Args:
            so_far: answers of the members asked, all of one task and of equal weight.
            pending: members not asked yet.
            combiner: how they are combined.
        """
        settled = combiner.settled(so_far, pending)
        if combiner.averages and np.isfinite(self.sure):
            (task,) = so_far.classes
            asked, members = len(so_far.voters), len(so_far.voters) + len(pending)
            lead, squares = _leads(so_far.probabilities)
            variance = (self.spread[task] * _shape(lead) + squares) / asked
            settled |= lead >= self.sure * np.sqrt(variance * (members - asked) / (members * asked))
        return np.asarray(settled)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rate": self.rate, "sure": self.sure if np.isfinite(self.sure) else None, "spread": dict(self.spread)}


EXACT = Cascade()


@dataclass(frozen=True, eq=False)
class Point:
    """One point of the curve.

    Attributes:
        cascade: the rule that settled votes.
        asked: share of all member evaluations, 0..1.
        changed: share of photos whose label differs from the full vote's, 0..1.
        label: the labels, shape (N,).
    """

    cascade: Cascade
    asked: float
    changed: float
    label: NDArray[np.int64]


def ask(
    voters: Sequence[Voter],
    members: Sequence[Callable[[NDArray[np.int64]], Floats]],
    photos: int,
    settled: Settled,
) -> list[Floats]:
    """Asks the members of one task in order, each only about photos whose vote is not settled.

    Args:
        voters: the members as voters, in the same order.
        members: functions from row indices (m,) to probabilities (m, C).
        photos: number of photos, n.
        settled: the rule that settles a vote.

    Returns:
        M arrays (n, C); rows of zeros where a member was not asked, which abstain in a vote.
    """
    rows = np.arange(photos)
    answers: list[Floats] = []
    for number, member in enumerate(members):
        if number == 0:
            answers.append(member(rows))
            classes = answers[0].shape[1]
        else:
            answers.append(np.zeros((photos, classes), np.float32))
            if len(rows):
                answers[-1][rows] = member(rows)
        asked, pending = tuple(voters[: number + 1]), voters[number + 1 :]
        if len(rows) and pending:
            arrays = tuple(answer[rows] for answer in answers)
            so_far = Answers({voters[0].task: classes}, len(rows), asked, arrays)
            rows = rows[~settled(so_far, pending)]
    return answers


def simulate(answers: Answers, combiner: Combiner, cascade: Cascade) -> Point:
    """What a cascade would have asked and answered where every member's answer is known.

    Args:
        answers: answers of every member for N photos.
        combiner: how they are combined.
        cascade: the rule that settles a vote.
    """
    found: dict[Voter, Floats] = {}
    settled = partial(cascade.settled, combiner=combiner)
    for task in answers.classes:
        of_task = answers.of(task)
        members = [array.__getitem__ for array in of_task.probabilities]
        found |= dict(zip(of_task.voters, ask(of_task.voters, members, len(answers), settled), strict=True))
    partial_answers = replace(answers, probabilities=tuple(found[voter] for voter in answers.voters))
    asked = sum(int(array.any(axis=1).sum()) for array in partial_answers.probabilities)
    label, full = combiner.combine(partial_answers).label, combiner.combine(answers).label
    return Point(cascade, asked / len(answers) / len(answers.voters), float((label != full).mean()), label)


def calibrate(answers: Answers, combiner: Combiner, rate: float) -> tuple[Point, list[Point]]:
    """Chooses the confidence threshold for a given rate of changed labels.

    Only one number is chosen, so apart from chance it changes as many labels on other photos as on these. Margins for
    each task and each number of members asked, tried first, overfitted: 0.00 % changed on their photos, 0.2 % on
    others.

    Args:
        answers: the answers of every member for N photos that none has seen.
        combiner: how they are combined; it averages.
        rate: share of labels that may change, 0..1.

    Returns:
        The chosen point, and the curve: the exact cascade first, then decreasing confidence.

    Raises:
        ConfigError: too few photos for such a rate.
    """
    check_rate(rate, len(answers))
    spread = {task: _spread(answers.of(task).probabilities) for task in answers.classes}
    curve = [simulate(answers, combiner, EXACT)]
    if rate > 0:
        curve += [simulate(answers, combiner, Cascade(rate, float(threshold), spread)) for threshold in SURE[::-1]]
    fit = [point for point in curve if point.changed <= rate]
    return min(fit, key=lambda point: point.asked), curve


def _leads(members: Sequence[Floats]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean lead of the winner over the next, and the sum of the members' squared differences from it, each (n,)."""
    order = np.argsort(soft_vote(members, [1.0] * len(members)).scores, axis=1)
    first, second = order[:, -1:], order[:, -2:-1]
    of_members = np.stack(
        [
            (np.take_along_axis(member, first, axis=1) - np.take_along_axis(member, second, axis=1))[:, 0]
            for member in members
        ]
    ).astype(np.float64)
    mean = of_members.mean(axis=0)
    return mean, ((of_members - mean) ** 2).sum(axis=0)


def _shape(lead: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative variance between members at a lead. The 1.5 was chosen among 0 to 1.5 (docs/experiments.md)."""
    return np.asarray((1 - np.minimum(lead, 1) ** 2 + 1e-4) ** 1.5)


def _spread(members: Sequence[Floats]) -> float:
    """Variance of the lead between members, over all photos, in units of `_shape`; 0 for a single member."""
    lead, squares = _leads(members)
    return float(squares.sum() / max(1, len(members) - 1) / _shape(lead).sum())

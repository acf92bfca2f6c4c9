"""Less arithmetic, the same answer: ask one member first, and the others only while the vote could still change.

Exactly: a vote is settled when the members not asked yet could not turn it, whatever they said; that saves up to half of them.
By sureness: a soft vote also counts as settled when the lead of its winner is so many standard errors of what the rest might say
above zero that, on photos that no member has seen, the rest hardly ever turned it. Such photos are needed because the members of
one run have all but one seen any training photo, and members that have seen a photo agree on it more than on a new one; labels
are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.options import check_rate
from orchestrator.ensemble.voting import Strategy, Vote, vote
from orchestrator.labels import TASKS, compose

__all__ = ["EXACT", "Cascade", "Point", "ask", "calibrate", "simulate"]

Floats = NDArray[np.floating[Any]]

SURE = np.arange(1.0, 16.25, 0.25)
"""Standard errors that a calibration tries."""


@dataclass(frozen=True)
class Cascade:
    """When a vote is settled.

    The lead of a photo is the winner's probability less the next one's, averaged over the m members asked. Members differ in it
    by a variance s2, for which their own differences count as m - 1 observations and the task's usual spread at such a lead as
    one more: spread * (1 - lead^2)^1.5, for members that are certain differ little. The lead over all M members then has the
    standard error sqrt(s2 * (M - m) / (M * m)).

    Attributes:
        rate: stated share of photos whose label may differ from the full vote's; 0: none.
        sure: standard errors of lead from which on nobody else is asked; infinite asks on until the vote cannot change.
        spread: task -> how members usually differ.
    """

    rate: float = 0.0
    sure: float = float("inf")
    spread: Mapping[str, float] = field(default_factory=dict)

    def settled(self, task: str, so_far: Vote, members: int) -> NDArray[np.bool_]:
        """Which photos need no further member, shape (n,).

        Args:
            task: the specialist.
            so_far: the vote of those asked, each with the same weight.
            members: how many there are in all.
        """
        asked = len(so_far.members)
        ordered = np.sort(so_far.sums.astype(np.int64), axis=1)
        settled = ordered[:, -1] - ordered[:, -2] > (members - asked) * so_far.unit
        if so_far.strategy == "soft" and np.isfinite(self.sure):
            lead, squares = _leads(so_far)
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
        cascade: when votes were settled.
        asked: share of all member evaluations, 0..1.
        changed: share of photos whose label differs from the full vote's, 0..1.
        label: the labels, shape (N,).
    """

    cascade: Cascade
    asked: float
    changed: float
    label: NDArray[np.int64]


def ask(
    task: str,
    members: Sequence[Callable[[NDArray[np.int64]], Floats]],
    photos: int,
    strategy: Strategy,
    cascade: Cascade,
) -> list[Floats]:
    """Asks members in order, each only about photos whose vote is not settled.

    Args:
        task: the specialist.
        members: each answers with probabilities (m, C) for rows (m,).
        photos: n.
        strategy: how they vote.
        cascade: when a vote is settled.

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
        if len(rows) and number + 1 < len(members):
            so_far = vote([answer[rows] for answer in answers], strategy)
            rows = rows[~cascade.settled(task, so_far, len(members))]
    return answers


def simulate(by_task: Mapping[str, Sequence[Floats]], strategy: Strategy, cascade: Cascade) -> Point:
    """What a cascade would have asked and answered where every member's answer is known.

    Args:
        by_task: task -> M arrays (N, C).
        strategy: how members vote.
        cascade: when a vote is settled.
    """
    photos = len(by_task[TASKS[0]][0])
    asked = 0
    choices = {}
    for task, members in by_task.items():
        answers = ask(task, [member.__getitem__ for member in members], photos, strategy, cascade)
        asked += sum(int(answer.any(axis=1).sum()) for answer in answers)
        choices[task] = vote(answers, strategy).choice
    label = compose(*(choices[task] for task in TASKS))
    full = compose(*(vote(by_task[task], strategy).choice for task in TASKS))
    return Point(cascade, asked / photos / sum(map(len, by_task.values())), float((label != full).mean()), label)


def calibrate(by_task: Mapping[str, Sequence[Floats]], rate: float) -> tuple[Cascade, list[Point]]:
    """Chooses how sure a soft vote must be for a stated rate of changed labels.

    One number is chosen, so what it changes on other photos is what it changed on these, but for chance. Margins for each task
    and each number of members asked, tried first, fitted the photos they were chosen on: 0.00 % changed there, 0.2 % on others.

    Args:
        by_task: every member's answers for photos that none has seen: task -> M arrays (N, C).
        rate: share of labels that may change, 0..1.

    Returns:
        The cascade, and the curve: exact first, then from sure to less sure.

    Raises:
        ConfigError: too few photos to tell such a rate.
    """
    photos = len(by_task[TASKS[0]][0])
    check_rate(rate, photos)
    spread = {task: _spread(members) for task, members in by_task.items()}
    curve = [simulate(by_task, "soft", EXACT)]
    if rate > 0:
        curve += [simulate(by_task, "soft", Cascade(rate, float(sure), spread)) for sure in SURE[::-1]]
    fit = [point for point in curve if point.changed <= rate]
    return min(fit, key=lambda point: point.asked).cascade, curve


def _leads(votes: Vote) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean lead of the winner over the next, and the sum of the members' squared differences from it, each (n,)."""
    order = np.argsort(votes.sums, axis=1)
    first, second = order[:, -1:], order[:, -2:-1]
    of_members = np.stack(
        [
            (np.take_along_axis(member, first, axis=1) - np.take_along_axis(member, second, axis=1))[:, 0]
            for member in votes.members
        ]
    ).astype(np.float64)
    mean = of_members.mean(axis=0)
    return mean, ((of_members - mean) ** 2).sum(axis=0)


def _shape(lead: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much members differ at a lead, relative to one of 0. The 1.5 was chosen among 0 to 1.5 (docs/experiments.md)."""
    return np.asarray((1 - np.minimum(lead, 1) ** 2 + 1e-4) ** 1.5)


def _spread(members: Sequence[Floats]) -> float:
    """How members differ over all photos, in units of `_shape`; 0 for a single member."""
    lead, squares = _leads(vote(members, "soft"))
    return float(squares.sum() / max(1, len(members) - 1) / _shape(lead).sum())

"""Confidence intervals and differences as values; computed in `ensembling/intervals.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["VERDICTS", "Difference", "Interval", "Verdict", "share_interval"]

Verdict = Literal["better", "worse", "noise"]
"""What the interval of a difference says: `noise` if it contains 0, so that other people could have reversed it."""

VERDICTS: Mapping[Verdict, str] = {"better": "better", "worse": "worse", "noise": "no clear difference"}
"""Verdict, as JSON has it -> as it is printed."""


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of the draws; scores on the scale 0..1."""

    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What the interval of a difference says, where more is better."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "noise"

    def __neg__(self) -> Interval:
        """The interval of the opposite difference: of a gain where less is better."""
        return Interval(-self.high, -self.low)

    def as_list(self) -> list[float]:
        """For JSON: low and high."""
        return [self.low, self.high]

    @classmethod
    def from_list(cls, value: Sequence[float]) -> Interval:
        """The inverse of `as_list`: low and high."""
        low, high = value
        return cls(low, high)

    def signed(self) -> str:
        """As it is printed for a difference: `-0.0040 to +0.0200`."""
        return f"{self.low:+.4f} to {self.high:+.4f}"


def share_interval(share: float, count: int, z: float = 1.96) -> Interval:
    """The interval of a share that was seen in independent draws, by default of 95 % (Wilson 1927).

    Args:
        share: the share that was seen, 0..1.
        count: number of draws, 1 or more.
        z: half the interval's width in standard deviations of the normal distribution.
    """
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return Interval(max(0.0, low), min(1.0, high))


@dataclass(frozen=True)
class Difference:
    """A difference between two answers for the same people: the second's value minus the first's.

    Attributes:
        value: the difference.
        interval: its 95 % interval over people.
        probability: share of the draws of people in which the second is above the first, equal ones counted half: the
            probability that it is above with other people.
    """

    value: float
    interval: Interval
    probability: float

    @property
    def verdict(self) -> Verdict:
        """What the difference says, where more is better."""
        return self.interval.verdict

    def __neg__(self) -> Difference:
        """The opposite difference: a gain where less is better."""
        return Difference(-self.value, -self.interval, 1 - self.probability)

    def __str__(self) -> str:
        return f"{self.value:+.4f} ({self.interval.signed()})"

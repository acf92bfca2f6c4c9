"""Votes of one task: how its voters' probabilities become one choice. Pure NumPy, independent of the voters' order.

Soft: the (weighted) mean of the voters' probabilities. Hard: each voter has one vote for its most probable class; the majority
wins; a tie goes to the higher mean probability, then to the lower class. Power: a mean between the soft and the geometric
one. Probabilities are summed as integer multiples
of 2^-23 and weights are integers, each rounded separately: the result is the same to the bit in any order of voters,
and with or without a voter that abstains. Voting takes little more time than reading: shares and agreement, which only
some callers need, are computed on demand (`orch bench voting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answers import Floats

__all__ = [
    "UNIT_BITS",
    "Decision",
    "agreement",
    "hard_vote",
    "integer_weights",
    "lead_of",
    "power_sums",
    "power_vote",
    "soft_vote",
    "sums_of",
    "tally",
]

UNIT_BITS = 23
"""Adding 1 to a float32 in 0..1 rounds it to a multiple of 2^-23, which is then the mantissa (the lowest 23 bits).
Integer sums are exact in any order, and 2^-23 is close to the resolution of float32 probabilities (2^-24)."""

ONE = np.float32(1)
ONE_BITS = 0x3F800000  # of float32 1.0, read as an int32
MAX_INT32_VOTERS = 255  # voters summed in an int32; more could overflow its 31 bits

WEIGHT_BITS = 20
"""Significant bits of a rounded weight, whatever the other weights are: 1 in a million. With a probability's 23 bits
they leave 20 of an int64 for the number of voters and the ratio of their weights."""


LEAST = 2.0**-UNIT_BITS
"""Lower bound of probabilities in a geometric mean, which one 0 would make 0."""

LOG_LEAST = float(np.log(LEAST))


@dataclass(frozen=True, eq=False)
class Decision:
    """The combined answer for one task.

    Attributes:
        choice: the class of each photo, shape (N,), integers.
        scores: support for each class, shape (N, C), not negative, any scale; no row of zeros.
    """

    choice: NDArray[np.integer[Any]]
    scores: NDArray[Any]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Each class's share of the scores: of a soft vote the mean probabilities. Shape (N, C), float64, rows sum to 1."""
        total = sum(column.astype(np.float64) for column in self.scores.T)  # columns: a sum along a short axis is slow
        return np.stack([column / total for column in self.scores.T], axis=1)

    def take(self, rows: NDArray[Any]) -> Decision:
        """The decision for some photos, given as row numbers or as a mask (N,)."""
        return Decision(self.choice[rows], self.scores[rows])

    @staticmethod
    def concatenated(parts: Sequence[Decision]) -> Decision:
        """The decisions for successive batches of photos, which may have been made on different scales."""
        return Decision(
            np.concatenate([part.choice for part in parts]), np.concatenate([part.shares for part in parts])
        )


def agreement(
    choice: NDArray[np.integer[Any]], probabilities: Sequence[Floats], weights: Sequence[float]
) -> NDArray[np.float64]:
    """The (weighted) share of voters whose own first choice is the class chosen, shape (N,), 0..1.

    Args:
        choice: the class chosen for each photo, shape (N,).
        probabilities: V arrays (N, C), as of `soft_vote`.
        weights: V positive numbers, any scale.
    """
    votes = tally(probabilities, integer_weights(len(probabilities), weights))
    # Votes for the chosen class, class by class: indexing one column per row is slower.
    chosen = sum(np.where(choice == code, column, 0) for code, column in enumerate(votes.T))
    return np.asarray(chosen / votes.sum(axis=1))


def soft_vote(probabilities: Sequence[Floats], weights: Sequence[float]) -> Decision:
    """The class with the highest (weighted) mean probability; a tie goes to the lower class.

    Args:
        probabilities: V arrays (N, C), finite, in 0..1, rows summing to 1; a row of zeros abstains.
        weights: V positive numbers, any scale.

    Raises:
        ValueError: no voters, or weights that are too few or many, not positive, or too far apart for exact sums.
    """
    integers = integer_weights(len(probabilities), weights)
    sums = sums_of(probabilities, integers)
    return Decision(_first_choice(sums), sums)


def hard_vote(probabilities: Sequence[Floats], weights: Sequence[float]) -> Decision:
    """The class with the most votes; a tie goes to the higher mean probability, then to the lower class.

    Args and errors as in `soft_vote`; `scores` are the votes.
    """
    integers = integer_weights(len(probabilities), weights)
    votes, sums = tally(probabilities, integers), sums_of(probabilities, integers)
    if sums.dtype == np.int32:  # one number to compare: votes in the high bits, probabilities in the low ones
        ranks = np.stack([(column.astype(np.int64) << 32) + sums[:, code] for code, column in enumerate(votes.T)]).T
    else:
        ranks = np.where(votes == votes.max(axis=1, keepdims=True), sums, -1)
    return Decision(_first_choice(ranks), votes)


def power_vote(probabilities: Sequence[Floats], weights: Sequence[float], exponent: float) -> Decision:
    """The class with the highest (weighted) power mean of the probabilities; a tie goes to the lower class.

    Of the power means those with an exponent from 0, the geometric mean, to 1, the mean, never lose more log loss than the
    voters do in the mean (arXiv 2603.04204). Towards 0, one voter that rules a class out weighs more.

    Args:
        probabilities: V arrays (N, C), as of `soft_vote`.
        weights: V positive numbers, any scale.
        exponent: 0..1; 0 is the geometric mean.

    Raises:
        ValueError: as of `soft_vote`.
    """
    integers = integer_weights(len(probabilities), weights)
    sums, answered = power_sums(probabilities, integers, exponent)
    means = sums / (answered.astype(np.float64) * 2**UNIT_BITS)[:, None]
    scores = np.exp((1 - means) * LOG_LEAST) if exponent == 0 else means ** (1 / exponent)
    return Decision(_first_choice(sums), scores)


def power_sums(
    voters: Sequence[Floats], weights: Sequence[int], exponent: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The weighted sum of the voters' transformed probabilities in units of 2^-23, shape (N, C), and the weights summed, (N,).

    Transformed is p ** exponent; of the geometric mean log(p), scaled from 0 for `LEAST` to 1 for certainty. Both grow with p and
    lie in 0..1, so that the largest sum is the largest mean, and pending voters change a sum by at most their weights.
    """
    sums, answered = np.zeros(voters[0].shape, np.int64), np.zeros(len(voters[0]), np.int64)
    for voter, weight in zip(voters, weights, strict=True):
        spoke = np.asarray(voter.any(axis=1)).astype(np.int64) * weight
        wide = voter.astype(np.float64)
        values = 1 - np.log(np.maximum(wide, LEAST)) / LOG_LEAST if exponent == 0 else wide**exponent
        sums += np.rint(values * 2**UNIT_BITS).astype(np.int64) * spoke[:, None]
        answered += spoke
    return sums, answered


def sums_of(voters: Sequence[Floats], weights: Sequence[int]) -> NDArray[np.integer[Any]]:
    """The weighted sum of the voters' probabilities in units of 2^-23, shape (N, C); arguments as in `tally`."""
    if len(voters) <= MAX_INT32_VOTERS and _equal(weights):
        return _plain_sums(voters)
    sums = np.zeros(voters[0].shape, np.int64)
    for weight in sorted(set(weights)):  # integers: the order of summation does not matter
        alike = [voter for voter, voter_weight in zip(voters, weights, strict=True) if voter_weight == weight]
        for start in range(0, len(alike), MAX_INT32_VOTERS):
            sums += _plain_sums(alike[start : start + MAX_INT32_VOTERS]) * np.int64(weight)
    return sums


def _plain_sums(voters: Sequence[Floats]) -> NDArray[np.int32]:
    """The sum of at most `MAX_INT32_VOTERS` voters' probabilities in units of 2^-23, shape (N, C)."""
    rounded = np.empty(voters[0].shape, np.float32)
    sums = np.empty(voters[0].shape, np.int32)
    bits = rounded.view(np.int32)
    for number, voter in enumerate(voters):
        np.add(voter, ONE, out=rounded, casting="same_kind")
        if number == 0:
            np.subtract(bits, _as_int32(len(voters) * ONE_BITS), out=sums)
        else:
            np.add(sums, bits, out=sums)  # may wrap around on the way; the final sum fits
    return sums


def _as_int32(value: int) -> np.int32:
    """`value` wrapped around into the range of int32."""
    return np.int32((value + 2**31) % 2**32 - 2**31)


def tally(voters: Sequence[Floats], weights: Sequence[int]) -> NDArray[np.integer[Any]]:
    """The votes for each class, shape (N, C): the weights of the voters whose first choice it is.

    Args:
        voters: V arrays (N, C), as of `soft_vote`.
        weights: V whole numbers; 1 for all where they weigh the same.
    """
    photos, classes = voters[0].shape
    kind = np.uint8 if sum(weights) <= np.iinfo(np.uint8).max else np.int64
    votes = np.zeros((classes, photos), kind)  # a row per class: whole rows are added up faster than columns
    for voter, weight in zip(voters, weights, strict=True):
        first = _first_choice(voter)
        for code in range(classes):
            votes[code] += np.multiply(
                (first == code) & (voter[:, code] > 0), kind(weight)
            )  # a row of zeros has no vote
    return votes.T


def _equal(weights: Sequence[int]) -> bool:
    return all(weight == 1 for weight in weights)


def _first_choice(rows: NDArray[Any]) -> NDArray[np.int8]:
    """The class with the highest value, (N, C) -> (N,); a tie goes to the lower class."""
    choice: NDArray[np.int8] = np.greater(rows[:, 1], rows[:, 0]).view(np.int8)
    best = rows[:, 0]
    for code in range(2, rows.shape[1]):
        best = np.maximum(best, rows[:, code - 1])
        better = np.greater(rows[:, code], best).view(np.int8)
        np.maximum(choice, better * np.int8(code), out=choice)  # a later class has the higher code
    return choice


def lead_of(scores: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Lead of each photo's best class over the second best, shape (N,), from integer scores (N, C)."""
    ordered = np.sort(scores.astype(np.int64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def integer_weights(voters: int, weights: Sequence[float]) -> list[int]:
    """Weights as integers, so that sums are exact.

    Each weight is rounded separately, and all are scaled by one power of two, which rounds nothing: an additional
    voter changes neither the ratio of the other voters' weights nor, if it abstains, a bit of the shares.

    Args:
        voters: number of voters, V.
        weights: V positive numbers, any scale.

    Raises:
        ValueError: no voters, or weights that are too few or many, not positive, or too far apart for exact sums.
    """
    if not voters:
        raise ValueError("a vote needs at least one voter, got 0")
    if len(weights) != voters:
        raise ValueError(f"got {len(weights)} weights for {voters} voters")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive, got {list(weights)}")
    if len(set(weights)) == 1:
        return [1] * voters
    parts = [_odd(float(weight)) for weight in weights]
    least = min(power for _, power in parts)
    integers = [odd << (power - least) for odd, power in parts]
    if sum(integers) >= 2 ** (63 - UNIT_BITS):
        raise ValueError(f"weights lie too far apart to be added up exactly: {min(weights):g} to {max(weights):g}")
    return integers


def _odd(weight: float) -> tuple[int, int]:
    """A positive weight, rounded to `WEIGHT_BITS`, as an odd number times a power of two."""
    mantissa, power = frexp(weight)
    number = round(mantissa * 2**WEIGHT_BITS)
    zeros = (number & -number).bit_length() - 1
    return number >> zeros, power - WEIGHT_BITS + zeros

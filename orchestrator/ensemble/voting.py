"""How members of one task become one vote, and three votes one label. Pure NumPy, streaming, order-free.

Soft: the (weighted) mean of the members' probabilities. Hard: each member has one voice for its most probable class;
the majority wins; a tie goes to the higher mean probability, then to the lower class. Members are added up as whole
numbers of 2^-23, and weights are whole numbers, each rounded by itself: so no order of members changes a bit of the result, nor
does a voter that abstains, and voting is little more than reading: what only some callers ask for (shares, agreement) is worked
out when they do (`orch bench voting`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import frexp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.options import COLUMN, STRATEGIES, Strategy
from orchestrator.labels import TASKS, compose

__all__ = ["CHUNK", "COLUMN", "STRATEGIES", "Fused", "Strategy", "Vote", "fuse", "vote"]

Floats = NDArray[np.floating[Any]]

UNIT = 23
"""Adding 1 to a float32 in 0..1 rounds it to a multiple of 2^-23, which then stands in the lowest bits of the sum: its
mantissa. Sums of whole numbers are exact in any order, and 2^-23 is about what float32 probabilities resolve (2^-24)."""

ONE = np.float32(1)
ONE_BITS = 0x3F800000  # of float32 1.0, read as an int32
AT_ONCE = 255  # members added up in an int32; sums of more could pass its 31 bits

WEIGHT_BITS = 20
"""Significant bits that a weight is rounded to, whatever the other weights are: 1 in a million. With the 23 of a probability they
leave 20 of an int64 for the members, and for how far weights lie apart."""

CHUNK = 65536
"""Photos at a time. Ten million photos took 0.25 s by 8,192, 0.17 s by this many, and no less by 131,072."""

THREADS = 2
"""Stretches voted on at once: 0.12 s instead of 0.17 s for ten million photos on 2 cores, where one core reads them in 0.07 s and
two in 0.05 s. More would wait for the memory."""


@dataclass(frozen=True, eq=False)
class Vote:
    """The vote of one task.

    Attributes:
        strategy: how the members voted.
        choice: the winning class of each photo, shape (N,), int8.
        sums: soft: the members' probabilities, added up; hard: their voices. Any scale, shape (N, C), whole numbers.
        members: what was voted on.
        weights: the members' weights, whole numbers; 1 for all where they weigh the same.
    """

    strategy: Strategy
    choice: NDArray[np.int8]
    sums: NDArray[np.integer[Any]]
    members: Sequence[Floats]
    weights: Sequence[int]

    @property
    def unit(self) -> int:
        """What the whole voice of a member of weight 1, or its probability of 1, amounts to in `sums`."""
        return 1 if self.strategy == "hard" else 2**UNIT

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """Soft: mean probabilities; hard: shares of the members' voices. Shape (N, C), float64, rows sum to 1."""
        total = sum(column.astype(np.float64) for column in self.sums.T)  # columns: a sum along a short axis is slow
        return np.stack([column / total for column in self.sums.T], axis=1)

    @cached_property
    def agreement(self) -> NDArray[np.float64]:
        """The (weighted) share of members whose own first choice is the winner, shape (N,), 0..1."""
        voices = self.sums if self.strategy == "hard" else _voices(self.members, self.weights)
        # Whoever chose the winner, class by class: picking one column a row is slower.
        winner = sum(np.where(self.choice == code, column, 0) for code, column in enumerate(voices.T))
        return np.asarray(winner / voices.sum(axis=1))


@dataclass(frozen=True)
class Fused:
    """A stretch of photos with their label.

    Attributes:
        start: number of the first photo.
        votes: task -> its vote.
        label: the 18-way label, shape (n,), int64.
    """

    start: int
    votes: Mapping[str, Vote]
    label: NDArray[np.int64]


def vote(members: Sequence[Floats], strategy: Strategy, weights: Sequence[float] | None = None) -> Vote:
    """Fuses the members of one task.

    Args:
        members: M arrays of class probabilities, each (N, C), finite, in 0..1, rows summing to 1; a row of zeros abstains.
        strategy: `soft` or `hard`.
        weights: one positive number per member, any scale; None weighs all equally.

    Raises:
        ValueError: no members, different shapes, or weights that do not fit, or lie too far apart to be added up exactly.
    """
    scaled = _weights(len(members), weights)
    shape = members[0].shape
    if any(member.shape != shape for member in members):
        raise ValueError(f"members disagree on their shape: {sorted({member.shape for member in members})}")
    if strategy == "soft":
        sums = _sums(members, scaled)
        return Vote(strategy, _first_choice(sums), sums, members, scaled)
    voices = _voices(members, scaled)
    sums = _sums(members, scaled)
    # Probabilities decide between equal voices only.
    if sums.dtype == np.int32:  # one number to compare by: voices above, probabilities below
        ranks = np.stack([(column.astype(np.int64) << 32) + sums[:, code] for code, column in enumerate(voices.T)]).T
    else:
        ranks = np.where(voices == voices.max(axis=1, keepdims=True), sums, -1)
    return Vote(strategy, _first_choice(ranks), voices, members, scaled)


def _sums(members: Sequence[Floats], weights: Sequence[int]) -> NDArray[np.integer[Any]]:
    """The weighted sum of the members' probabilities in units of 2^-23, shape (N, C)."""
    if len(members) <= AT_ONCE and _equal(weights):
        return _plain_sums(members)
    sums = np.zeros(members[0].shape, np.int64)
    for weight in sorted(set(weights)):  # whole numbers: the order of sums is all the same
        own = [member for member, its in zip(members, weights, strict=True) if its == weight]
        for start in range(0, len(own), AT_ONCE):
            sums += _plain_sums(own[start : start + AT_ONCE]) * np.int64(weight)
    return sums


def _plain_sums(members: Sequence[Floats]) -> NDArray[np.int32]:
    """The sum of at most `AT_ONCE` members' probabilities in units of 2^-23, shape (N, C)."""
    rounded = np.empty(members[0].shape, np.float32)
    sums = np.empty(members[0].shape, np.int32)
    bits = rounded.view(np.int32)
    for number, member in enumerate(members):
        np.add(member, ONE, out=rounded, casting="same_kind")
        if number == 0:
            np.subtract(bits, _as_int32(len(members) * ONE_BITS), out=sums)
        else:
            np.add(sums, bits, out=sums)  # may wrap around on the way; the whole sum fits
    return sums


def _as_int32(value: int) -> np.int32:
    """The number that int32 arithmetic, which wraps around, takes for `value`."""
    return np.int32((value + 2**31) % 2**32 - 2**31)


def _voices(members: Sequence[Floats], weights: Sequence[int]) -> NDArray[np.integer[Any]]:
    """The weights of the members that choose each class, shape (N, C); counts where all weigh the same."""
    photos, classes = members[0].shape
    kind = np.uint8 if sum(weights) <= np.iinfo(np.uint8).max else np.int64
    voices = np.zeros((classes, photos), kind)  # a row per class: whole rows are added up faster than columns
    for member, weight in zip(members, weights, strict=True):
        first, voice = _first_choice(member), kind(weight)
        for code in range(classes):
            voices[code] += np.multiply((first == code) & (member[:, code] > 0), voice)  # a row of zeros has no voice
    return voices.T


def _equal(weights: Sequence[int]) -> bool:
    return all(weight == 1 for weight in weights)


def _first_choice(rows: NDArray[Any]) -> NDArray[np.int8]:
    """The class with the highest number, the lower one of equals; shape (N, C) in, (N,) out."""
    choice: NDArray[np.int8] = np.greater(rows[:, 1], rows[:, 0]).view(np.int8)
    best = rows[:, 0]
    for code in range(2, rows.shape[1]):
        best = np.maximum(best, rows[:, code - 1])
        better = np.greater(rows[:, code], best).view(np.int8)
        np.maximum(choice, better * np.int8(code), out=choice)  # a later class has the higher code
    return choice


def fuse(
    by_task: Mapping[str, Sequence[Floats]],
    strategy: Strategy,
    weights: Mapping[str, Sequence[float]] | None = None,
    chunk: int = CHUNK,
) -> Iterator[Fused]:
    """Votes within each task, then composes the label, a stretch of photos at a time.

    Memory stays constant: arrays may be memory maps of any length.

    Args:
        by_task: for each of the three tasks its members' probabilities, each (N, C), all of the same N.
        strategy: `soft` or `hard`.
        weights: task -> one positive number per member.
        chunk: photos at a time.

    Raises:
        ValueError: a task is missing, or the lengths differ.
    """
    if set(by_task) != set(TASKS):
        raise ValueError(f"need members of {', '.join(TASKS)}, got {', '.join(by_task) or 'none'}")
    lengths = {len(member) for members in by_task.values() for member in members}
    if len(lengths) != 1:
        raise ValueError(f"members disagree on the number of photos: {sorted(lengths)}")
    plain = {
        task: [np.asarray(member) for member in members] for task, members in by_task.items()
    }  # slices of maps are slow

    def fused(start: int) -> Fused:
        votes = {
            task: vote([m[start : start + chunk] for m in members], strategy, (weights or {}).get(task))
            for task, members in plain.items()
        }
        return Fused(start, votes, compose(*(votes[task].choice for task in TASKS)))

    starts = range(0, lengths.pop(), chunk)
    if len(starts) < 2:
        yield from map(fused, starts)
        return
    with ThreadPoolExecutor(THREADS) as pool:  # NumPy lets go of the interpreter's lock in each of its loops
        ahead: deque[Future[Fused]] = deque()
        for start in starts:
            ahead.append(pool.submit(fused, start))
            if len(ahead) > THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _weights(members: int, weights: Sequence[float] | None) -> list[int]:
    """Weights as whole numbers, for sums that are exact.

    Each is rounded by itself, and all are scaled by one power of two: who else votes does not change how those who answer are
    weighed against each other, nor, because scaling by a power of two rounds nothing, a bit of the shares.
    """
    if not members:
        raise ValueError("a vote needs at least one member, got 0")
    if weights is None:
        return [1] * members
    if len(weights) != members:
        raise ValueError(f"got {len(weights)} weights for {members} members")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive, got {list(weights)}")
    if len(set(weights)) == 1:
        return [1] * members
    parts = [_odd(float(weight)) for weight in weights]
    least = min(power for _, power in parts)
    whole = [odd << (power - least) for odd, power in parts]
    if sum(whole) >= 2 ** (63 - UNIT):
        raise ValueError(f"weights lie too far apart to be added up exactly: {min(weights):g} to {max(weights):g}")
    return whole


def _odd(weight: float) -> tuple[int, int]:
    """A positive weight, rounded to `WEIGHT_BITS`, as an odd number times a power of two."""
    mantissa, power = frexp(weight)
    number = round(mantissa * 2**WEIGHT_BITS)
    zeros = (number & -number).bit_length() - 1
    return number >> zeros, power - WEIGHT_BITS + zeros

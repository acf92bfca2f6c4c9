"""How members of one task become one vote, and three votes one label. Pure NumPy, streaming, order-free.

Soft: the (weighted) mean of the members' probabilities. Hard: each member has one voice for its most probable class;
the majority wins; a tie goes to the higher mean probability, then to the lower class. Members are added up on a grid of
2^-40 on which float64 sums are exact, so no order of members changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from orchestrator.labels import TASKS, compose

__all__ = ["COLUMN", "STRATEGIES", "Fused", "Strategy", "Vote", "fuse", "vote"]

Strategy = Literal["soft", "hard"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

COLUMN: Mapping[Strategy, str] = {"soft": "p", "hard": "share"}
"""How tables name a vote's numbers: `p(male)` is a probability, `share(male)` only the share of members that say so."""

Floats = NDArray[np.floating[Any]]

GRID = 2.0**12
"""Adding and subtracting this rounds a float64 in 0..1 to a multiple of 2^-40: 53 bits of mantissa less 13. Sums of up
to 4,096 such numbers are exact in float64, and 2^-40 is far below what float32 probabilities resolve."""

CHUNK = 16384
"""Photos at a time: five members' three classes in float64 are then 2 MB, which a core's cache holds."""


@dataclass(frozen=True)
class Vote:
    """The vote of one task.

    Attributes:
        shares: soft: mean probabilities; hard: shares of the members' voices. Shape (N, C), float64, rows sum to 1.
        choice: the winning class of each photo, shape (N,), int64.
        agreement: the (weighted) share of members whose own first choice is the winner, shape (N,), 0..1.
    """

    shares: NDArray[np.float64]
    choice: NDArray[np.int64]
    agreement: NDArray[np.float64]


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
        members: M arrays of class probabilities, each (N, C), rows summing to 1.
        strategy: `soft` or `hard`.
        weights: one positive number per member, any scale; None weighs all equally.

    Raises:
        ValueError: no members, different shapes, or weights that do not fit.
    """
    share = _weights(len(members), weights)
    shape = members[0].shape
    if any(member.shape != shape for member in members):
        raise ValueError(f"members disagree on their shape: {sorted({member.shape for member in members})}")
    # A row per class: NumPy then works along whole rows, not three numbers at a time (benchmarks/bench_voting.py).
    photos, classes = shape
    mean, voices = np.zeros((classes, photos)), np.zeros((classes, photos))
    for member, weight in zip(members, share, strict=True):
        columns = np.ascontiguousarray(member.T)
        first = _first_choice(columns)
        voice = _on_grid(np.float64(weight))
        for code in range(classes):
            mean[code] += _on_grid(columns[code] * np.float64(weight))
            voices[code] += np.multiply(first == code, voice)
    if strategy == "hard":
        # A tie means equal to the last bit, which sums on the grid make exact for equal weights.
        choice = _first_choice(np.where(voices == voices.max(axis=0), mean, -1.0))
        shares = voices
    else:
        choice, shares = _first_choice(mean), mean
    agreement = np.choose(choice, voices) / voices.sum(axis=0)
    return Vote((shares / shares.sum(axis=0)).T, choice.astype(np.int64), agreement)


def _first_choice(by_class: Floats) -> NDArray[np.int8]:
    """The class with the highest number, the lower one of equals; shape (C, N) in, (N,) out."""
    choice, best = np.zeros(by_class.shape[1], np.int8), by_class[0]
    for code in range(1, len(by_class)):
        np.putmask(choice, by_class[code] > best, code)
        best = np.maximum(best, by_class[code])
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
    for start in range(0, lengths.pop(), chunk):
        votes = {
            task: vote([m[start : start + chunk] for m in members], strategy, (weights or {}).get(task))
            for task, members in by_task.items()
        }
        yield Fused(start, votes, compose(*(votes[task].choice for task in TASKS)))


def _weights(members: int, weights: Sequence[float] | None) -> list[float]:
    """Weights that sum to 1."""
    if members == 0:
        raise ValueError("a vote needs at least one member")
    if weights is None:
        return [1.0 / members] * members
    if len(weights) != members:
        raise ValueError(f"got {len(weights)} weights for {members} members")
    if not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError(f"weights must be positive, got {list(weights)}")
    total = float(np.sum(np.sort(weights)))
    return [float(weight) / total for weight in weights]


def _on_grid(values: Any) -> Any:
    return (values + GRID) - GRID

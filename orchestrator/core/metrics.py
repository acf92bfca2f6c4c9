"""Scores of class predictions, over all rows at once.

Macro F1 is never a mean over batches, which is a different number (0.58 instead of 0.97 in one public
solution). Pure NumPy; knows nothing of photos or people.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.epochs import MemberScores

__all__ = [
    "LEAST",
    "Scores",
    "are_probabilities",
    "confusion",
    "f1_of",
    "log_losses",
    "macro_f1",
    "member_scores",
    "score",
]

Codes = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


SUM_TOLERANCE = 0.01
"""Largest difference of a row's sum from 1: tables hold few digits."""


def are_probabilities(rows: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Whether each row of an array (N, C) is a distribution over C classes: no negative number, a sum of 1; shape (N,)."""
    numbers = np.where(np.isfinite(rows), rows, -1)
    return np.asarray((numbers >= 0).all(axis=1) & (np.abs(numbers.sum(axis=1) - 1) <= SUM_TOLERANCE))


def confusion(truth: Codes, predicted: Codes, classes: int) -> NDArray[np.int64]:
    """Counts by (truth, prediction), shape (C, C).

    Args:
        truth: codes in 0..C-1, shape (N,).
        predicted: codes in 0..C-1, shape (N,).
        classes: C.

    Raises:
        ValueError: the shapes differ, or a code lies outside 0..C-1.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"got {truth.shape} true codes and {predicted.shape} predicted ones")
    cells = truth.astype(np.int64) * classes + predicted
    if truth.size and (min(truth.min(), predicted.min()) < 0 or max(truth.max(), predicted.max()) >= classes):
        raise ValueError(f"codes must lie in 0..{classes - 1}")
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def f1_of(counts: NDArray[Any]) -> Floats:
    """F1 of each class from confusion counts, shape (..., C, C) -> (..., C).

    A class with neither true nor predicted photos has F1 0, as scikit-learn's `zero_division=0` has it.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(axis=-1) + counts.sum(axis=-2)
    return _ratio(2.0 * hits, total)


def _ratio(part: NDArray[Any], total: NDArray[Any]) -> Floats:
    """part / total; 0 where `total` is 0."""
    return np.asarray(np.divide(part, total, out=np.zeros(part.shape), where=total > 0), dtype=np.float64)


def macro_f1(truth: Codes, predicted: Codes, classes: int) -> float:
    """The unweighted mean of all C classes' F1: scikit-learn's `f1_score(average="macro", labels=range(C))`."""
    return float(f1_of(confusion(truth, predicted, classes)).mean())


LEAST = 1e-7
"""Lower bound of probabilities in the log loss: one answer of probability 0 must not make it infinite."""


def log_losses(truth: Codes, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Negative log probability of each photo's true class, shape (N,); their mean is the log loss.

    Args:
        truth: codes in 0..C-1, shape (N,).
        probabilities: probabilities of all classes, shape (N, C).
    """
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], LEAST)))


@dataclass(frozen=True)
class Scores:
    """Scores derived from a confusion matrix.

    Attributes:
        counts: counts by (truth, prediction), shape (C, C).
    """

    counts: NDArray[np.int64]

    @cached_property
    def accuracy(self) -> float:
        """Share of right answers, 0..1; nan without photos."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    @cached_property
    def f1(self) -> Floats:
        """F1 of each class, shape (C,)."""
        return f1_of(self.counts)

    @cached_property
    def precision(self) -> Floats:
        """Precision of each class, shape (C,); 0 for a class never predicted."""
        predicted = self.counts.sum(axis=0)
        return _ratio(np.diag(self.counts), predicted)

    @cached_property
    def recall(self) -> Floats:
        """Recall of each class, shape (C,); 0 for a class without photos."""
        return _ratio(np.diag(self.counts), self.support)

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """Number of photos of each true class, shape (C,)."""
        return np.asarray(self.counts.sum(axis=1))

    @cached_property
    def macro_f1(self) -> float:
        """Mean of all classes' F1, 0..1; an absent class counts 0 (and `absent` names it)."""
        return float(self.f1.mean())

    @cached_property
    def absent(self) -> list[int]:
        """Codes of classes without any photo."""
        return [int(code) for code in np.flatnonzero(self.support == 0)]


def member_scores(truth: Codes, probabilities: NDArray[np.floating[Any]]) -> tuple[MemberScores, NDArray[np.int64]]:
    """A member's scores on held-out photos, and its confusion matrix by (truth, prediction), shape (C, C).

    Args:
        truth: codes in 0..C-1, shape (N,).
        probabilities: probabilities of all classes, shape (N, C).
    """
    scores = score(truth, probabilities.argmax(axis=1), probabilities.shape[1])
    log_loss = float(log_losses(truth, probabilities).mean())
    return MemberScores(scores.macro_f1, scores.accuracy, log_loss), scores.counts


def score(truth: Codes, predicted: Codes, classes: int) -> Scores:
    """Scores of predictions, shapes (N,) and (N,).

    Raises:
        ValueError: the shapes differ, or a code lies outside 0..C-1.
    """
    return Scores(confusion(truth, predicted, classes))

"""Confidence intervals of scores: a bootstrap that draws people, never photos.

The photos of a person are not independent; an interval over photos would be far too narrow. Percentile bootstrap (Efron
1979) with people as clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.interval import Difference, Interval
from orchestrator.core.metrics import f1_of, macro_f1

__all__ = ["difference", "intervals", "mean_difference"]

DRAWS = 1000
LEVEL = 0.95


def intervals(
    persons: pd.Series[str],
    truth: NDArray[Any],
    predicted: NDArray[Any],
    classes: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % intervals of accuracy and macro F1.

    Args:
        persons: the person of each photo, shape (N,).
        truth: true class codes, shape (N,).
        predicted: predicted class codes, shape (N,).
        classes: number of classes, C.
        draws: number of draws, each of P people with replacement.
        seed: seed of the draws.

    Returns:
        `accuracy` and `macro_f1`.
    """
    counts = _drawn_counts(persons, truth, predicted, classes, draws, seed)
    accuracy = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    return {
        name: _percentile_interval(values) for name, values in (("accuracy", accuracy), ("macro_f1", _macro_f1(counts)))
    }


def difference(
    persons: pd.Series[str],
    truth: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    classes: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """How much macro F1 the second answers gain over the first for the same photos, with its 95 % interval.

    Both are scored on the same draws of people, so the difficulty of a draw cancels out: the interval is far narrower
    than those of the two scores. If it contains 0, other people could have reversed the difference.

    Args:
        persons: the person of each photo, shape (N,).
        truth: true class codes, shape (N,).
        before: class codes of the first answers, shape (N,).
        after: class codes of the second answers, shape (N,).
        classes: number of classes, C.
        draws: number of draws, each of P people with replacement.
        seed: seed of the draws.
    """
    before_f1, after_f1 = (
        _macro_f1(_drawn_counts(persons, truth, codes, classes, draws, seed)) for codes in (before, after)
    )
    gain = macro_f1(truth, after, classes) - macro_f1(truth, before, classes)
    return _difference(gain, after_f1 - before_f1)


def mean_difference(
    persons: pd.Series[str], before: NDArray[Any], after: NDArray[Any], draws: int = DRAWS, seed: int = 0
) -> Difference:
    """Increase of the mean of a per-photo value from the first answers to the second, with its 95 % interval.

    Args:
        persons: the person of each photo, shape (N,).
        before: values of the first answers, shape (N,).
        after: values of the second answers, shape (N,).
        draws: number of draws, each of P people with replacement.
        seed: seed of the draws.
    """
    codes, people = pd.factorize(persons)
    sums = np.bincount(codes, after - before, len(people))
    photos = np.bincount(codes, minlength=len(people))
    weights = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    return _difference(float((after - before).mean()), (weights @ sums) / (weights @ photos))


def _difference(value: float, drawn: NDArray[np.float64]) -> Difference:
    """A difference, from its values in the draws."""
    probability = float(((drawn > 0) + 0.5 * (drawn == 0)).mean())
    return Difference(value, _percentile_interval(drawn), probability)


def _drawn_counts(
    persons: pd.Series[str], truth: NDArray[Any], predicted: NDArray[Any], classes: int, draws: int, seed: int
) -> NDArray[np.float64]:
    """Confusion counts of each draw of people, shape (draws, C, C)."""
    codes, people = pd.factorize(persons)
    cells, cell = np.unique(truth.astype(np.int64) * classes + predicted, return_inverse=True)
    per_person = np.zeros((len(people), len(cells)))
    np.add.at(per_person, (codes, cell), 1)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    flat = np.zeros((draws, classes * classes))
    flat[:, cells] = weights @ per_person
    return flat.reshape(draws, classes, classes)


def _macro_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(f1_of(counts).mean(axis=1))


def _percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The interval of the middle 95 % of values."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return Interval(*(float(edge) for edge in np.quantile(values, tails)))

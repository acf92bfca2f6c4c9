"""How far a score would move with other people: a bootstrap that draws people, never photos.

The photos of a person are not independent; an interval over photos would be far too narrow. Percentile bootstrap (Efron
1979) with people as clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.metrics import f1_of

__all__ = ["Interval", "intervals"]

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Where 95 % of the draws lie; scores on the scale 0..1."""

    low: float
    high: float


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
        truth: codes, shape (N,).
        predicted: codes, shape (N,).
        classes: C.
        draws: of P people with replacement.
        seed: of the draws.

    Returns:
        `accuracy` and `macro_f1`.
    """
    codes, people = pd.factorize(persons)
    cells, cell = np.unique(truth.astype(np.int64) * classes + predicted, return_inverse=True)
    per_person = np.zeros((len(people), len(cells)))
    np.add.at(per_person, (codes, cell), 1)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=draws)
    flat = np.zeros((draws, classes * classes))
    flat[:, cells] = weights @ per_person
    counts = flat.reshape(draws, classes, classes)
    accuracy = np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))
    found = {"accuracy": accuracy, "macro_f1": f1_of(counts).mean(axis=1)}
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return {name: Interval(*(float(edge) for edge in np.quantile(values, tails))) for name, values in found.items()}

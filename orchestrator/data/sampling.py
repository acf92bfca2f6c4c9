"""Which photos an epoch sees: a value of each specialist, drawn anew each epoch.

`per_person` draws one photo of each person, so a person counts once however many photos they have; `per_photo` sees
every photo. Held-out people are never sampled: they are always scored on every photo.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["SAMPLINGS", "Sampling", "draw_epoch", "epoch_size"]

Sampling = Literal["per_person", "per_photo"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)


def draw_epoch(sampling: Sampling, persons: pd.Series[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """One epoch's rows in training order.

    Args:
        sampling: `per_person` or `per_photo`.
        persons: the person of each row, shape (N,).
        rng: used for the draw and the order.

    Returns:
        Positions in `persons`: shape (P,) with one per person, or (N,) with every row once.
    """
    if sampling == "per_photo":
        return rng.permutation(len(persons))
    codes, people = pd.factorize(persons)
    order = rng.permutation(len(codes))
    # The first row of each person in a random order of all rows is a uniform draw among that person's rows.
    first = np.full(len(people), -1, dtype=np.int64)
    first[codes[order[::-1]]] = order[::-1]
    return first[rng.permutation(len(people))]


def epoch_size(sampling: Sampling, persons: pd.Series[str]) -> int:
    """How many photos an epoch sees."""
    return len(persons) if sampling == "per_photo" else int(persons.nunique())

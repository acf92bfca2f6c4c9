"""Which photos an epoch sees: a value of each specialist, drawn anew each epoch.

`per_person` draws one photo of each person, so a person counts once however many photos they have; `per_photo` sees
every photo. Held-out people are never sampled: they are always scored on every photo.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draw", "Sampling", "draw_epoch", "epoch_size", "expected_draws"]

Sampling = Literal["per_person", "per_photo"]

Draw = Literal["photo", "mask"]

Codes = NDArray[np.int64]


def draw_epoch(sampling: Sampling, persons: Codes, kinds: Codes, rng: np.random.Generator) -> Codes:
    """One epoch's rows in training order.

    `per_person` draws one of the kinds that a person has, all alike, and then one of the person's photos of that kind.
    With one kind for all photos that is one of the person's photos, all alike.

    Args:
        sampling: `per_person` or `per_photo`.
        persons: the person of each row as a number, shape (N,).
        kinds: the kind of each row, shape (N,), 0 or more.
        rng: used for the draw and the order.

    Returns:
        Positions in `persons`: shape (P,) with one per person, or (N,) with every row once.
    """
    if sampling == "per_photo":
        return rng.permutation(len(persons))
    one_per_kind = _one_of_each(persons * _count(kinds) + kinds, rng)
    return one_per_kind[_one_of_each(persons[one_per_kind], rng)]


def expected_draws(sampling: Sampling, persons: Codes, kinds: Codes) -> NDArray[np.float64]:
    """How often an epoch draws each row on average, shape (N,); sums to the epoch's size."""
    if sampling == "per_photo":
        return np.ones(len(persons))
    groups, group, photos = np.unique(persons * _count(kinds) + kinds, return_inverse=True, return_counts=True)
    _, person, its_kinds = np.unique(groups // _count(kinds), return_inverse=True, return_counts=True)
    return np.asarray(1 / its_kinds[person][group] / photos[group])


def epoch_size(sampling: Sampling, persons: Codes) -> int:
    """How many photos an epoch sees."""
    return len(persons) if sampling == "per_photo" else len(np.unique(persons))


def _count(kinds: Codes) -> int:
    return int(kinds.max(initial=0)) + 1


def _one_of_each(groups: Codes, rng: np.random.Generator) -> Codes:
    """A position of each group, all positions of a group alike, in random order."""
    order = rng.permutation(len(groups))
    # A group's first position in a random order of all is a uniform draw among the group's positions.
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(order[rng.permutation(first)])

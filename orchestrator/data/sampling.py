"""Which photos an epoch sees: a setting of each specialist, drawn again for each epoch.

`per_person` draws one photo of each person, so a person counts once however many photos they have; `per_photo` sees
every photo. Factors by class make some classes more frequent than they are (over-sampling) or less. Held-out people are never
sampled: they are always scored on every photo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]
    Factors = NDArray[np.float64]

__all__ = ["Draw", "Sampling", "class_factors", "draw_epoch", "epoch_size", "expected_draws"]

Sampling = Literal["per_person", "per_photo"]

Draw = Literal["photo", "mask"]


def draw_epoch(
    sampling: Sampling, persons: Codes, kinds: Codes, rng: np.random.Generator, factors: Factors | None = None
) -> Codes:
    """One epoch's rows in training order.

    `per_person` first draws one of the kinds that a person has, uniformly, then one of the person's photos of that
    kind. If all photos have the same kind, this draws uniformly from the person's photos.

    Args:
        sampling: `per_person` or `per_photo`.
        persons: number of each row's person, shape (N,).
        kinds: code of each row's kind, shape (N,), 0 or more.
        rng: random generator for the draw and the order.
        factors: multiple of each row's draw frequency, shape (N,), above 0; None: 1.

    Returns:
        Positions in `persons`. Without factors: shape (P,) with one per person, or (N,) with every row once. With them:
        `epoch_size` positions; a row that would be drawn with factor f comes f times, rounded up or down at random.
    """
    import numpy as np

    if sampling == "per_photo":
        drawn = rng.permutation(len(persons))
    else:
        one_per_kind = _one_of_each(persons * _count(kinds) + kinds, rng)
        drawn = one_per_kind[_one_of_each(persons[one_per_kind], rng)]
    if factors is None:
        return drawn
    # Systematic sampling: rows are adjacent segments, each as long as its factor, and are picked at equal steps from a
    # random start. Rows with equal factors are adjacent, so each class's share is exact to within one photo.
    drawn = drawn[np.argsort(factors[drawn], kind="stable")]
    ends = np.cumsum(factors[drawn])
    size = epoch_size(sampling, persons, kinds, factors)
    picks = (np.arange(size) + rng.random()) * (ends[-1] / size)
    chosen = np.minimum(np.searchsorted(ends, picks, side="right"), len(drawn) - 1)
    return np.asarray(drawn[rng.permutation(chosen)])


def expected_draws(
    sampling: Sampling, persons: Codes, kinds: Codes, factors: Factors | None = None
) -> NDArray[np.float64]:
    """How often an epoch draws each row on average, shape (N,); sums to the epoch's size."""
    import numpy as np

    if sampling == "per_photo":
        once = np.ones(len(persons))
    else:
        groups, group, photos = np.unique(persons * _count(kinds) + kinds, return_inverse=True, return_counts=True)
        _, person, its_kinds = np.unique(groups // _count(kinds), return_inverse=True, return_counts=True)
        once = np.asarray(1 / its_kinds[person][group] / photos[group])
    return once if factors is None else once * factors


def epoch_size(sampling: Sampling, persons: Codes, kinds: Codes, factors: Factors | None = None) -> int:
    """How many photos an epoch sees."""
    import numpy as np

    if factors is None:
        return len(persons) if sampling == "per_photo" else len(np.unique(persons))
    return max(1, round(float(expected_draws(sampling, persons, kinds, factors).sum())))


def class_factors(classes: Codes, draws: NDArray[np.float64], balance: float, factor: Factors) -> Factors:
    """How many times as often the rows of each class are drawn.

    Args:
        classes: class code of each row, shape (N,).
        draws: how often an epoch draws each row without factors, shape (N,).
        balance: a class with share s of the draws is drawn s ^ -balance times as often, in an epoch of the same
            size; 1 draws all classes equally often (the class-balanced sampling of Kang et al. 2020, arXiv 1910.09217),
            0.5 by the square root.
        factor: additional factor of each class, shape (C,); makes the epoch longer or shorter.

    Returns:
        Shape (N,).
    """
    import numpy as np

    shares = np.bincount(classes, draws, len(factor)) / draws.sum()
    of_row = np.maximum(shares, 1e-12)[classes] ** -balance
    return np.asarray(of_row / np.average(of_row, weights=draws) * factor[classes])


def _count(kinds: Codes) -> int:
    return int(kinds.max(initial=0)) + 1


def _one_of_each(groups: Codes, rng: np.random.Generator) -> Codes:
    """One position of each group, drawn uniformly within the group, in random order."""
    import numpy as np

    order = rng.permutation(len(groups))
    # A group's first position in a random order of all is a uniform draw among the group's positions.
    _, first = np.unique(groups[order], return_index=True)
    return np.asarray(order[rng.permutation(first)])

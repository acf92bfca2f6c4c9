"""What a folder in `models/` must provide: a `Specialist`, and recipes (`recipes/schema.py`) as TOML.

A specialist holds the facts of one task; a recipe holds every setting of one way to train it. Both are data: what
differs between tasks is a value in `models/<task>/`, and common code exists once, in `orchestrator/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from orchestrator.recipes.schema import Recipe

    Codes = NDArray[np.int64]

__all__ = ["Scale", "Specialist"]


@dataclass(frozen=True)
class Scale:
    """Ordered classes, made by cutting a number at half-open borders.

    Attributes:
        column: the number's column.
        borders: lowest value of each class but the first: (30, 60) puts 29 in class 0, 30 and 59 in 1, 60 in 2.
        low: smallest value of a distribution over the scale.
        high: largest value of such a distribution.
    """

    column: str
    borders: tuple[int, ...]
    low: int = 0
    high: int = 100

    def classes(self, values: NDArray[np.floating[Any]], borders: tuple[int, ...] | None = None) -> Codes:
        """Class codes of values; any shape, int64 out."""
        import numpy as np

        return np.asarray(np.digitize(values, borders or self.borders), dtype=np.int64)


@dataclass(frozen=True)
class Specialist:
    """The facts of one task.

    Attributes:
        name: the task.
        classes: class names in code order.
        columns: columns of the photo table that the label needs.
        label: table of photos -> true class codes (N,), int64; no recipe changes them.
        recipes: the folder of this specialist's recipes.
        defaults: recipe values that come from the task itself (sampling, crop, augmentation).
        scale: the number behind ordered classes; None if there is none.
        parts: class counts of the tasks that the classes combine, first digit first, one head each; empty: one head.
        keeps: rows that every crop must contain, (top, bottom) as shares of the photo's height; None: no limit.
        keeps_of_face: the same for crops around faces, as shares of the face box's height (0: top, 1: bottom).
    """

    name: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    label: Callable[[pd.DataFrame], Codes]
    recipes: Path
    defaults: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale | None = None
    keeps: tuple[float, float] | None = None
    keeps_of_face: tuple[float, float] | None = None
    parts: tuple[int, ...] = ()

    def training_label(self, table: pd.DataFrame, recipe: Recipe) -> Codes:
        """The classes to train on: the truth, or with the last border moved to `recipe.train_border`."""
        if recipe.train_border is None or self.scale is None:
            return self.label(table)
        values = table[self.scale.column].to_numpy(dtype=float)
        return self.scale.classes(values, (*self.scale.borders[:-1], recipe.train_border))

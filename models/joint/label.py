"""The 18-way label of a photo, from the table's class names and years."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.labels import CLASSES, age_bands, compose

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["label_of"]


def label_of(photos: pd.DataFrame) -> NDArray[np.int64]:
    """The label of each photo, 0..17, shape (N,), int64."""
    mask, gender = (photos[task].map(CLASSES[task].index).to_numpy(dtype="int64") for task in ("mask", "gender"))
    return compose(mask, gender, age_bands(photos["age"].to_numpy(dtype=float)))

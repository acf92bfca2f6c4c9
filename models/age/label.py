"""The age band of a photo: half-open, so 29 is young, 30 and 59 are in the middle, 60 is old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.labels import AGE_BORDERS
from orchestrator.specialist import Scale

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["SCALE", "age_band"]

SCALE = Scale(column="age", borders=AGE_BORDERS, low=0, high=100)


def age_band(photos: pd.DataFrame) -> NDArray[np.int64]:
    """The class code of each photo, 0..2, shape (N,), int64, from the exact age in years."""
    return SCALE.classes(photos["age"].to_numpy(dtype=float))

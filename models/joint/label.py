"""The 18-way label of a photo, from the table's words and years."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.labels import CLASSES, age_bands, compose

__all__ = ["label_of"]


def label_of(photos: pd.DataFrame) -> NDArray[np.int64]:
    """Codes 0..17 of each photo."""
    mask, gender = (photos[task].map(CLASSES[task].index).to_numpy(dtype=np.int64) for task in ("mask", "gender"))
    return compose(mask, gender, age_bands(photos["age"].to_numpy(dtype=float)))

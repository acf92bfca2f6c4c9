"""The gender class of a photo, from the table's word."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.labels import CLASSES

__all__ = ["gender_class"]


def gender_class(photos: pd.DataFrame) -> NDArray[np.int64]:
    """Codes 0..1 of each photo."""
    return photos["gender"].map(CLASSES["gender"].index).to_numpy(dtype=np.int64)

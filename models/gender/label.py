"""The gender class of a photo, from the table's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.labels import CLASSES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["gender_class"]


def gender_class(photos: pd.DataFrame) -> NDArray[np.int64]:
    """Codes 0..1 of each photo."""
    return photos["gender"].map(CLASSES["gender"].index).to_numpy(dtype="int64")

"""The mask class of a photo, from its name in the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.labels import CLASSES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["mask_class"]


def mask_class(photos: pd.DataFrame) -> NDArray[np.int64]:
    """The class code of each photo, 0..2, shape (N,), int64."""
    return photos["mask"].map(CLASSES["mask"].index).to_numpy(dtype="int64")

"""Paths as callers give them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["PathLike", "path_or_none"]

PathLike = str | os.PathLike[str]
"""Path of a file or folder."""


def path_or_none(path: PathLike | None) -> Path | None:
    """A path that may be left out."""
    return None if path is None else Path(path)

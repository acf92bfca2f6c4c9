"""Names that recipes use, for commands that check a name without importing the schema."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DEFAULT_RECIPE", "VIEWS", "View"]

DEFAULT_RECIPE = "quick"
"""Name of the recipe of a specialist for which the user names none."""

View = Literal["flip", "zoom", "zoom_flip"]
VIEWS: tuple[str, ...] = get_args(View)
"""Views of a photo that answers may be averaged over."""

"""Names that recipes use; light, for commands that check a name and need no schema."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DEFAULT_RECIPE", "VIEWS", "View"]

DEFAULT_RECIPE = "quick"
"""The recipe of a specialist for which none is named."""

View = Literal["flip", "zoom", "zoom_flip"]
VIEWS: tuple[str, ...] = get_args(View)
"""Views of a photo that answers may be averaged over."""

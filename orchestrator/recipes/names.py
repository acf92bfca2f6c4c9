"""Names that recipes use, for commands that check a name without importing the schema."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["DEFAULT_RECIPE", "VIEWS", "View", "is_file_name"]

DEFAULT_RECIPE = "quick"
"""Name of the recipe of a specialist for which the user names none."""

View = Literal["flip", "zoom", "zoom_flip"]
VIEWS: tuple[str, ...] = get_args(View)
"""Views of a photo that answers may be averaged over."""


def is_file_name(recipe: str) -> bool:
    """Whether a recipe is named by its file rather than by its name."""
    return recipe.endswith(".toml")

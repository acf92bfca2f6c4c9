"""Names that recipes use, for commands that check a name without importing the schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

__all__ = ["DEFAULT_RECIPE", "VIEWS", "View", "is_file_name", "recipe_path"]

DEFAULT_RECIPE = "quick"
"""Name of the recipe of a specialist for which the user names none."""

View = Literal["flip", "zoom", "zoom_flip"]
VIEWS: tuple[str, ...] = get_args(View)
"""Views of a photo that answers may be averaged over."""


def is_file_name(recipe: str) -> bool:
    """Whether a recipe is named by its file rather than by its name."""
    return recipe.endswith(".toml")


def recipe_path(recipe: str) -> Path:
    """The file that a recipe is named by; `~` at its beginning is a home folder, if there is a user of that name.

    The text is expanded as it was typed: as a Path, `./~mine.toml` would have lost what says that it is a file here.
    """
    return Path(os.path.expanduser(recipe))  # noqa: PTH111  (Path.expanduser fails for users that do not exist)

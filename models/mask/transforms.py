"""What the mask specialist sees: the photo, or most of it; random resized crops that never lose the mouth.

A random crop may cut away a fifth of what a recipe shows at most: smaller ones can remove mouth and chin, and with them the
answer. A test holds every recipe to that.
"""

from typing import Any

__all__ = ["AUGMENT", "GEOMETRY"]

GEOMETRY: dict[str, Any] = {"crop": 1.0, "anchor": 0.5}

AUGMENT: dict[str, Any] = {
    "resized_crop": 0.2,
    "flip": 0.5,
    "brightness": 0.2,
    "contrast": 0.2,
    "sharpen": 0.1,
    "grey": 0.1,
}

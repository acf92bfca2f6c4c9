"""What the mask specialist sees: the whole photo; random resized crops that never lose the mouth.

A crop may cut away a fifth of the area at most: smaller ones can remove mouth and chin, and with them the answer.
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

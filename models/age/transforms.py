"""What the age specialist sees: the centre of the photo, where the face and its skin are, unless a recipe says otherwise.

Colour and contrast change only mildly: grey hair and wrinkles are what age is read from.
"""

from typing import Any

__all__ = ["AUGMENT", "GEOMETRY"]

GEOMETRY: dict[str, Any] = {"crop": 0.8, "anchor": 0.5}

AUGMENT: dict[str, Any] = {
    "flip": 0.5,
    "shift": 0.06,
    "scale": 0.1,
    "rotate": 8,
    "brightness": 0.2,
    "contrast": 0.2,
    "colour": 0.03,
    "sharpen": 0.1,
    "grey": 0.05,
}

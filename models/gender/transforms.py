"""What the gender specialist sees: the lower centre, where long hair, neck and shoulders are, unless a recipe says otherwise."""

from typing import Any

__all__ = ["AUGMENT", "GEOMETRY"]

GEOMETRY: dict[str, Any] = {"crop": 0.9, "anchor": 1.0}

AUGMENT: dict[str, Any] = {
    "flip": 0.5,
    "shift": 0.06,
    "scale": 0.1,
    "rotate": 8,
    "brightness": 0.2,
    "contrast": 0.2,
    "colour": 0.03,
    "sharpen": 0.1,
    "grey": 0.1,
}

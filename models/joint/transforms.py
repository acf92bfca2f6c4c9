"""What the joint network sees: most of the photo, for the mask; mild changes, for the age. Crops never lose the mouth."""

from typing import Any

__all__ = ["AUGMENT", "GEOMETRY", "KEEPS", "KEEPS_OF_FACE"]

GEOMETRY: dict[str, Any] = {"crop": 0.85, "anchor": 0.4}

AUGMENT: dict[str, Any] = {
    "flip": 0.5,
    "shift": 0.04,
    "scale": 0.08,
    "rotate": 6,
    "brightness": 0.2,
    "contrast": 0.2,
    "colour": 0.03,
    "sharpen": 0.1,
    "grey": 0.05,
}

KEEPS = (0.5, 0.7)
"""As for the mask specialist: from below the eyes to the chin."""

KEEPS_OF_FACE = (0.45, 1.15)
"""The same rows relative to the face's box, which ends a tenth of its height above a masked chin; with room below."""

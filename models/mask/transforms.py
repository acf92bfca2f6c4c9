"""What the mask specialist sees: the photo, or most of it; random resized crops that never lose the mouth.

Crops that can remove nose, mouth or chin remove the answer with them, and are refused.
"""

from typing import Any

__all__ = ["AUGMENT", "GEOMETRY", "KEEPS", "KEEPS_OF_FACE"]

GEOMETRY: dict[str, Any] = {"crop": 1.0, "anchor": 0.5}

AUGMENT: dict[str, Any] = {
    "resized_crop": 0.2,
    "flip": 0.5,
    "brightness": 0.2,
    "contrast": 0.2,
    "sharpen": 0.1,
    "grey": 0.1,
}

KEEPS = (0.5, 0.7)
"""From below the eyes to the chin of a face in the upper middle, as the contest's photos show them."""

KEEPS_OF_FACE = (0.45, 1.15)
"""The same rows relative to the face's box, which ends a tenth of its height above a masked chin; with room below."""

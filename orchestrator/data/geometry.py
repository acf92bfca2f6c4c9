"""Which part of a photo a network sees, and at which size: a value, and what it does to a decoded photo.

Recipes hold a Geometry, so this module must be cheap to import: libraries that resize are imported where they are used. Every
export includes a copy of this file, so it imports nothing from orchestrator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = ["DETECTOR", "Box", "Geometry"]

Box = tuple[int, int, int, int]
"""Top, left, height, width, pixels."""

DETECTOR = "mtcnn-1.0.0-r1"
"""Name of the face detector: package of its weights, version, and revision of our code. Any change that alters boxes
must change this name, so that a member never predicts on other crops than it was trained on."""


@dataclass(frozen=True)
class Geometry:
    """Which part of a photo a network sees, and at which size. The same in training, evaluation and serving.

    Attributes:
        height: rows of the result, pixels.
        width: columns of the result, pixels.
        crop: size of the crop box, as a share in (0, 1] of the largest box of the result's shape that fits.
        anchor: vertical position of the box, as the share of the remaining rows that is above it: 0 is the top, 0.5 the
            centre, 1 the bottom ("lower centre"). Horizontally it is always centred.
        face: if above 0, the box surrounds the detected face instead, with this share of the face's height as margin
            above and below, and at least that at the sides; less if the photo is too narrow for a box of the result's
            shape. `crop` and `anchor` then apply to photos without a detected face.
        detector: name of the face detector; empty if `face` is 0.
    """

    height: int
    width: int
    crop: float = 1.0
    anchor: float = 0.5
    face: float = 0.0
    detector: str = ""

    def box(self, height: int, width: int, face: Box | None = None) -> Box:
        """The crop box in a photo of `height` x `width`, always within it.

        Args:
            height: height of the photo, pixels.
            width: width of the photo, pixels.
            face: the face's box; None where none was found or looked for.
        """
        if self.face and face is not None:
            return self._around(face, height, width)
        scale = min(height / self.height, width / self.width) * self.crop
        box_height = min(height, max(1, round(self.height * scale)))
        box_width = min(width, max(1, round(self.width * scale)))
        top = round((height - box_height) * self.anchor)
        return top, (width - box_width) // 2, box_height, box_width

    def _around(self, face: Box, height: int, width: int) -> Box:
        """The box of the result's shape around a face and its margin: moved, then shrunk, where it would leave the photo."""
        face_top, face_left, face_height, face_width = face
        margin = self.face * face_height
        face_scale = max((face_height + 2 * margin) / self.height, (face_width + 2 * margin) / self.width)
        scale = min(face_scale, height / self.height, width / self.width)
        box_height = min(height, max(1, round(self.height * scale)))
        box_width = min(width, max(1, round(self.width * scale)))
        top = round(face_top + face_height / 2 - box_height / 2)
        left = round(face_left + face_width / 2 - box_width / 2)
        return min(max(top, 0), height - box_height), min(max(left, 0), width - box_width), box_height, box_width

    def apply(self, photo: Pixels, face: Box | None = None) -> Pixels:
        """Crops and resizes: (H, W, 3) uint8 in, (height, width, 3) uint8 out, same colours.

        Shrinking averages areas (no aliasing), enlarging is linear.

        Args:
            photo: the decoded photo.
            face: the face's box in the photo, which counts only if the geometry's `face` is above 0.
        """
        import cv2
        import numpy as np

        top, left, height, width = self.box(photo.shape[0], photo.shape[1], face)
        part = photo[top : top + height, left : left + width]
        if part.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(part)
        shrink = height >= self.height and width >= self.width
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (self.width, self.height), interpolation=method), dtype=np.uint8)

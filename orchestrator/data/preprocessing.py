"""One way from a file to a network's input, for training, evaluation and serving alike.

bytes -> `decode` (checked, upright, RGB) -> `Geometry.apply` (crop, resize; uint8) -> `Preprocess.normalise` (float).
Crops around faces take one step more between the first two: data/detection.py finds the box that `Geometry.apply` is given.
The store keeps what `Geometry.apply` returns; augmentation works on the same pixels; a member's card holds its
`Preprocess`. So training and serving cannot drift apart: there is no second path.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestrator.errors import PhotoError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DETECTOR",
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Box",
    "Geometry",
    "Pixels",
    "Preprocess",
    "decode",
    "photo_format",
]

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Top, left, height, width, pixels."""

DETECTOR = "mtcnn-1.0.0-r1"
"""What finds faces: the package whose weights it uses, its version, and the revision of our code around them. Whatever changes
boxes changes this name, so that no member is ever shown other crops than those it learnt from."""

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",)}
"""Formats that are decoded, by content; Pillow knows dozens more, some of which start other programs."""

MAX_PIXELS = 64_000_000
"""A photo with more pixels is refused: 64 MP is above any phone's full resolution and 192 MB decoded. Pillow
itself only warns at 89 MP and errors at twice that."""


def decode(source: Path | bytes) -> Pixels:
    """Decodes one photo to upright RGB.

    EXIF orientation is applied; grey and palette images become RGB; CMYK is converted; 16-bit grey keeps its high
    byte; transparent pixels are laid over white, as viewers show them.

    Args:
        source: a file or its bytes.

    Returns:
        Shape (H, W, 3), uint8, RGB in 0..255.

    Raises:
        PhotoError: naming the file and what is wrong with it.
    """
    name = "the photo" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(FORMATS)
            ) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise PhotoError(
                        f"{name}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are decoded."
                    )
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PhotoError(f"{name}: more than {MAX_PIXELS:,} pixels.") from None
    except FileNotFoundError:
        raise PhotoError(f"{name}: no such file.") from None
    except UnidentifiedImageError:
        empty = len(source) == 0 if isinstance(source, bytes) else source.stat().st_size == 0
        what = "is empty (0 bytes)" if empty else f"is no image of a known format ({', '.join(FORMATS)})"
        raise PhotoError(f"{name}: {what}.") from None
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # mutated files made Pillow raise OSError, SyntaxError, struct.error, TypeError and more
        raise PhotoError(f"{name}: damaged or truncated ({error}).") from None


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(high[:, :, None], 3, axis=2))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def photo_format(path: Path) -> str | None:
    """The format that a file's content says, `JPEG`, `PNG` or `WEBP`; None when it is none of them."""
    try:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            return image.format
    except Exception:  # whatever Pillow makes of damaged bytes, they are none of the formats
        return None


@dataclass(frozen=True)
class Geometry:
    """Which part of a photo a network sees, and at which size. The same in training, evaluation and serving.

    Attributes:
        height: rows of the result, pixels.
        width: columns of the result, pixels.
        crop: size of the crop box, as a share in (0, 1] of the largest box of the result's shape that fits.
        anchor: where the box stands vertically, as the share of the rows left over that lie above it: 0 is the top, 0.5
            the centre, 1 the bottom ("lower centre"). Horizontally it is always centred.
        face: above 0, the box is put around the face found instead, with this share of the face's height as margin above and
            below, and no less at the sides; less where the photo is too narrow for a box of the result's shape. `crop` and
            `anchor` then are for photos in which no face was found.
        detector: what finds the faces; empty without `face`.
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
            height: of the photo, pixels.
            width: of the photo, pixels.
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
        wanted = max((face_height + 2 * margin) / self.height, (face_width + 2 * margin) / self.width)
        scale = min(wanted, height / self.height, width / self.width)
        box_height = min(height, max(1, round(self.height * scale)))
        box_width = min(width, max(1, round(self.width * scale)))
        top = round(face_top + face_height / 2 - box_height / 2)
        left = round(face_left + face_width / 2 - box_width / 2)
        return min(max(top, 0), height - box_height), min(max(left, 0), width - box_width), box_height, box_width

    def apply(self, photo: Pixels, face: Box | None = None) -> Pixels:
        """Crops and resizes: (H, W, 3) uint8 in, (height, width, 3) uint8 out, same colours.

        Shrinking averages areas (no aliasing), enlarging is linear.

        Args:
            photo: decoded.
            face: the face's box in it; only `face` above 0 looks at it.
        """
        top, left, height, width = self.box(photo.shape[0], photo.shape[1], face)
        part = photo[top : top + height, left : left + width]
        if part.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(part)
        shrink = height >= self.height and width >= self.width
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (self.width, self.height), interpolation=method), dtype=np.uint8)


@dataclass(frozen=True)
class Preprocess:
    """Everything between a decoded photo and a network's input; stored in each member's card.

    Attributes:
        geometry: crop and size.
        mean: per channel, on the scale 0..1, RGB.
        std: per channel, on the scale 0..1, RGB.
    """

    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: Tensor) -> Tensor:
        """A batch of pixels as the network's input, on the pixels' device.

        Args:
            pixels: shape (N, H, W, 3), uint8.

        Returns:
            Shape (N, 3, H, W), float32, channels-last in memory: (pixels / 255 - mean) / std.
        """
        mean = pixels.new_tensor([255 * value for value in self.mean], dtype=_float32())
        scale = pixels.new_tensor([1 / (255 * value) for value in self.std], dtype=_float32())
        return ((pixels.to(_float32()) - mean) * scale).permute(0, 3, 1, 2)

    def as_dict(self) -> dict[str, Any]:
        """For a card: plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocess:
        """The inverse of `as_dict`."""
        mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
        return cls(Geometry(**value["geometry"]), mean, std)  # type: ignore[arg-type]  # of three each


def _float32() -> Any:
    import torch

    return torch.float32

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

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestrator.data.geometry import DETECTOR, Box, Geometry
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

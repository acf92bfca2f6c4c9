"""One way from a file to a network's input, for training, evaluation and serving alike.

bytes -> `decode` (decoding.py: upright, RGB) -> `Geometry.apply` (crop, resize; uint8) -> `Preprocess.normalise` (float).
Crops around faces take one step more between the first two: faces/detection.py finds the box that `Geometry.apply` is given.
The store keeps what `Geometry.apply` returns; augmentation works on the same pixels; a member's card holds its
`Preprocess`. So training and serving cannot drift apart: there is no second path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import PhotoError
from orchestrator.data.decoding import FORMATS, MAX_PIXELS, SUFFIXES, UndecodableError, read_photo
from orchestrator.data.geometry import DETECTOR, Box, Geometry

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
]

Pixels = NDArray[np.uint8]


def decode(source: Path | bytes) -> Pixels:
    """Decodes one photo to upright RGB, as `decoding.read_photo` says.

    Args:
        source: a file or its bytes.

    Returns:
        Shape (H, W, 3), uint8, RGB in 0..255.

    Raises:
        PhotoError: the photo cannot be decoded; names the file and what is wrong with it.
    """
    try:
        return read_photo(source).pixels
    except UndecodableError as error:
        name = "the photo" if isinstance(source, bytes) else source
        raise PhotoError(name, str(error).rstrip("."), kind=error.kind) from None


@dataclass(frozen=True)
class Preprocess:
    """Everything between a decoded photo and a network's input; stored in each member's card.

    Attributes:
        geometry: crop and size.
        mean: mean of each RGB channel, on the scale 0..1.
        std: standard deviation of each RGB channel, on the scale 0..1.
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
    def from_dict(cls, value: Mapping[str, Any]) -> Preprocess:
        """The inverse of `as_dict`, from a member's card."""
        mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
        return cls(Geometry(**value["geometry"]), mean, std)  # type: ignore[arg-type]  # of three each


def _float32() -> Any:
    import torch

    return torch.float32

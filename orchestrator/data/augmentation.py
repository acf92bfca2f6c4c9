"""Random changes of training photos, over albumentations, which stays behind this module.

albumentations 2.0.8 is the last MIT release and unmaintained since June 2025, so recipes hold our own settings, not
its objects: another library can take its place without touching a recipe. Augmentation works on the store's pixels
and keeps their size; evaluation and serving never augment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Augment", "Augmenter"]


class Augment(BaseModel):
    """The strength of each change; 0 turns it off. Fields without a probability of their own always apply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip")
    shift: float = Field(0.0, ge=0, le=0.5, description="largest shift, as a share of height and width")
    scale: float = Field(0.0, ge=0, le=0.9, description="largest change of size, as a share")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation, degrees")
    resized_crop: float = Field(
        0.0, ge=0, lt=1, description="largest share of the area cut away by a random resized crop; 0: none"
    )
    brightness: float = Field(0.0, ge=0, le=1, description="largest change of brightness, as a share")
    contrast: float = Field(0.0, ge=0, le=1, description="largest change of contrast, as a share")
    colour: float = Field(0.0, ge=0, le=1, description="largest change of each channel, as a share")
    sharpen: float = Field(0.0, ge=0, le=1, description="probability of sharpening")
    grey: float = Field(0.0, ge=0, le=1, description="probability of losing all colour")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a slight Gaussian blur")
    noise: float = Field(0.0, ge=0, le=1, description="probability of Gaussian noise")
    cutout: float = Field(0.0, ge=0, le=1, description="probability of one blank box, 10 to 30 % a side")


class Augmenter:
    """Applies an `Augment` to batches; the same seed and pixels give the same result in any process.

    Args:
        augment: the settings.
        height: of the pixels.
        width: of the pixels.
    """

    def __init__(self, augment: Augment, height: int, width: int) -> None:
        self._augment, self._size = augment, (height, width)
        self._transform: Any = None

    def __call__(self, pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Augments a batch.

        Args:
            pixels: shape (N, H, W, 3), uint8.
            seed: of this batch's draws.

        Returns:
            The same shape and dtype.
        """
        if self._transform is None:
            self._transform = _compose(self._augment, *self._size)
        self._transform.set_random_seed(seed)
        # Compose hands the same number to every step, so that a photo that is made grey would always be flipped too.
        for number, step in enumerate(self._transform.transforms):
            step.set_random_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        return np.stack([self._transform(image=photo)["image"] for photo in pixels])

    def __getstate__(self) -> dict[str, Any]:
        return {"_augment": self._augment, "_size": self._size, "_transform": None}


def _compose(a: Augment, height: int, width: int) -> Any:
    """The albumentations pipeline of the settings."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI for its own version at import otherwise
    import albumentations as A
    import cv2

    reflect = cv2.BORDER_REFLECT_101
    steps: list[Any] = []
    if a.resized_crop:
        area, shape = (1 - a.resized_crop, 1.0), width / height
        steps.append(A.RandomResizedCrop((height, width), scale=area, ratio=(0.9 * shape, 1.1 * shape)))
    if a.flip:
        steps.append(A.HorizontalFlip(p=a.flip))
    if a.shift or a.scale or a.rotate:
        steps.append(
            A.Affine(
                scale=(1 - a.scale, 1 + a.scale), translate_percent=(-a.shift, a.shift), rotate=(-a.rotate, a.rotate),
                keep_ratio=True, border_mode=reflect, p=1,
            )
        )  # fmt: skip
    if a.brightness or a.contrast:
        steps.append(A.RandomBrightnessContrast(a.brightness, a.contrast, p=1))
    if a.colour:
        shift = a.colour * 255
        steps.append(A.RGBShift((-shift, shift), (-shift, shift), (-shift, shift), p=1))
    chances: list[tuple[float, Callable[[float], Any]]] = [
        (a.sharpen, lambda p: A.Sharpen(alpha=(0.1, 0.3), lightness=(0.8, 1.0), p=p)),
        (a.grey, lambda p: A.ToGray(p=p)),
        (a.blur, lambda p: A.GaussianBlur(blur_limit=(3, 5), p=p)),
        (a.noise, lambda p: A.GaussNoise(std_range=(0.02, 0.06), p=p)),
        (a.cutout, lambda p: A.CoarseDropout((1, 1), (0.1, 0.3), (0.1, 0.3), fill=127, p=p)),
    ]
    for chance, step in chances:
        if chance:
            steps.append(step(chance))
    return A.Compose(steps, seed=0)

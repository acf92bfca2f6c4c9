"""Random changes of training photos, built on albumentations, which no other module imports.

albumentations 2.0.8 is the last MIT release and unmaintained since June 2025, so recipes hold our own settings, not
its objects: another library can take its place without touching a recipe. Augmentation works on the store's pixels
and keeps their size; evaluation and serving never augment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Augment", "Augmenter"]


class Augment(BaseModel):
    """The strength of each change; 0 turns it off. Fields without a probability of their own always apply."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_size: int = Field(5, ge=3, le=31, description="blur: largest kernel, pixels, odd")
    noise: float = Field(0.0, ge=0, le=1, description="probability of Gaussian noise")
    noise_std: float = Field(
        0.06, gt=0, le=1, description="noise: largest standard deviation, as a share of 255; smallest: a third of it"
    )
    jpeg: float = Field(0.0, ge=0, le=1, description="probability of JPEG recompression")
    jpeg_quality: int = Field(40, ge=1, le=95, description="jpeg: lowest quality; highest: 95")
    cutout: float = Field(0.0, ge=0, le=1, description="probability of one blank box (DeVries and Taylor 2017)")
    cutout_size: float = Field(
        0.3, gt=0, le=0.9, description="cutout: largest side, as a share of height and width; smallest: a third of it"
    )
    elastic: float = Field(0.0, ge=0, le=1, description="probability of an elastic distortion (Simard et al. 2003)")
    elastic_shift: float = Field(
        0.03, gt=0, le=0.3, description="elastic: approximate shift of pixels, as a share of the width"
    )
    closing: float = Field(
        0.0, ge=0, le=1, description="probability of a morphological closing, which fills small dark spots"
    )
    closing_size: int = Field(3, ge=2, le=31, description="closing: side of the square, pixels")
    canny: float = Field(0.0, ge=0, le=1, description="probability of showing edges alone (Canny 1986)")
    sobel: float = Field(0.0, ge=0, le=1, description="probability of showing the strength of edges alone (Sobel)")
    randaugment: int = Field(
        0, ge=0, le=8, description="number of changes per photo, out of eleven that keep faces recognisable; 0: none"
    )
    randaugment_strength: float = Field(0.5, gt=0, le=1, description="randaugment: strength; faces tolerate up to 1")

    @field_validator("blur_size")
    @classmethod
    def _odd(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("a kernel has a middle pixel: odd sizes only")
        return size


class Augmenter:
    """Applies an `Augment` to batches; the same seed and pixels give the same result in any process.

    Args:
        augment: the settings.
        height: height of the pixels.
        width: width of the pixels.
    """

    def __init__(self, augment: Augment, height: int, width: int) -> None:
        self._augment, self._size = augment, (height, width)
        self._transform: Any = None

    def __call__(self, pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Changes the pixels of a batch at random, as its seed says.

        Args:
            pixels: shape (N, H, W, 3), uint8.
            seed: seed of this batch's draws.

        Returns:
            The same shape and dtype.
        """
        import numpy as np

        if self._transform is None:
            self._transform = _compose(self._augment, *self._size)
        self._transform.set_random_seed(seed)
        # Compose gives the same seed to every step, so that every photo turned grey would also be flipped.
        for number, step in enumerate(_all_steps(self._transform)):
            step.set_random_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        return np.stack([self._transform(image=photo)["image"] for photo in pixels])

    def __getstate__(self) -> dict[str, Any]:
        return {"_augment": self._augment, "_size": self._size, "_transform": None}


def _all_steps(transform: Any) -> list[Any]:
    """Every step of a pipeline, each followed by the steps inside it."""
    steps = list(getattr(transform, "transforms", ()))
    return [inner for step in steps for inner in (step, *_all_steps(step))]


def _compose(a: Augment, height: int, width: int) -> Any:
    """The albumentations pipeline of the settings."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks PyPI for its own version at import otherwise
    import albumentations as A
    import cv2
    import numpy as np

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
    if a.randaugment:
        steps.append(A.SomeOf(_face_safe(a.randaugment_strength, reflect), n=a.randaugment, replace=False, p=1))
    square, alpha = np.ones((a.closing_size, a.closing_size), np.uint8), _elastic_alpha(a.elastic_shift * width)
    chances: list[tuple[float, Callable[[float], Any]]] = [
        (a.elastic, lambda p: A.ElasticTransform(alpha, ELASTIC_SIGMA, border_mode=reflect, noise_distribution="uniform", p=p)),
        (a.sharpen, lambda p: A.Sharpen(alpha=(0.1, 0.3), lightness=(0.8, 1.0), p=p)),
        (a.grey, lambda p: A.ToGray(p=p)),
        (a.blur, lambda p: A.GaussianBlur(blur_limit=(3, a.blur_size), p=p)),
        (a.closing, lambda p: A.Lambda(image=partial(_close, square=square), p=p)),
        (a.canny, lambda p: A.Lambda(image=_canny, p=p)),
        (a.sobel, lambda p: A.Lambda(image=_sobel, p=p)),
        (a.noise, lambda p: A.GaussNoise(std_range=(a.noise_std / 3, a.noise_std), p=p)),
        (a.jpeg, lambda p: A.ImageCompression(quality_range=(a.jpeg_quality, 95), p=p)),
        (a.cutout, lambda p: A.CoarseDropout((1, 1), *[(a.cutout_size / 3, a.cutout_size)] * 2, fill=127, p=p)),
    ]  # fmt: skip
    for chance, step in chances:
        if chance:
            steps.append(step(chance))
    return A.Compose(steps, seed=0)


def _face_safe(strength: float, border: int) -> list[Any]:
    """What RandAugment draws from (Cubuk et al. 2020, arXiv 1909.13719), without what harms faces.

    Omitted from the paper's fourteen: invert, solarise and equalise (skin and hair lose their tones), and rotations,
    shears and shifts above 15 degrees and a tenth of the width. Colours vary no more than between cameras.
    """
    import albumentations as A

    m, near = strength, {"border_mode": border}
    return [
        A.Affine(rotate=(-15 * m, 15 * m), **near, p=1), A.Affine(shear={"x": (-12 * m, 12 * m), "y": (0, 0)}, **near, p=1),
        A.Affine(translate_percent={"x": (-0.1 * m, 0.1 * m), "y": (-0.05 * m, 0.05 * m)}, **near, p=1),
        A.RandomBrightnessContrast(0.3 * m, 0.0, p=1), A.RandomBrightnessContrast(0.0, 0.3 * m, p=1),
        A.HueSaturationValue(4 * m, 40 * m, 0, p=1), A.AutoContrast(cutoff=2 * m, p=1),
        A.RandomGamma((100 - 30 * m, 100 + 40 * m), p=1), A.Posterize((round(8 - 3 * m), 8), p=1),
        A.Sharpen(alpha=(0.0, 0.5 * m), lightness=(1.0, 1.0), p=1),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 0.1 + m), p=1),
    ]  # fmt: skip


ELASTIC_SIGMA = 6.0  # pixels: waves about as long as an eye at 128 x 96


def _elastic_alpha(shift: float) -> float:
    """albumentations' alpha for about this shift, in pixels: it smooths noise of -1..1, whose deviation is then
    1 / sqrt(3) / (2 sqrt(pi) sigma), and multiplies by alpha."""
    return float(shift * math.sqrt(3) * 2 * math.sqrt(math.pi) * ELASTIC_SIGMA)


def _close(photo: NDArray[np.uint8], *, square: NDArray[np.uint8], **_: Any) -> NDArray[np.uint8]:
    """Dilation, then erosion: bright areas close over small dark ones (morphological closing)."""
    import cv2
    import numpy as np

    return np.asarray(cv2.morphologyEx(photo, cv2.MORPH_CLOSE, square), dtype=np.uint8)


def _canny(photo: NDArray[np.uint8], **_: Any) -> NDArray[np.uint8]:
    """White edges on black in three channels, with OpenCV's usual thresholds."""
    import cv2
    import numpy as np

    edges = cv2.Canny(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), 100, 200)
    return np.repeat(edges[:, :, None], 3, axis=2)


def _sobel(photo: NDArray[np.uint8], **_: Any) -> NDArray[np.uint8]:
    """The length of the brightness's gradient, in three channels."""
    import cv2
    import numpy as np

    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    down, right = cv2.Sobel(grey, cv2.CV_32F, 0, 1), cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    return np.repeat(np.clip(np.hypot(down, right), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)

"""Which edges of a photo a backbone ignores: tests whether a change there changes its features.

Transformers cut a photo into patches, and most silently drop the remainder at the bottom and the right if the patch
size does not divide the photo's. The forward pass does not fail then, so this is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ENOUGH", "Blind", "blind_edges", "patch_of"]

ENOUGH = 3
"""Tolerated number of ignored pixels at an edge: the remainder of 4 x 4 stems and of strides without padding."""


@dataclass(frozen=True)
class Blind:
    """Numbers of rows and columns at the edges that do not affect the features."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def matters(self) -> bool:
        """Whether more pixels are ignored at an edge than tolerated."""
        return max(self.top, self.bottom, self.left, self.right) > ENOUGH

    @property
    def rows(self) -> int:
        """Ignored rows at the top and the bottom together."""
        return self.top + self.bottom

    @property
    def columns(self) -> int:
        """Ignored columns at the left and the right together."""
        return self.left + self.right


def blind_edges(model: nn.Module, height: int, width: int) -> Blind:
    """The edges that a network ignores in photos of a size, found by changing pixels there.

    Args:
        model: timm model; constant weights are randomised, as zeros (gates, a block's last norm) block the signal.
        height: photo height, pixels.
        width: photo width, pixels.
    """
    return _EdgeTest(model, height, width).blind


class _EdgeTest:
    """A network with weights that let everything through, and a photo of noise."""

    def __init__(self, model: Any, height: int, width: int) -> None:
        self._model, self._size = model.eval(), (height, width)
        self._random = torch.Generator().manual_seed(0)
        _wake(model, self._random)
        self._photo = torch.randn(1, 3, height, width, generator=self._random)

    @cached_property
    def _features(self) -> list[Tensor]:
        return self._ask(self._photo)

    def _ask(self, photo: Tensor) -> list[Tensor]:
        """The features, not the head's output: in its two float32 numbers, small changes would be lost to rounding."""
        with torch.inference_mode():
            features = self._model.forward_features(photo)
        return [features] if isinstance(features, Tensor) else list(features)

    def _sees(self, axis: int, end: bool, pixels: int) -> bool:
        """Whether a change of the first or last `pixels` rows (axis 2) or columns (axis 3) moves the features."""
        changed = self._photo.clone()
        side = self._photo.shape[axis]
        changed.narrow(axis, side - pixels if end else 0, pixels).add_(3.0)
        return not all(map(torch.equal, self._ask(changed), self._features))

    def _edge(self, axis: int, end: bool) -> int:
        side = self._size[axis - 2]
        if self._sees(axis, end, min(side, ENOUGH + 1)):
            return 0  # at most ENOUGH, which is tolerated
        unseen, seen = min(side, ENOUGH + 1), side
        while seen - unseen > 1:
            middle = (unseen + seen) // 2
            unseen, seen = (unseen, middle) if self._sees(axis, end, middle) else (middle, seen)
        return unseen

    @property
    def blind(self) -> Blind:
        top, bottom, left, right = (self._edge(axis, end) for axis in (2, 3) for end in (False, True))
        return Blind(top, bottom, left, right)


def _wake(model: nn.Module, generator: torch.Generator) -> None:
    """Randomises every constant parameter: zeros around 0, scaled by fan-in, and other constants around 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            first = parameter.flatten()[0]
            if not parameter.is_floating_point() or not bool((parameter == first).all()):
                continue
            noise = torch.randn(parameter.shape, generator=generator)
            zero = first == 0 and parameter.numel() > 1
            spread = (parameter[0].numel() if parameter.ndim > 1 else 100) ** -0.5
            parameter.copy_(noise * spread if zero else 1 + 0.1 * noise)


def patch_of(model: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a network cuts photos into; None if it has none, or timm does not say."""
    patch_size = next(
        (value for module in model.modules() if (value := getattr(module, "patch_size", None)) is not None), None
    )
    if isinstance(patch_size, int):
        return patch_size, patch_size
    if isinstance(patch_size, tuple | list) and len(patch_size) == 2:
        return int(patch_size[0]), int(patch_size[1])
    return None

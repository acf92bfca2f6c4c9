"""Test-time augmentation: a member answers for several views of a photo, and the mean of its probabilities is its answer.

A view is a function of the network's input, photos (N, 3, H, W) that are cropped, resized and normalised already. So the same
views serve held-out scores, every engine and exports. They are part of a member: what is scored is what predicts.

Averaging views flips right answers as well as wrong ones, even where the net gain is positive (Shanmugam et al. 2021, "Better
Aggregation in Test-Time Augmentation", arXiv 2011.11156). `orch tta` counts both; no recipe but the published ones has views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestrator.recipes.schema import ZOOM

__all__ = ["VIEWS", "mean_over_views"]


def _flip(photos: Tensor) -> Tensor:
    """Each photo mirrored, left and right exchanged."""
    return photos.flip(3)


def _zoom(photos: Tensor) -> Tensor:
    """The middle of each photo, enlarged to its size."""
    height, width = photos.shape[2:]
    top, left = round(height * (1 - ZOOM) / 2), round(width * (1 - ZOOM) / 2)
    middle = photos[:, :, top : height - top, left : width - left]
    return F.interpolate(middle, (height, width), mode="bilinear")


def _zoom_flip(photos: Tensor) -> Tensor:
    """Left and right exchanged, then the middle enlarged."""
    return _zoom(_flip(photos))


VIEWS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"flip": _flip, "zoom": _zoom, "zoom_flip": _zoom_flip}
)
"""Name -> view, beside the photo as it is."""


def mean_over_views(views: Sequence[str], inputs: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of the answers for the photos as they are and for each view; without views the answer itself.

    Args:
        views: names of `VIEWS`.
        inputs: inputs of a network, shape (N, 3, H, W).
        answer: function from inputs to class probabilities (N, C).
    """
    if not views:
        return answer(inputs)
    return torch.stack([answer(inputs), *(answer(VIEWS[view](inputs)) for view in views)]).mean(dim=0)

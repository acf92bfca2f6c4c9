"""MixUp and CutMix: photos and their targets mixed in pairs, so that a network does not memorise its few people.

MixUp after Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412): every pixel is blended. CutMix
after Yun et al. 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (arXiv 1905.04899):
a box of the partner is pasted. One share for the whole batch, drawn from a Beta distribution, each photo mixed with another of
the same batch. The loss is blended, not the target, so every head can be trained so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Mix", "draw_mix"]


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed.

    Attributes:
        share: share of each photo that remains, 0..1.
        partner: position in the batch of the photo that each is mixed with, shape (N,), int64.
        box: CutMix: top, left, bottom and right of the pasted box; None: MixUp.
    """

    share: float
    partner: Tensor
    box: tuple[int, int, int, int] | None = None

    def photos(self, photos: Tensor) -> Tensor:
        """The mixed photos, (N, 3, H, W) or features (N, F), floating, in the same memory format."""
        partners = photos[self.partner.to(photos.device)]
        if self.box is None:
            return self.blend(photos, partners)
        top, left, bottom, right = self.box
        mixed = photos.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed

    def blend(self, own: Tensor, partners: Tensor) -> Tensor:
        """Mean of the photos' own values and their partners', with weights `share` and 1 - `share`."""
        return own * self.share + partners * (1 - self.share)


def draw_mix(photos: int, size: tuple[int, int], mixup: float, cutmix: float, rng: np.random.Generator) -> Mix | None:
    """Draws a batch's mix; None if both are off.

    Args:
        photos: number of photos, N.
        size: height and width, pixels.
        mixup: parameter of the Beta distribution: small values leave most batches almost unchanged, 1 draws shares
            uniformly. 0: no MixUp.
        cutmix: the same for CutMix. With both on, each batch draws one of them, like timm.
        rng: draws the choice, the share, the box and the pairs.
    """
    if not mixup and not cutmix:
        return None
    cut = bool(cutmix) and (not mixup or rng.random() < 0.5)
    share = float(rng.beta(cutmix, cutmix) if cut else rng.beta(mixup, mixup))
    if not cut:
        return Mix(share, torch.from_numpy(rng.permutation(photos)))
    height, width = size
    side = math.sqrt(1 - share)
    middle_y, middle_x = int(rng.integers(height)), int(rng.integers(width))
    half_y, half_x = round(height * side / 2), round(width * side / 2)
    top, bottom = max(0, middle_y - half_y), min(height, middle_y + half_y)
    left, right = max(0, middle_x - half_x), min(width, middle_x + half_x)
    # The box may extend beyond the edge: only the part inside counts.
    own_share = 1 - (bottom - top) * (right - left) / (height * width)
    return Mix(own_share, torch.from_numpy(rng.permutation(photos)), (top, left, bottom, right))

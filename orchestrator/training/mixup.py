"""MixUp: photos and their targets blended in pairs, so that a network that could learn its few people by heart does not.

After Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization" (arXiv 1710.09412): one share for the whole batch, drawn
from Beta(alpha, alpha), each photo blended with another of the same batch. The loss is blended, not the target, so every head
can be trained so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Mix", "draw_mix"]


@dataclass(frozen=True)
class Mix:
    """How one batch is blended.

    Attributes:
        share: what remains of each photo, 0..1.
        partner: position in the batch of the photo that each is blended with, shape (N,), int64.
    """

    share: float
    partner: Tensor

    def blend(self, values: Tensor) -> Tensor:
        """`share` of each value and the rest of its partner's; shape (N, ...), floating, in the same memory format."""
        return values * self.share + values[self.partner.to(values.device)] * (1 - self.share)


def draw_mix(photos: int, alpha: float, rng: np.random.Generator) -> Mix:
    """Draws a batch's blend.

    Args:
        photos: N.
        alpha: of the Beta distribution, above 0: small ones leave most batches almost as they are, 1 draws all shares alike.
        rng: used for the share and the pairs.
    """
    share = float(rng.beta(alpha, alpha))
    return Mix(share, torch.from_numpy(rng.permutation(photos)))

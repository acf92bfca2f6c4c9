"""Losses on class outputs: each takes outputs (N, C), class codes (N,) and the photos' weights (N,), and gives a scalar.

A photo's weight says how much it counts (`photo_weights`), with mean 1 over an epoch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["corn", "cross_entropy", "focal", "soft_f1"]


def cross_entropy(outputs: Tensor, codes: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, of the target spread over all classes by a share `smoothing` (Szegedy et al. 2016, arXiv 1512.00567)."""
    return (F.cross_entropy(outputs, codes, label_smoothing=smoothing, reduction="none") * weights).mean()


def focal(outputs: Tensor, codes: Tensor, weights: Tensor, gamma: float, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with each class term weighted by (1 - its probability) ^ gamma: well-classified photos count less.

    After Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), on softmax outputs; with smoothing each
    class's share of the target has its own factor. With gamma 0 it is cross-entropy.

    Where a probability is 1 the gradient is 0, its limit. Computed directly, for gamma below 1, the gradient of the
    power would be infinite there, and infinity times log 1 = 0 is NaN.
    """
    logs = outputs.log_softmax(dim=1)
    target = F.one_hot(codes, outputs.shape[1]) * (1 - smoothing) + smoothing / outputs.shape[1]
    missed = -torch.expm1(logs)
    open_ = missed > 0
    factor = torch.where(open_, torch.where(open_, missed, 1.0) ** gamma, float(gamma == 0))
    return (-(target * factor * logs).sum(dim=1) * weights).mean()


def soft_f1(outputs: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """1 - macro F1 of a batch, with probabilities instead of counts, over the classes present in the batch.

    With probabilities of 0 and 1 it is 1 - scikit-learn's macro F1 over those classes. It sees a batch as a whole: small batches
    hold few photos of rare classes, so it works best with a per-photo loss (`0.4 f1 + 0.6 focal`). After Benedict et
    al. 2021, "sigmoidF1" (arXiv 2108.10566), here on softmax outputs.
    """
    probabilities = outputs.softmax(dim=1) * weights[:, None]
    truth = F.one_hot(codes, outputs.shape[1]) * weights[:, None]
    hits = (probabilities * F.one_hot(codes, outputs.shape[1])).sum(dim=0)
    support = truth.sum(dim=0)
    f1 = 2 * hits / (probabilities.sum(dim=0) + support).clamp_min(1e-7)
    return 1 - f1[support > 0].mean()


def corn(outputs: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """Ordinal loss: output k predicts whether a photo's class is above k, and is trained on photos of class k or above.

    CORN, after Shi, Cao and Raschka 2021, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
    Probabilities" (arXiv 2111.08851): the mean of the binary cross-entropies of all outputs that are trained.

    Args:
        outputs: shape (N, C - 1), one fewer than classes.
        codes: class codes, shape (N,).
        weights: weight of each photo, shape (N,).
    """
    levels = torch.arange(outputs.shape[1], device=outputs.device)
    questions = (codes[:, None] >= levels).to(outputs.dtype)
    beyond = (codes[:, None] > levels).to(outputs.dtype)
    answers = F.binary_cross_entropy_with_logits(outputs, beyond, reduction="none")
    return (answers * questions * weights[:, None]).sum() / questions.sum()

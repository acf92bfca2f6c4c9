"""How the learning rate moves over a training, as a share of its peak: a pure function of the step and of the scores so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.recipes.schema import Recipe

__all__ = ["falls", "rate_factor"]

ONE_CYCLE_START, ONE_CYCLE_END = 25.0, 1e4
"""One cycle begins at 1/25 of the peak and ends at 1/10,000 of where it began, as torch's does."""


def rate_factor(recipe: Recipe, step: int, steps_per_epoch: int, scores: Sequence[float] = ()) -> float:
    """The learning rate at a step, as a share of its peak.

    All but `one_cycle` rise linearly over the first `warmup` of all steps. Then: `cosine` falls as a half cosine and would
    reach 0 right after the last step (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts); `step` falls to
    `lr_factor` every `step_every` epochs (torch's StepLR); `plateau` does when more than `plateau_patience` scores in a row
    did not exceed the best (torch's ReduceLROnPlateau without a threshold); `constant` stays. `one_cycle` rises by a half
    cosine over `warmup` and falls by another (Smith and Topin 2017, arXiv 1708.07120; torch's OneCycleLR without its change
    of momentum).

    Args:
        recipe: recipe with the schedule, its numbers and the epochs.
        step: 0 ... epochs x steps_per_epoch - 1.
        steps_per_epoch: steps of the optimiser in an epoch.
        scores: scores on the held-out people so far, higher is better; for `plateau`.
    """
    steps = recipe.epochs * steps_per_epoch
    rising = recipe.warmup * steps
    if recipe.schedule == "one_cycle":
        top = rising - 1
        if step <= top:
            return _between(1 / ONE_CYCLE_START, 1, step / top if top else 1.0)
        return _between(1, 1 / ONE_CYCLE_START / ONE_CYCLE_END, (step - top) / (steps - 1 - top))
    if step + 1 < rising:
        return (step + 1) / rising
    if recipe.schedule == "cosine":
        return _between(1, 0, (step - rising) / max(1.0, steps - rising)) if step > rising else 1.0
    if recipe.schedule == "step":
        return float(recipe.lr_factor ** (step // steps_per_epoch // recipe.step_every))
    if recipe.schedule == "plateau":
        return float(recipe.lr_factor ** falls(scores, recipe.plateau_patience))
    return 1.0


def falls(scores: Sequence[float], patience: int) -> int:
    """How often more than `patience` scores in a row did not exceed the best; counting starts again after each time."""
    best, bad, count = -math.inf, 0, 0
    for score in scores:
        if score > best:
            best, bad = score, 0
        else:
            bad += 1
        if bad > patience:
            bad, count = 0, count + 1
    return count


def _between(start: float, end: float, share: float) -> float:
    """From start to end along a half cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))

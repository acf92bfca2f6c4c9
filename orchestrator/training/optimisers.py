"""Optimisers (timm's) and the one schedule: warm-up, then a half cosine down to zero."""

from __future__ import annotations

import math

from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # timm lists it without re-exporting it
from torch import nn
from torch.optim import Optimizer

from orchestrator.specialist import Recipe
from orchestrator.training.backbones import heads_of

__all__ = ["create_optimiser", "rate_factor", "set_rate"]


def create_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over all trainable parameters.

    Biases and norms (one axis) get no weight decay; the head gets the full rate, the backbone `backbone_lr_scale` of it.
    """
    head = {id(parameter) for head in heads_of(model) for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": recipe.lr * (1.0 if is_head else recipe.backbone_lr_scale),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in sorted(groups.items())
    ]
    optimiser: Optimizer = create_optimizer_v2(settings, opt=recipe.optimiser, lr=recipe.lr, weight_decay=0.0)
    for group in optimiser.param_groups:
        group["peak_lr"] = group["lr"]
    return optimiser


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The learning rate at a step, as a share of its peak.

    Rises linearly over the first `warmup` of all steps, then falls as a half cosine (Loshchilov and Hutter 2017, without
    restarts) and would reach 0 right after the last step.

    Args:
        step: 0..steps-1.
        steps: all steps of the training.
        warmup: share of the steps that rise, 0..1.
    """
    rising = warmup * steps
    if step + 1 < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising))) if step > rising else 1.0


def set_rate(optimiser: Optimizer, factor: float) -> None:
    """Sets every group's rate to `factor` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor

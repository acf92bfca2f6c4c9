"""Optimisers: timm's, with a rate for each part of the network; sharpness-aware steps on top of any; averages of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from orchestrator.networks.backbones import heads_of
from orchestrator.recipes.schema import Recipe

if TYPE_CHECKING:
    from timm.utils.model_ema import ModelEmaV3

__all__ = ["create_average", "create_optimiser", "set_rate", "uphill"]


def create_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over all trainable parameters.

    Biases and norms (one axis) get no weight decay. The head gets the full rate and the backbone `backbone_lr_scale` of it, or
    with `layer_decay` each layer that share of the rate of the one after it (timm's; after Clark et al. 2020, ELECTRA, and Bao et
    al. 2021, BEiT).
    """
    from timm.optim import create_optimizer_v2, param_groups_layer_decay  # type: ignore[attr-defined]  # listed, not re-exported

    if recipe.layer_decay < 1:
        settings = param_groups_layer_decay(model, recipe.weight_decay, layer_decay=recipe.layer_decay)
        for group in settings:
            group["lr"] = recipe.lr * group.pop("lr_scale")
    else:
        settings = _by_part(model, recipe)
    optimiser: Optimizer = create_optimizer_v2(settings, opt=recipe.optimiser, lr=recipe.lr, weight_decay=0.0)
    for group in optimiser.param_groups:
        group["peak_lr"] = group["lr"]
    return optimiser


def _by_part(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Head and backbone, each with weight decay and without."""
    head = {id(parameter) for head in heads_of(model) for parameter in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in head, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr * (1.0 if is_head else recipe.backbone_lr_scale),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in sorted(groups.items())
    ]


def set_rate(optimiser: Optimizer, factor: float) -> None:
    """Sets every group's rate to `factor` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


@contextmanager
def uphill(model: nn.Module, parameters: Iterable[Tensor], rho: float) -> Iterator[None]:
    """Context in which the weights are moved a step of length `rho` up the gradient, and norms update no statistics.

    Taking gradients there and applying them to the original weights is sharpness-aware minimisation (SAM), after
    Foret et al. 2021 (arXiv 2010.01412); it leads to flat minima. Norm statistics are updated only in the first pass,
    as the authors advise.

    Args:
        model: network in training mode, with gradients of the batch.
        parameters: parameters that are trained.
        rho: length of the step, over all parameters together.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    length = torch.stack([parameter.grad.norm() for parameter in moved if parameter.grad is not None]).norm()
    before = [parameter.detach().clone() for parameter in moved]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for parameter in moved:
            parameter.add_(parameter.grad * (rho / (length + 1e-12)))
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(moved, before, strict=True):
                parameter.copy_(old)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def create_average(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """The moving average of the weights and of the norms' statistics that a recipe asks for (timm's).

    Its decay rises with the steps as 1 - (1 + step) ^ (-2/3) up to `ema`, so that early weights fade soon.
    """
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=recipe.ema, use_warmup=True) if recipe.ema else None

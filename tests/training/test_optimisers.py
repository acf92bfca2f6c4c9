from itertools import pairwise
from typing import get_args

import pytest
import timm
import torch
from torch import nn

from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Optimiser
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.optimisers import create_average, create_optimiser, set_rate, uphill


@pytest.mark.parametrize("name", get_args(Optimiser))
def test_every_optimiser_spares_biases_and_norms_and_scales_the_backbone(name: str) -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(
        update={"optimiser": name, "lr": 0.1, "backbone_lr_scale": 0.1, "weight_decay": 0.05}
    )
    model = timm.create_model("test_efficientnet", num_classes=3)
    for parameter in model.conv_stem.parameters():
        parameter.requires_grad_(False)
    optimiser = create_optimiser(model, recipe)
    given_to = {id(parameter): group for group in optimiser.param_groups for parameter in group["params"]}
    assert len(given_to) == sum(parameter.requires_grad for parameter in model.parameters())
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = given_to[id(parameter)]
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), key
            assert group["peak_lr"] == pytest.approx(0.1 if key.startswith("classifier") else 0.01), key
    set_rate(optimiser, 0.5)
    assert {round(group["lr"], 6) for group in optimiser.param_groups} == {0.05, 0.005}


def test_layer_decay_lowers_the_rate_layer_by_layer() -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(
        update={"lr": 0.1, "layer_decay": 0.5, "weight_decay": 0.05}
    )
    model = timm.create_model("test_vit", num_classes=3)
    optimiser = create_optimiser(model, recipe)
    rates = {id(parameter): group["peak_lr"] for group in optimiser.param_groups for parameter in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    by_name = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert by_name["head.weight"] == pytest.approx(0.1)
    blocks = [by_name[f"blocks.{number}.attn.qkv.weight"] for number in range(len(model.blocks))]
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(blocks))
    assert by_name["patch_embed.proj.weight"] == pytest.approx(blocks[0] / 2)


def test_sam_by_hand() -> None:
    """f(x, y) = x^2 + 3 y^2 at (1, 1): the gradient (2, 6) points uphill; there it is (2 (1 + e_x), 6 (1 + e_y))."""
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0]]))
    scale = torch.tensor([[1.0, 3.0]])

    def gradients() -> None:
        model.weight.grad = None
        (scale * model.weight**2).sum().backward()

    gradients()
    with uphill(model, model.parameters(), 0.5):
        step = 0.5 * torch.tensor([[2.0, 6.0]]) / 40**0.5
        assert torch.allclose(model.weight, 1 + step)
        gradients()
    assert torch.equal(model.weight, torch.tensor([[1.0, 1.0]]))
    assert torch.allclose(model.weight.grad, 2 * scale * (1 + step))


def test_norms_learn_their_statistics_once_a_sharpness_aware_step() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    model(torch.randn(8, 4)).square().sum().backward()
    before = model[1].running_mean.clone()
    with uphill(model, model.parameters(), 0.1):
        model(torch.randn(8, 4))
        assert torch.equal(model[1].running_mean, before)
    model(torch.randn(8, 4))
    assert not torch.equal(model[1].running_mean, before)


def test_the_moving_average_by_hand() -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(update={"ema": 0.6})
    model = nn.Linear(1, 1, bias=False)
    average = create_average(model, recipe)
    assert average is not None
    expected = None
    for number, weight in enumerate([5.0, 1.0, 2.0, 4.0, 8.0, 3.0], start=1):
        nn.init.constant_(model.weight, weight)
        average.update(model, number)
        decay = 0.0 if number == 1 else min(0.6, 1 - number ** (-2 / 3))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert create_average(model, recipe.model_copy(update={"ema": 0.0})) is None

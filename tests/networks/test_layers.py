"""Networks that torch or timm stumbled over train, and mean what they meant."""

import multiprocessing

import pytest
import timm
import torch
from torch import nn

from orchestrator.core.errors import ConfigError, first_line
from orchestrator.data.geometry import Geometry
from orchestrator.networks.backbones import check_backbone, create
from orchestrator.networks.layers import arranged
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS


def step(name: str) -> None:
    """A few gradients, in a process that may die of them."""
    model = create(name, 3, geometry=Geometry(64, 48)).train()
    for _ in range(3):
        photos = torch.rand(4, 64, 48, 3).permute(0, 3, 1, 2)  # channels last in memory, as they come
        model(photos).sum().backward()


@pytest.mark.parametrize("name", ["mobileone_s0", "fastvit_t8", "lambda_resnet26t"])
def test_networks_that_ended_the_process_train(name: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=step, args=(name,))
    process.start()
    process.join(120)
    assert process.exitcode == 0


@pytest.mark.parametrize(("channels", "stride"), [(3, 2), (8, 2), (3, (2, 3))])
def test_a_convolution_put_otherwise_is_the_same_function(channels: int, stride: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain, other = (nn.Conv2d(channels, 5, 1, stride) for _ in range(2))
    other.load_state_dict(plain.state_dict())
    photos = torch.rand(2, channels, 13, 10)
    wanted = plain(photos)
    other = arranged(nn.Sequential(other))[0]  # type: ignore[index]  # a Sequential again
    assert other.stride == (1, 1)
    result = other(photos)
    assert torch.allclose(result, wanted, atol=1e-6)
    for outputs in (result, wanted):
        outputs.square().sum().backward()
    assert torch.allclose(other.weight.grad, plain.weight.grad, rtol=1e-4)
    assert other.state_dict().keys() == plain.state_dict().keys()


def test_other_layers_stay_as_they_are() -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    strides = [module.stride for module in model.modules() if isinstance(module, nn.Conv2d)]
    same = arranged(model)
    assert [module.stride for module in same.modules() if isinstance(module, nn.Conv2d)] == strides
    assert next(same.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_a_bare_assertion_is_told_with_its_line() -> None:
    changes = {"backbone": "mvitv2_tiny", "weights": "none", "frozen_stages": 0, "drop_rate": 0.0}
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(update=changes)
    with pytest.raises(ConfigError, match=r"for photos of .*: AssertionError at 'assert .*'\. Choose another size"):
        check_backbone(recipe)
    assert first_line(ValueError("no such size.\nmore")) == "no such size"

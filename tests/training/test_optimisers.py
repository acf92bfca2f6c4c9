import math

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import load_recipes
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.optimisers import create_optimiser, rate_factor, set_rate


@given(st.integers(1, 500), st.floats(0, 0.9))
def test_the_rate_rises_then_falls_and_stays_in_range(steps: int, warmup: float) -> None:
    rates = [rate_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_schedule_by_hand() -> None:
    assert [rate_factor(step, 10, 0.2) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert rate_factor(6, 10, 0.2) == pytest.approx(0.5)
    assert rate_factor(9, 10, 0.0) == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


@pytest.mark.parametrize("name", ["adamw", "adam", "nadamw", "sgd", "lion"])
def test_every_optimiser_spares_biases_and_norms_and_scales_the_backbone(name: str) -> None:
    recipe = load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(
        update={"optimiser": name, "lr": 0.1, "backbone_lr_scale": 0.1, "weight_decay": 0.05}
    )
    model = timm.create_model("test_efficientnet", num_classes=3)
    for parameter in model.conv_stem.parameters():
        parameter.requires_grad_(False)
    optimiser = create_optimiser(model, recipe)
    given_to = {id(one): group for group in optimiser.param_groups for one in group["params"]}
    assert len(given_to) == sum(parameter.requires_grad for parameter in model.parameters())
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = given_to[id(parameter)]
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), key
            assert group["peak_lr"] == pytest.approx(0.1 if key.startswith("classifier") else 0.01), key
    set_rate(optimiser, 0.5)
    assert {round(group["lr"], 6) for group in optimiser.param_groups} == {0.05, 0.005}

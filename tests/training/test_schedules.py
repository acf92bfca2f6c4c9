import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.schedules import falls, rate_factor


def recipe_of(**values: object) -> Recipe:
    base = load_recipes(SPECIALISTS, ["quick"])["age"]
    return base.model_copy(update={"epochs": 1, **values})


def optimiser() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def rates_of(scheduler: LRScheduler, steps: int) -> list[float]:
    """The rates of torch's scheduler, one for each step."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@given(st.integers(1, 500), st.floats(0, 0.9), st.sampled_from(["cosine", "constant", "one_cycle"]))
def test_the_rate_rises_then_falls_and_stays_in_range(steps: int, warmup: float, schedule: str) -> None:
    recipe = recipe_of(warmup=warmup, schedule=schedule)
    rates = [rate_factor(recipe, step, steps) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_cosine_by_hand() -> None:
    assert [rate_factor(recipe_of(warmup=0.2), step, 10) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert rate_factor(recipe_of(warmup=0.2), 6, 10) == pytest.approx(0.5)
    assert rate_factor(recipe_of(warmup=0.0), 9, 10) == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


@pytest.mark.parametrize(("steps", "warmup"), [(40, 0.25), (100, 0.3), (30, 0.5)])
def test_one_cycle_is_torchs(steps: int, warmup: float) -> None:
    torchs = OneCycleLR(optimiser(), max_lr=1.0, total_steps=steps + 1, pct_start=warmup * steps / (steps + 1))
    expected = rates_of(torchs, steps)
    recipe = recipe_of(schedule="one_cycle", warmup=warmup)
    # torch counts one step more, so that its last rate is used; ours is used at the last step.
    own = [rate_factor(recipe, step, steps) for step in range(steps)]
    assert own[0] == pytest.approx(expected[0]) == pytest.approx(1 / 25)
    assert max(own) == pytest.approx(1.0)
    exact = OneCycleLR(optimiser(), max_lr=1.0, total_steps=steps, pct_start=warmup)
    assert own == pytest.approx([*rates_of(exact, steps - 1), exact.get_last_lr()[0]], abs=1e-9)


def test_steps_are_torchs() -> None:
    recipe = recipe_of(schedule="step", epochs=20, step_every=3, lr_factor=0.794, warmup=0.0)
    expected = rates_of(StepLR(optimiser(), step_size=3, gamma=0.794), 20)
    assert [rate_factor(recipe, 5 * epoch + 4, 5) for epoch in range(20)] == pytest.approx(expected)
    risen = recipe.model_copy(update={"warmup": 0.1})
    assert rate_factor(risen, 0, 5) == pytest.approx(0.1)  # the first of ten rising steps
    assert rate_factor(risen, 99, 5) == pytest.approx(expected[-1])


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 4))
def test_plateaus_are_torchs(scores: list[int], patience: int) -> None:
    torchs = optimiser()
    scheduler = ReduceLROnPlateau(torchs, mode="max", factor=0.5, patience=patience, threshold=0.0, min_lr=0.0, eps=0.0)
    for score in scores:
        scheduler.step(score)
    recipe = recipe_of(schedule="plateau", plateau_patience=patience, lr_factor=0.5, warmup=0.0, epochs=50)
    assert rate_factor(recipe, 0, 10, scores) == pytest.approx(torchs.param_groups[0]["lr"])
    assert 0.5 ** falls(scores, patience) == pytest.approx(torchs.param_groups[0]["lr"])

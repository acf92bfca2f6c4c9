from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orchestrator.training.loop import _loss
from orchestrator.training.mixup import draw_mix
from tests.training.test_loop import job_of


@given(st.integers(1, 40), st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_blending_keeps_sums_and_bounds(photos: int, alpha: float, seed: int) -> None:
    mix = draw_mix(photos, alpha, np.random.default_rng(seed))
    values = torch.rand(photos, 3, dtype=torch.float64)
    blended = mix.blend(values)
    assert sorted(mix.partner.tolist()) == list(range(photos))
    assert torch.allclose(blended.sum(dim=0), values.sum(dim=0))
    assert (blended >= values.amin(dim=0) - 1e-12).all()
    assert (blended <= values.amax(dim=0) + 1e-12).all()


def test_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.3, 1.0):
        shares = np.array([draw_mix(2, alpha, np.random.default_rng(seed)).share for seed in range(4000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)  # Beta(a, a)


class Mean(nn.Module):
    """Three outputs that are linear in the input, so the loss can be computed by hand."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mean(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, 0.0, -1.0])


def test_the_loss_is_that_of_blended_targets(tmp_path: Path) -> None:
    job = job_of(tmp_path / "m", "mixup=1.0")
    recipe = job.recipe.model_copy(update={"label_smoothing": 0.0})
    job = replace(job, recipe=recipe, head=replace(job.head, label_smoothing=0.0))
    pixels = torch.from_numpy(job.pixels.take(np.arange(6)))
    targets, weights = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0, 0.5])
    found = _loss(job, Mean(), pixels, targets, weights, np.random.default_rng(3))
    mix = draw_mix(6, 1.0, np.random.default_rng(3))
    log_p = Mean()(mix.blend(job.preprocess.normalise(pixels))).log_softmax(dim=1)
    blended = mix.blend(nn.functional.one_hot(targets, 3) * weights[:, None])  # cross-entropy is linear in its target
    assert float(found) == pytest.approx(float(-(blended * log_p).sum(dim=1).mean()), rel=1e-5)
    assert 0.05 < mix.share < 0.95

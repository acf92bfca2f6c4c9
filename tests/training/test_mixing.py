from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orchestrator.training.epoch import Batch
from orchestrator.training.mixing import Mix, draw_mix
from tests.training.test_loop import job_of


def mixed(photos: int, size: tuple[int, int], mixup: float, cutmix: float, seed: int) -> Mix:
    mix = draw_mix(photos, size, mixup, cutmix, np.random.default_rng(seed))
    assert mix is not None
    assert sorted(mix.partner.tolist()) == list(range(photos))
    return mix


@given(st.integers(1, 40), st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_blending_keeps_sums_and_bounds(photos: int, alpha: float, seed: int) -> None:
    values = torch.rand(photos, 3, dtype=torch.float64)
    blended = mixed(photos, (1, 3), alpha, 0, seed).photos(values)
    assert torch.allclose(blended.sum(dim=0), values.sum(dim=0))
    assert (blended >= values.amin(dim=0) - 1e-12).all()
    assert (blended <= values.amax(dim=0) + 1e-12).all()


@given(st.integers(2, 12), st.integers(4, 20), st.integers(4, 20), st.floats(0.2, 3), st.integers(0, 2**32 - 1))
def test_a_pasted_boxs_share_is_its_area(photos: int, height: int, width: int, alpha: float, seed: int) -> None:
    mix = mixed(photos, (height, width), 0, alpha, seed)
    values = torch.arange(photos, dtype=torch.float64)[:, None, None, None].expand(photos, 3, height, width)
    blended = mix.photos(values)
    own = blended == values
    pasted = blended == values[mix.partner]
    assert (own | pasted).all()
    for index, partner in enumerate(mix.partner.tolist()):
        if partner != index:
            assert own[index].double().mean().item() == pytest.approx(mix.share)
    assert blended.shape == values.shape


def test_shares_follow_the_beta_distribution() -> None:
    for alpha in (0.3, 1.0):
        shares = np.array([mixed(2, (1, 1), alpha, 0, seed).share for seed in range(4000)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)  # Beta(a, a)


def test_with_both_on_each_batch_draws_one() -> None:
    cut = [mixed(2, (8, 8), 0.3, 1.0, seed).box is not None for seed in range(400)]
    assert 150 < sum(cut) < 250
    assert draw_mix(2, (8, 8), 0, 0, np.random.default_rng(0)) is None


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
    mix = mixed(6, (32, 32), 1.0, 0, 3)
    loss = Batch(job.preprocess.normalise(pixels), targets, weights, mix).loss(job, Mean())
    log_p = Mean()(mix.photos(job.preprocess.normalise(pixels))).log_softmax(dim=1)
    target = nn.functional.one_hot(targets, 3) * weights[:, None]
    blended = mix.blend(target, target[mix.partner])  # cross-entropy is linear in its target
    assert float(loss) == pytest.approx(float(-(blended * log_p).sum(dim=1).mean()), rel=1e-5)
    assert 0.05 < mix.share < 0.95

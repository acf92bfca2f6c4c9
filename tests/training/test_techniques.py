"""What each technique does to a training, beyond surviving a kill (test_resume.py)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from orchestrator.artifacts import cards
from orchestrator.core.errors import ConfigError
from orchestrator.core.stages import Stages
from orchestrator.networks.backbones import check_backbone
from orchestrator.networks.views import VIEWS, mean_over_views
from orchestrator.recipes.schema import Optimiser, Schedule
from orchestrator.training import epoch
from orchestrator.training.epoch import Batch, train_step
from orchestrator.training.job import MemberJob
from orchestrator.training.learner import Learner, Progress
from orchestrator.training.loop import train_fold
from orchestrator.training.schedules import rate_factor
from orchestrator.training.scoring import held_out_probabilities
from tests.training.test_loop import job_of


def begun(job: MemberJob) -> Learner:
    learner = Learner(job, 1)
    learner.begin_epoch(unfreeze=False)
    return learner


def batch_of(job: MemberJob, rows: range) -> Batch:
    pixels = torch.from_numpy(job.pixels.take(np.array(rows)))
    targets = torch.tensor(job.rows.target[rows.start : rows.stop])
    return Batch(job.preprocess.normalise(pixels), targets, torch.ones(len(rows)), None)


def gradients_of(learner: Learner) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in learner.model.parameters() if parameter.grad is not None]


def test_two_passes_a_step_are_one_pass_on_both(tmp_path: Path) -> None:
    """For a network without batch norms, whose statistics are of a pass: group norms here."""
    job = job_of(
        tmp_path / "m", "backbone=test_efficientnet_gn", "drop_rate=0", "clip_norm=0", "lr=1e-6", "optimiser=sgd"
    )
    whole, parts = begun(job), begun(job)
    loss = train_step(job, whole, [batch_of(job, range(24))], Stages(False))
    same = train_step(job, parts, [batch_of(job, range(12)), batch_of(job, range(12, 24))], Stages(False))
    assert loss.item() == pytest.approx(same.item(), rel=1e-5)
    for gradient, in_parts in zip(gradients_of(whole), gradients_of(parts), strict=True):
        assert torch.allclose(gradient, in_parts, atol=1e-6)


def test_an_epoch_takes_fewer_steps_with_several_passes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = epoch.train_step
    monkeypatch.setattr(epoch, "train_step", lambda *arguments: (seen.append(len(arguments[2])), real(*arguments))[1])
    job = job_of(tmp_path / "m", "epochs=1", "batch_size=8", "accumulate=3")
    train_fold(job)
    assert seen == [3] * (60 // 24)
    assert job.steps_per_epoch == 2
    assert job.photos_per_epoch == 48


def test_an_epoch_shorter_than_a_step_takes_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of one step weigh the same, so their photos must be as many: 60 photos are three batches of 16, not 3 3/4."""
    sizes: list[list[int]] = []
    real = epoch.train_step

    def step(*arguments: Any) -> Any:
        sizes.append([len(batch.targets) for batch in arguments[2]])
        return real(*arguments)

    monkeypatch.setattr(epoch, "train_step", step)
    train_fold(job_of(tmp_path / "m", "epochs=1", "batch_size=16", "accumulate=8"))
    assert sizes == [[16, 16, 16]]


def test_a_sharpness_aware_step_uses_the_gradient_uphill(tmp_path: Path) -> None:
    job = job_of(
        tmp_path / "m",
        "backbone=test_efficientnet_gn",
        "drop_rate=0",
        "clip_norm=0",
        "sam=0.5",
        "optimiser=sgd",
        "lr=1e-6",
    )
    learner, reference = begun(job), begun(job)
    batch = batch_of(job, range(16))
    train_step(job, learner, [batch], Stages(False))
    batch.loss(job, reference.network).backward()
    parameters = [parameter for parameter in reference.model.parameters() if parameter.grad is not None]
    length = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(parameter.grad * 0.5 / length)
    reference.optimiser.zero_grad()
    batch.loss(job, reference.network).backward()
    for gradient, other in zip(gradients_of(learner), gradients_of(reference), strict=True):
        assert torch.allclose(gradient, other, atol=1e-5)


def test_frozen_stages_stay_until_they_are_unfrozen(tmp_path: Path) -> None:
    job = job_of(tmp_path / "m", "frozen_stages=3", "unfreeze_after=2", "epochs=3")
    learner, progress = Learner(job, 1), Progress()
    stem = [name for name, parameter in learner.model.named_parameters() if not parameter.requires_grad]
    assert stem
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}

    def moved() -> set[str]:
        return {name for name, value in learner.model.state_dict().items() if not torch.equal(value, before[name])}

    for number in range(2):
        progress.epoch = number
        epoch.train_epoch(job, learner, progress)
    frozen_norms = {name.rpartition(".")[0] for name in stem}
    assert not moved() & set(stem)
    assert not {name for name in moved() if name.rpartition(".")[0] in frozen_norms}  # statistics neither
    progress.epoch = 2
    epoch.train_epoch(job, learner, progress)
    assert set(stem) <= moved()


def test_small_photos_come_first_and_scores_are_on_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[bool, tuple[int, ...]]] = []
    real = nn.Conv2d.forward

    def watched(layer: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.shape[1] == 3:
            sizes.append((layer.training, tuple(inputs.shape[2:])))
        return real(layer, inputs)

    monkeypatch.setattr(nn.Conv2d, "forward", watched)
    train_fold(job_of(tmp_path / "m", "epochs=3", "small_epochs=2", "small_size=0.75", "backbone=test_resnet"))
    trained = [size for training, size in sizes if training]
    assert trained == [(24, 24)] * 6 + [(32, 32)] * 3
    assert {size for training, size in sizes if not training} == {(32, 32)}


def test_checkpointed_gradients_are_the_gradients(tmp_path: Path) -> None:
    plain = begun(job_of(tmp_path / "m", "backbone=test_efficientnet_gn", "drop_rate=0"))
    saved = begun(job_of(tmp_path / "m", "backbone=test_efficientnet_gn", "drop_rate=0", "checkpointing=true"))
    job = job_of(tmp_path / "m", "backbone=test_efficientnet_gn", "drop_rate=0")
    assert saved.model.grad_checkpointing
    assert not plain.model.grad_checkpointing
    for learner in (plain, saved):
        batch_of(job, range(8)).loss(job, learner.network).backward()
    for gradient, other in zip(gradients_of(plain), gradients_of(saved), strict=True):
        assert torch.allclose(gradient, other, atol=1e-6)


def test_a_moving_average_scores_and_is_saved(tmp_path: Path) -> None:
    job = job_of(tmp_path / "m", "ema=0.9", "epochs=2")
    train_fold(job)
    plain = job_of(tmp_path / "p", "epochs=2")
    train_fold(plain)
    averaged = load_file(tmp_path / "m" / cards.WEIGHTS)
    assert any(
        not torch.equal(averaged[key], value) for key, value in load_file(tmp_path / "p" / cards.WEIGHTS).items()
    )
    learner = Learner(job, 1)
    learner.model.load_state_dict(averaged)
    history = json.loads((tmp_path / "m" / cards.HISTORY).read_text())
    best = max(entry["macro_f1"] for entry in history)
    truth = job.rows.truth[job.held_out]
    answers = held_out_probabilities(job, learner.model).argmax(axis=1)
    card = json.loads((tmp_path / "m" / cards.CARD).read_text())
    assert card["scores"]["accuracy"] == (answers == truth).mean()
    assert card["scores"]["macro_f1"] == best


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", "constant"])
def test_an_epochs_rate_is_its_schedules_at_its_last_step(tmp_path: Path, schedule: str) -> None:
    job = job_of(tmp_path / "m", f"schedule={schedule}", "epochs=3", "warmup=0.8")
    rates = [trained.lr for trained in train_fold(job).history]
    last = [job.steps_per_epoch * number - 1 for number in (1, 2, 3)]
    assert rates == pytest.approx([3e-3 * rate_factor(job.recipe, step, job.steps_per_epoch) for step in last])
    assert len(set(rates)) > 1


def test_a_falling_plateau_shows_in_the_history(tmp_path: Path) -> None:
    job = job_of(tmp_path / "m", "schedule=plateau", "plateau_patience=0", "lr_factor=0.1", "epochs=6", "warmup=0")
    train_fold(job)
    history = json.loads((tmp_path / "m" / cards.HISTORY).read_text())
    best, rate = -1.0, 3e-3
    for entry in history:
        assert entry["lr"] == pytest.approx(rate)
        rate, best = (rate, entry["macro_f1"]) if entry["macro_f1"] > best else (rate * 0.1, best)
    assert history[-1]["lr"] < 3e-3


def test_factors_change_what_an_epoch_sees(tmp_path: Path) -> None:
    job = job_of(tmp_path / "m", "sample_factor={incorrect = 3.0}")
    assert job.photos_per_epoch == (60 + 2 * 20) // 16 * 16
    counts = np.bincount(job.rows.trained[job.train], job.factors)
    assert counts == pytest.approx([20, 60, 20])
    even = job_of(tmp_path / "m", "sample_balance=1.0")
    assert even.factors is not None
    rows = replace(
        even.rows, extra=even.rows.trained == 1
    )  # one class comes from elsewhere, and is drawn half as often
    half = replace(even, rows=rows, recipe=even.recipe.model_copy(update={"extra_factor": 0.5}))
    counts = np.bincount(rows.trained[half.train], half.factors)
    assert counts == pytest.approx(np.full(3, counts.mean()))  # all the same, classes are drawn alike
    assert even.weights.mean() == pytest.approx(1)


SETTINGS = [
    *[f"optimiser={name}" for name in get_args(Optimiser) if name != "adamw"],
    *[f"schedule={name}" for name in get_args(Schedule) if name != "cosine"],
    "mixup=0.4", "cutmix=1.0", "drop_rate=0.3", "ema=0.9", "sam=0.05", "accumulate=2",
    "sample_balance=1.0", "sample_factor={incorrect = 3.0}", "sampling=per_person", "class_balance=1.0", "label_smoothing=0.2",
    "loss=focal", "frozen_stages=3", "layer_decay=0.7", "backbone_lr_scale=0.5", "weight_decay=0.5",
    "warmup=0.5", "augment={}", "augment.randaugment=2", "augment.cutout=1.0", "augment.elastic=1.0",
]  # fmt: skip


@pytest.fixture(scope="module")
def learnt_from_uneven_classes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Trains for an epoch, on fewer photos of a class than of the others, and returns the weights' sha256."""

    def learn(*changes: str) -> str:
        job = job_of(tmp_path_factory.mktemp("m"), "epochs=1", *changes)
        few = job.train[job.rows.trained[job.train] == 2][5:]
        job = replace(job, train=np.setdiff1d(job.train, few))
        return str(train_fold(job).sha256[cards.WEIGHTS])

    return learn


@pytest.fixture(scope="module")
def plainly_learnt(learnt_from_uneven_classes: Callable[..., str]) -> str:
    return learnt_from_uneven_classes()


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_what_is_learnt(
    learnt_from_uneven_classes: Callable[..., str], plainly_learnt: str, setting: str
) -> None:
    assert learnt_from_uneven_classes(setting) != plainly_learnt


class Weighted(nn.Module):
    """Answers by where the light is, so that views answer differently."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        width = inputs.shape[3]
        left, right = inputs[..., : width // 2].mean(dim=(1, 2, 3)), inputs[..., width // 2 :].mean(dim=(1, 2, 3))
        return torch.stack([left, right, inputs[:, :, 8:24, 8:24].mean(dim=(1, 2, 3))], dim=1)


def test_views_by_hand(tmp_path: Path) -> None:
    photos = torch.arange(2 * 3 * 20 * 10, dtype=torch.float32).reshape(2, 3, 20, 10)
    assert torch.equal(VIEWS["flip"](photos), photos[..., torch.arange(9, -1, -1)])
    zoomed = VIEWS["zoom"](photos)
    assert zoomed.shape == photos.shape
    inner = nn.functional.interpolate(
        photos[:, :, 1:19, 0:10], (20, 10), mode="bilinear"
    )  # 5 % of 10 columns rounds to none
    assert torch.equal(zoomed, inner)
    assert torch.allclose(VIEWS["zoom_flip"](photos), VIEWS["flip"](zoomed), atol=1e-3)
    job = job_of(tmp_path / "m", 'views=["flip"]')
    probabilities = held_out_probabilities(job, Weighted())
    plain = held_out_probabilities(replace(job, recipe=job.recipe.model_copy(update={"views": ()})), Weighted())
    assert np.allclose(probabilities[:, 0], probabilities[:, 1], atol=1e-6)  # left and right are even once flipped
    assert not np.allclose(plain[:, 0], plain[:, 1], atol=1e-3)
    assert torch.equal(mean_over_views((), photos, torch.sin), torch.sin(photos))


def test_a_backbone_that_cannot_do_something_is_told(tmp_path: Path) -> None:
    def recipe(**values: Any) -> Any:
        return job_of(tmp_path / "m").recipe.model_copy(update=values)

    check_backbone(recipe(small_epochs=1, checkpointing=True, pooling="avgmax"))
    with pytest.raises(ConfigError, match="small_epochs = 1: Input height"):
        check_backbone(recipe(backbone="vit_tiny_patch16_224", height=160, width=160, small_epochs=1))
    with pytest.raises(ConfigError, match="pooling = middle"):
        check_backbone(recipe(pooling="middle"))

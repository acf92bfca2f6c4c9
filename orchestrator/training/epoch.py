"""One epoch: draw a sample, augment and mix, step, report progress."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.core.cores import cores
from orchestrator.core.epochs import TrainedEpoch
from orchestrator.core.errors import TrainingError
from orchestrator.core.events import EpochProgress, Listener, ignore_events
from orchestrator.core.stages import Stages
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.loading import Batches, load, why_no_workers
from orchestrator.data.sampling import draw_epoch
from orchestrator.networks.devices import autocast, precision_of
from orchestrator.recipes.schema import Recipe
from orchestrator.training.cancelling import raise_if_cancelled
from orchestrator.training.job import MemberJob
from orchestrator.training.learner import Learner, Progress
from orchestrator.training.mixing import Mix, draw_mix
from orchestrator.training.optimisers import set_rate, uphill
from orchestrator.training.schedules import rate_factor

__all__ = ["INITIALISE", "diverged", "network_input", "not_finite", "train_epoch", "train_step", "worker_count"]

PROGRESS_SECONDS = 1.0
REPAYING_BATCHES = 16
"""Fewest batches of a pass for each DataLoader worker that is started for it."""

# The purposes of random draws, so that no two share a stream.
INITIALISE, SAMPLE, AUGMENT, NETWORK, MIX = range(5)


@dataclass(frozen=True)
class Batch:
    """Training data of one forward pass.

    Attributes:
        inputs: inputs of the network, on its device, shape (n, ...).
        targets: targets of the head, shape (n,).
        weights: weight of each photo in the loss, shape (n,).
        mix: pairwise mixing of inputs and targets; None: no mixing.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor
    mix: Mix | None

    def loss(self, job: MemberJob, network: nn.Module) -> Tensor:
        """The mean loss, a scalar."""
        with autocast(job.recipe.precision, job.device):
            outputs = network(self.inputs if self.mix is None else self.mix.photos(self.inputs))
        loss = job.head.loss(outputs, self.targets, self.weights)
        if self.mix is None:
            return loss
        partners = self.mix.partner.to(job.device)
        return self.mix.blend(loss, job.head.loss(outputs, self.targets[partners], self.weights[partners]))


def train_epoch(job: MemberJob, learner: Learner, progress: Progress, listen: Listener = ignore_events) -> TrainedEpoch:
    """Trains one pass over the epoch's sample; reports its progress about once a second.

    Returns:
        The epoch, not scored yet.

    Raises:
        TrainingError: the loss or a weight became infinite or not a number.
    """
    recipe, epoch, steps = job.recipe, progress.epoch, job.steps_per_epoch
    rng = np.random.default_rng(job.entropy(SAMPLE, epoch))
    drawn = draw_epoch(recipe.sampling, job.persons, job.kinds, rng, job.factors)
    rows = job.train[drawn][: job.photos_per_epoch]  # a last, smaller batch would disturb the batch norms
    augmenter = Augmenter(recipe.augment, recipe.height, recipe.width) if recipe.train == "network" else None
    batches = Batches(job.pixels, rows, recipe.batch_size, augmenter, job.entropy(AUGMENT, epoch))
    torch.manual_seed(job.entropy(NETWORK, epoch))
    learner.begin_epoch(unfreeze=0 < recipe.unfreeze_after <= epoch)
    total, started, reported = torch.zeros((), device=job.device), time.monotonic(), 0.0
    stages = Stages(job.profile, torch.cuda.synchronize if job.device != "cpu" else lambda: None)
    loaded = stages.each(
        "read and augment",
        load(batches, worker_count(recipe, job.device, len(batches)), pin=job.device != "cpu"),
    )
    prepared = _prepared(job, loaded, epoch)
    for step in range(steps):
        micro_batches = list(islice(prepared, recipe.accumulate))
        number = epoch * steps + step
        set_rate(learner.optimiser, rate_factor(recipe, number, steps, progress.scores))
        total += train_step(job, learner, micro_batches, stages)
        if learner.average is not None:
            learner.average.update(learner.model, number + 1)
        raise_if_cancelled(job.cancel)
        if time.monotonic() - reported > PROGRESS_SECONDS:
            reported = time.monotonic()
            rate = (step + 1) * recipe.batch_size * recipe.accumulate / (reported - started)
            listen(EpochProgress(job.run, job.fold, epoch + (step + 1) / steps, rate))
    mean = float(total) / steps
    if not np.isfinite(mean):
        raise diverged(job, f"the loss became {mean} in epoch {epoch + 1}")
    if tensors := not_finite(learner.scored):
        raise diverged(job, f"{tensors} became infinite or NaN in epoch {epoch + 1}")
    rate = len(rows) / (time.monotonic() - started)
    lr = learner.optimiser.param_groups[-1]["lr"]
    return TrainedEpoch(epoch + 1, mean, lr, round(rate, 1), stages=stages.seconds if job.profile else {})


def diverged(job: MemberJob, problem: str) -> TrainingError:
    """The error for infinite or NaN values, with the settings that prevent them."""
    recipe = job.recipe
    ways = [f"lower the learning rate (--set {job.task}.lr={recipe.lr / 3:.1e})"]
    if precision_of(recipe.precision, job.device) == torch.float16:  # whose largest number is 65,504
        ways.append(f"calculate with a wider range (--set {job.task}.precision=bf16, or fp32)")
    if not 0 < recipe.clip_norm <= 0.5:
        ways.append(f"clip harder (--set {job.task}.clip_norm=0.5)")
    advice = f"Ways out, each by training another run: {'; '.join(ways)}."
    return TrainingError(f"{job.title}: {problem}. {advice}")


def not_finite(model: nn.Module) -> str:
    """Which weights and statistics of a network hold infinite or NaN values, as text; empty if all are finite."""
    wrong = [key for key, value in model.state_dict().items() if not bool(torch.isfinite(value).all())]
    return f"{len(wrong)} tensors of the network ({wrong[0]} first)" if wrong else ""


def _prepared(job: MemberJob, loaded: Iterable[tuple[Tensor, Tensor]], epoch: int) -> Iterator[Batch]:
    """Batches on the device, with their targets, weights and mixes."""
    recipe = job.recipe
    targets = torch.tensor(job.rows.target)
    weights = torch.ones(len(targets))
    weights[job.train] = torch.from_numpy(job.weights)
    mixer = np.random.default_rng(job.entropy(MIX, epoch))
    for pixels, row_numbers in loaded:
        inputs = network_input(job, pixels)
        if epoch < recipe.small_epochs:
            inputs = _shrunken(inputs, recipe.small)
        size = (inputs.shape[-2], inputs.shape[-1])
        mix = draw_mix(len(inputs), size, recipe.mixup, recipe.cutmix, mixer)
        batch_targets, batch_weights = (
            values[row_numbers].to(job.device, non_blocking=True) for values in (targets, weights)
        )
        yield Batch(inputs, batch_targets, batch_weights, mix)


def train_step(job: MemberJob, learner: Learner, batches: Sequence[Batch], stages: Stages) -> Tensor:
    """One step of the optimiser on one batch or several; returns their mean loss, a scalar."""
    recipe, scaler = job.recipe, learner.scaler

    def gradients() -> Tensor:
        learner.optimiser.zero_grad(set_to_none=True)
        losses = []
        for batch in batches:
            with stages("forward"):
                loss = batch.loss(job, learner.network) / len(batches)
            with stages("backward"):
                scaler.scale(loss).backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    loss = gradients()
    if recipe.sam:
        with uphill(learner.network, learner.trained, recipe.sam):
            gradients()
    with stages("optimiser"):
        if recipe.clip_norm:
            scaler.unscale_(learner.optimiser)
            nn.utils.clip_grad_norm_(learner.trained, recipe.clip_norm)
        scaler.step(learner.optimiser)
        scaler.update()
    return loss


def network_input(job: MemberJob, pixels: Tensor) -> Tensor:
    """A batch as the network's input: pixels normalised, features as they are."""
    on_device = pixels.to(job.device, non_blocking=True)
    return job.preprocess.normalise(on_device) if job.recipe.train == "network" else on_device


def _shrunken(photos: Tensor, size: tuple[int, int]) -> Tensor:
    """Photos (N, 3, H, W) at another height and width, areas averaged."""
    return F.interpolate(photos, size, mode="bilinear", antialias=True)


def worker_count(recipe: Recipe, device: str, batches: int) -> int:
    """Number of DataLoader workers for one pass over the batches: the recipe's, or chosen here if that is -1.

    None are chosen on a CPU, whose cores the network needs, and where workers cannot be started.

    Args:
        recipe: the member's recipe.
        device: device of the network.
        batches: number of batches of the pass. Workers are started for each pass: eight took 0.9 s (16 cores, an H200), in
            which this process alone trains on 400 photos (EfficientNet-Lite0 at 128 x 96), so each needs enough batches.
    """
    if recipe.workers >= 0:
        return recipe.workers
    workers = 0 if device == "cpu" else min(8, cores(), batches // REPAYING_BATCHES)
    return 0 if workers and why_no_workers(workers) else workers

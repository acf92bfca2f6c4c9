"""Training against its floor: the same steps on batches already in memory, and the time of each stage per photo."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from orchestrator.bench.arithmetic import count_flops, matrix_rate
from orchestrator.bench.timing import Timing, in_turn, ratio
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.preprocessing import decode
from orchestrator.networks.backbones import create, freeze_stages
from orchestrator.networks.devices import autocast, keep_freed_memory, precision_of
from orchestrator.training.job import MemberJob
from orchestrator.training.loop import train_fold
from orchestrator.training.optimisers import create_optimiser, set_rate
from orchestrator.training.schedules import rate_factor

__all__ = ["Arithmetic", "TrainingSpeed", "bench_training"]

WARM_UP, TIMED = 2, 6
"""Steps before the stages are timed, and steps whose stages are."""


@dataclass(frozen=True)
class Arithmetic:
    """The operations of a training step, beside what the device could do.

    Attributes:
        gflop_per_photo: operations of a step on one photo, 1e9 (count_flops).
        tflop_per_second: operations a second of the loop, 1e12.
        matrix_tflop_per_second: operations a second of a matrix product in the same precision, 1e12 (matrix_rate).
        share_of_matrix_rate: share of that rate which the loop reaches, 0..1.
    """

    gflop_per_photo: float
    tflop_per_second: float
    matrix_tflop_per_second: float
    share_of_matrix_rate: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingSpeed:
    """How fast a specialist's member trains, beside its floor.

    Attributes:
        backbone: name of the backbone.
        height: height of the network's input, pixels.
        width: its width, pixels.
        photos: number of photos that are trained on in a round, counted in every epoch.
        threads: number of threads on a CPU.
        device: `cpu`, `cuda` or `cuda:N`.
        floor: cost of the same steps on a batch in memory.
        loop: cost of the product's loop.
        arithmetic: operations of a step, and the share of the device's rate that they reach.
        stages_ms_per_photo: stage of a step -> milliseconds a photo.
    """

    backbone: str
    height: int
    width: int
    photos: int
    threads: int
    device: str
    floor: Timing
    loop: Timing
    arithmetic: Arithmetic
    stages_ms_per_photo: Mapping[str, float]

    @property
    def efficiency(self) -> float:
        """Speed of the loop as a share of the floor's, the median of all rounds."""
        return ratio(self.floor, self.loop)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "backbone": self.backbone, "height": self.height, "width": self.width, "photos": self.photos,
            "threads": self.threads, "device": self.device, "floor": self.floor.as_dict(), "loop": self.loop.as_dict(),
            "efficiency": self.efficiency, "arithmetic": self.arithmetic.as_dict(),
            "stages_ms_per_photo": dict(self.stages_ms_per_photo),
        }  # fmt: skip


def bench_training(
    jobs: Mapping[str, MemberJob], paths: list[Path], rounds: int, done: Callable[[int, int], None]
) -> dict[str, TrainingSpeed]:
    """The loop's efficiency for each specialist, its arithmetic, and the milliseconds of each stage.

    Efficiency is the floor's seconds over the loop's for the same number of steps. The floor is what no loop can leave out:
    forward, backward, clipping and the optimiser's step, on batches that are normalised already. The loop is `train_fold` with
    everything: sampling, the store, augmentation, copies, logging, checkpoints, files.

    Arithmetic: operations a photo (count_flops), how many of them the loop does a second, and what share that is of the pace
    at which the same device multiplies matrices in the same precision. Depthwise networks move memory and stay far below it.

    Args:
        jobs: task -> a member to train, with its pixels in a store. It is trained in a folder beside its own, which stays as it
            is.
        paths: the photos, by row of the jobs' tables, to time decoding.
        rounds: how often floor and loop are run in turn.
        done: called with (runs done, runs in all).

    Returns:
        task -> how fast it trains.
    """
    speeds: dict[str, TrainingSpeed] = {}
    for task, original in jobs.items():
        # Scoring is left out on both sides: it is prediction, which has a benchmark of its own.
        recipe = original.recipe.model_copy(update={"evaluate_every": 10_000})
        job = replace(original, held_out=original.held_out[:0], recipe=recipe)
        photos = job.recipe.epochs * job.photos_per_epoch
        original.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bench-", dir=original.folder.parent) as scratch:  # on the same disk
            loop = partial(_loop, replace(job, folder=Path(scratch) / "member"))
            timings = in_turn({"floor": partial(_floor, job), "loop": loop}, rounds, photos, done)
        speeds[task] = TrainingSpeed(
            job.recipe.backbone, job.recipe.height, job.recipe.width, photos, job.threads, job.device,
            timings["floor"], timings["loop"], _arithmetic(job, timings["loop"]), _stages(job, paths),
        )  # fmt: skip
    return speeds


def _loop(job: MemberJob) -> None:
    """Trains a member in its folder, anew in each round."""
    shutil.rmtree(job.folder, ignore_errors=True)
    train_fold(job)


def _floor(job: MemberJob) -> None:
    """Takes as many steps as the loop, on one batch in memory."""
    size, step = _on_one_batch(job)
    for number in range(job.recipe.epochs * (job.photos_per_epoch // size)):
        step(number)
    if job.device != "cpu":
        torch.cuda.synchronize()


def _arithmetic(job: MemberJob, loop: Timing) -> Arithmetic:
    size, step = _on_one_batch(job)
    flops = count_flops(lambda: step(0)) / size
    rate = matrix_rate(job.device, precision_of(job.recipe.precision, job.device), job.threads)
    return Arithmetic(
        gflop_per_photo=round(flops / 1e9, 4), tflop_per_second=round(flops * loop.rate / 1e12, 4),
        matrix_tflop_per_second=round(rate / 1e12, 4), share_of_matrix_rate=round(flops * loop.rate / rate, 4),
    )  # fmt: skip


def _on_one_batch(job: MemberJob) -> tuple[int, Callable[[int], None]]:
    """The size of a batch in memory, and a function that takes a step on it."""
    model, frozen, step = _ready(job)
    size = min(job.recipe.batch_size, job.photos_per_epoch)
    inputs = job.preprocess.normalise(torch.from_numpy(job.pixels.take(job.train[:size])).to(job.device))
    targets = torch.tensor(job.rows.target[job.train[:size]]).to(job.device)
    model.train()
    for module in frozen:
        module.eval()
    return size, partial(step, inputs, targets)


def _ready(job: MemberJob) -> tuple[nn.Module, list[nn.Module], Callable[..., None]]:
    """The network and a function that takes one step."""
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    cv2.setNumThreads(1)
    recipe = job.recipe
    model = create(recipe.backbone, job.head.outputs, recipe, job.initial).to(job.device)
    frozen = freeze_stages(model, recipe.frozen_stages)
    optimiser = create_optimiser(model, recipe)
    scaler: Any = torch.amp.GradScaler(job.device, enabled=precision_of(recipe.precision, job.device) == torch.float16)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step(
        inputs: torch.Tensor, targets: torch.Tensor, number: int, lap: Callable[[str], None] = lambda _: None
    ) -> None:
        set_rate(optimiser, rate_factor(recipe, number, job.steps_per_epoch))
        with autocast(recipe.precision, job.device):
            outputs = model(inputs)
        loss = job.head.loss(outputs, targets, torch.ones(len(targets), device=job.device))
        lap("forward")
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        lap("backward")
        if recipe.clip_norm:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        lap("optimiser")

    return model, frozen, step


def _stages(job: MemberJob, paths: list[Path]) -> dict[str, float]:
    """Milliseconds a photo of each stage of a step; decoding is what the store saves in every epoch but the first."""
    model, frozen, step = _ready(job)
    model.train()
    for module in frozen:
        module.eval()
    augmenter = Augmenter(job.recipe.augment, job.recipe.height, job.recipe.width)
    size = min(job.recipe.batch_size, len(job.train))
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal last
        if job.device != "cpu":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0.0) + now - last
        last = now

    for number in range(WARM_UP + TIMED):
        if number == WARM_UP:
            seconds.clear()
        rows = job.train[number * size % max(1, len(job.train) - size) :][:size]
        last = time.perf_counter()
        for row in rows:
            decode(paths[row])
        lap("decode")
        pixels = job.pixels.take(rows)
        lap("store read")
        pixels = augmenter(pixels, number)
        lap("augment")
        inputs = job.preprocess.normalise(torch.from_numpy(pixels).to(job.device))
        lap("copy and normalise")
        targets = torch.tensor(job.rows.target[rows]).to(job.device)
        last = time.perf_counter()
        step(inputs, targets, number, lap)
    return {name: round(1000 * value / (TIMED * size), 3) for name, value in seconds.items()}

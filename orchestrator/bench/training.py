"""Training against its floor: the same steps on batches already in memory, and the time of each stage per photo."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from orchestrator.training.loop import train_fold
from orchestrator.training.member import MemberJob
from orchestrator.training.optimisers import create_optimiser, set_rate
from orchestrator.training.schedules import rate_factor

__all__ = ["bench_training"]

WARM_UP, TIMED = 2, 6
"""Steps before the stages are timed, and steps whose stages are."""


def bench_training(
    jobs: Mapping[str, MemberJob], paths: list[Path], rounds: int, done: Callable[[int, int], None]
) -> dict[str, Any]:
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
    """
    found: dict[str, Any] = {}
    for task, given in jobs.items():
        # Scoring is left out on both sides: it is prediction, which has a benchmark of its own.
        job = replace(
            given, held_out=given.held_out[:0], recipe=given.recipe.model_copy(update={"evaluate_every": 10_000})
        )
        photos = job.recipe.epochs * job.photos_per_epoch
        given.folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bench-", dir=given.folder.parent) as scratch:  # on the same disk
            loop = partial(_loop, replace(job, folder=Path(scratch) / "member"))
            timings = in_turn({"floor": partial(_floor, job), "loop": loop}, rounds, photos, done)
        found[task] = {
            "backbone": job.recipe.backbone, "height": job.recipe.height, "width": job.recipe.width,
            "photos": photos, "threads": job.threads, "device": job.device,
            **{name: timing.as_dict() for name, timing in timings.items()},
            "efficiency": ratio(timings["floor"], timings["loop"]),
            "arithmetic": _arithmetic(job, timings["loop"]),
            "stages_ms_per_photo": _stages(job, paths),
        }  # fmt: skip
    return found


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


def _arithmetic(job: MemberJob, loop: Timing) -> dict[str, float]:
    size, step = _on_one_batch(job)
    flops = count_flops(lambda: step(0)) / size
    rate = matrix_rate(job.device, precision_of(job.recipe.precision, job.device), job.threads)
    return {
        "gflop_per_photo": round(flops / 1e9, 4), "tflop_per_second": round(flops * loop.rate / 1e12, 4),
        "matrix_tflop_per_second": round(rate / 1e12, 4), "share_of_matrix_rate": round(flops * loop.rate / rate, 4),
    }  # fmt: skip


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

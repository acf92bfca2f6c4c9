"""Training one member: sample, augment, step; score the held-out people; keep the best epoch; go on after a kill.

Every epoch's draws depend on the seed and the epoch's number alone, and a checkpoint is written after every epoch, so a
training that was killed and run again ends with the same bits as one that was not (on a CPU, with the same threads).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.data.augmentation import Augmenter
from orchestrator.data.files import atomic, sha256_of, sweep, write_json
from orchestrator.data.loading import Batches, load
from orchestrator.data.sampling import draw_epoch, expected_draws
from orchestrator.errors import DeviceError, TrainingError, WorkspaceError
from orchestrator.metrics import score
from orchestrator.stages import Stages
from orchestrator.training import checkpoints
from orchestrator.training.backbones import create, freeze_stages, only_head
from orchestrator.training.checkpoints import load_checkpoint, save_checkpoint, save_tensors
from orchestrator.training.devices import autocast, keep_freed_memory, precision_of
from orchestrator.training.heads import photo_weights
from orchestrator.training.member import MemberJob
from orchestrator.training.mixup import draw_mix
from orchestrator.training.optimisers import create_optimiser, rate_factor, set_rate

__all__ = ["train_fold"]

PROGRESS_SECONDS = 1.0


@dataclass
class State:
    """What changes while a member trains."""

    epoch: int = 0  # whole epochs done
    best_epoch: int = 0
    best_score: float = -1.0
    waited: int = 0  # scores since the best one
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


# The purposes of random draws, so that no two share a stream.
INITIALISE, SAMPLE, AUGMENT, NETWORK, MIX = range(5)


def train_fold(job: MemberJob) -> dict[str, Any]:
    """Trains one member, or goes on with it, or finds it complete.

    Returns:
        The member's card.

    Raises:
        TrainingError: the loss became infinite or not a number.
        DeviceError: memory ran out; names the settings to lower.
        WorkspaceError: another process trains this member.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.folder / checkpoints.LOCK)
    try:
        # A worker that outlived a killed command notices within a batch and lets go.
        lock.acquire(timeout=60)
    except Timeout:
        raise WorkspaceError(
            f"{job.folder}: another process is training this member. Wait for it, or stop it."
        ) from None
    try:
        sweep(job.folder)
        (job.folder / checkpoints.PROGRESS).unlink(missing_ok=True)
        card_path = job.folder / checkpoints.CARD
        if card_path.exists():
            return checkpoints.read_card(job.folder)
        try:
            return _train(job)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _out_of_memory(job) from error
        except RuntimeError as error:
            if "can't allocate memory" in str(error) or "out of memory" in str(error):
                raise _out_of_memory(job) from error
            raise
    finally:
        lock.release()


def _out_of_memory(job: MemberJob) -> DeviceError:
    recipe = job.recipe
    return DeviceError(
        f"{job.task} fold {job.fold}: out of memory on {job.device}. Lower batch_size (now {recipe.batch_size}; "
        f"--set {job.task}.batch_size={max(2, recipe.batch_size // 2)}), the input size (now {recipe.height} x "
        f"{recipe.width}), or the number of jobs at once (--jobs)."
    )


def _train(job: MemberJob) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    cv2.setNumThreads(1)
    recipe = job.recipe
    torch.manual_seed(job.entropy(INITIALISE))
    model = create(recipe.backbone, job.head.outputs, recipe, job.initial).to(job.device)
    # `network` is what is run and learns; `model` is what is saved. A head alone runs on features.
    network = model if recipe.train == "network" else only_head(model)
    frozen = freeze_stages(model, recipe.frozen_stages) if recipe.train == "network" else []
    optimiser = create_optimiser(model, recipe)
    scaler = torch.amp.GradScaler(job.device, enabled=precision_of(recipe.precision, job.device) == torch.float16)
    counters = load_checkpoint(job.folder / checkpoints.CHECKPOINT, model, optimiser)
    state = State()
    if counters is not None:
        scaler.load_state_dict(counters.pop("scaler"))
        state = State(**counters)
    while state.epoch < recipe.epochs and not (recipe.patience and state.waited >= recipe.patience):
        started = time.monotonic()
        entry = _train_epoch(job, network, frozen, optimiser, scaler, state)
        state.epoch += 1
        if state.epoch % recipe.evaluate_every == 0 or state.epoch == recipe.epochs:
            scored = time.monotonic()
            entry |= _score_epoch(job, model, network, state)
            entry.get("stages", {})["score"] = time.monotonic() - scored
        state.seconds += time.monotonic() - started
        state.history.append({**entry, "seconds": round(time.monotonic() - started, 2)})
        write_json(job.folder / checkpoints.HISTORY, state.history)
        if recipe.train == "network":  # all epochs of a head take less than one checkpoint
            save_checkpoint(
                job.folder / checkpoints.CHECKPOINT,
                model,
                optimiser,
                vars(state) | {"scaler": scaler.state_dict()},
            )
    return _finish(job, model, state)


def _train_epoch(
    job: MemberJob, model: nn.Module, frozen: list[nn.Module], optimiser: Optimizer, scaler: Any, state: State
) -> dict[str, Any]:
    """One pass over the epoch's sample; returns the history entry."""
    recipe, epoch = job.recipe, state.epoch
    kinds = job.table["kind"].to_numpy()[job.train]
    drawn = draw_epoch(recipe.sampling, job.persons, kinds, np.random.default_rng(job.entropy(SAMPLE, epoch)))
    steps = max(1, len(drawn) // recipe.batch_size)  # a last, smaller batch would disturb the batch norms
    rows = job.train[drawn][: steps * recipe.batch_size]
    augmenter = Augmenter(recipe.augment, recipe.height, recipe.width) if recipe.train == "network" else None
    batches = Batches(job.pixels, rows, recipe.batch_size, augmenter, job.entropy(AUGMENT, epoch))
    targets = torch.tensor(job.table["target"].to_numpy())
    weights = torch.ones(len(targets))
    draws = expected_draws(recipe.sampling, job.persons, kinds)
    classes = job.table["trained"].to_numpy()[job.train]
    weights[job.train] = torch.from_numpy(photo_weights(classes, recipe.class_balance, draws))
    torch.manual_seed(job.entropy(NETWORK, epoch))
    mixer = np.random.default_rng(job.entropy(MIX, epoch))
    model.train()
    for module in frozen:
        module.eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total, started, shown = torch.zeros((), device=job.device), time.monotonic(), 0.0
    stages = Stages(job.profile, torch.cuda.synchronize if job.device != "cpu" else lambda: None)
    loaded = stages.each("read and augment", load(batches, _workers(job), pin=job.device != "cpu"))
    for step, (pixels, numbers) in enumerate(loaded):
        set_rate(optimiser, rate_factor(epoch * steps + step, recipe.epochs * steps, recipe.warmup))
        with stages("forward"):
            loss = _loss(job, model, pixels, targets[numbers], weights[numbers], mixer)
        with stages("backward"):
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
        with stages("optimiser"):
            if recipe.clip_norm:
                scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            scaler.step(optimiser)
            scaler.update()
        total += loss.detach()
        _check_parent(job)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            rate = (step + 1) * recipe.batch_size / (shown - started)
            _tell(job, state, step / steps, rate)
    mean = float(total) / steps
    if not np.isfinite(mean):
        raise TrainingError(
            f"{job.task} fold {job.fold}: the loss became {mean} in epoch {epoch + 1}. Lower the learning rate "
            f"(--set {job.task}.lr={recipe.lr / 3:.1e}) or clip harder (--set {job.task}.clip_norm=0.5)."
        )
    rate = len(rows) / (time.monotonic() - started)
    return {
        "epoch": epoch + 1,
        "loss": mean,
        "lr": optimiser.param_groups[-1]["lr"],
        "photos_per_second": round(rate, 1),
        **({"stages": stages.seconds} if job.profile else {}),
    }


def _loss(
    job: MemberJob, model: nn.Module, pixels: Tensor, targets: Tensor, weights: Tensor, mixer: np.random.Generator
) -> Tensor:
    """The mean loss of a batch, a scalar."""
    recipe = job.recipe
    inputs = _inputs(job, pixels)
    targets, weights = (values.to(job.device, non_blocking=True) for values in (targets, weights))
    mix = draw_mix(len(inputs), recipe.mixup, mixer) if recipe.mixup else None
    with autocast(recipe.precision, job.device):
        outputs = model(inputs if mix is None else mix.blend(inputs))
    loss = job.head.loss(outputs, targets, weights)
    if mix is None:
        return loss
    partners = mix.partner.to(job.device)
    other = job.head.loss(outputs, targets[partners], weights[partners])
    return mix.share * loss + (1 - mix.share) * other


def _inputs(job: MemberJob, pixels: Tensor) -> Tensor:
    """A batch as the network's input: pixels normalised, features as they are."""
    there = pixels.to(job.device, non_blocking=True)
    return job.preprocess.normalise(there) if job.recipe.train == "network" else there


def _score_epoch(job: MemberJob, model: nn.Module, network: nn.Module, state: State) -> dict[str, Any]:
    """Scores the held-out people on every photo of theirs, and keeps the weights when they are the best so far."""
    if not len(job.held_out):
        save_tensors(job.folder / checkpoints.BEST, checkpoints.best_tensors(model, None), state.epoch)
        state.best_epoch = state.epoch
        return {}
    probabilities = _probabilities(job, network)
    macro_f1, entry = _scores(job, probabilities)
    if macro_f1 > state.best_score:
        state.best_score, state.best_epoch, state.waited = macro_f1, state.epoch, 0
        best = checkpoints.best_tensors(model, torch.from_numpy(probabilities))
        save_tensors(job.folder / checkpoints.BEST, best, state.epoch)
    else:
        state.waited += 1
    return entry


def _scores(job: MemberJob, probabilities: NDArray[np.float32]) -> tuple[float, dict[str, float]]:
    """Macro F1 of the held-out photos, and the entry for history and card."""
    truth = job.table["truth"].to_numpy()[job.held_out]
    scores = score(truth, probabilities.argmax(axis=1), len(job.classes))
    log_loss = float(-np.log(np.maximum(probabilities[np.arange(len(truth)), truth], 1e-7)).mean())
    return scores.macro_f1, {"macro_f1": scores.macro_f1, "accuracy": scores.accuracy, "log_loss": log_loss}


def _probabilities(job: MemberJob, model: nn.Module) -> NDArray[np.float32]:
    """Class probabilities of the held-out rows, shape (n, C)."""
    model.eval()
    parts: list[Tensor] = []
    size = 64 if job.device == "cpu" else max(64, job.recipe.batch_size)
    with torch.inference_mode():
        for pixels, _ in load(Batches(job.pixels, job.held_out, size), _workers(job), pin=job.device != "cpu"):
            with autocast(job.recipe.precision, job.device):
                outputs = model(_inputs(job, pixels))
            parts.append(job.head.probabilities(outputs).cpu())
            _check_parent(job)
    return torch.cat(parts).numpy()


def _finish(job: MemberJob, model: nn.Module, state: State) -> dict[str, Any]:
    """Writes the best epoch's weights, its held-out probabilities and, last, the card."""
    tensors, probabilities, best_epoch = checkpoints.load_best(job.folder / checkpoints.BEST)
    save_tensors(job.folder / checkpoints.WEIGHTS, tensors)
    sha256 = {checkpoints.WEIGHTS: sha256_of(job.folder / checkpoints.WEIGHTS)}
    scores: dict[str, Any] = {}
    if probabilities is not None:
        _write_held_out(job, probabilities.numpy())
        sha256[checkpoints.HELD_OUT] = sha256_of(job.folder / checkpoints.HELD_OUT)
        scores = _scores(job, probabilities.numpy())[1]
    people = job.table["person"]
    card = {
        "format": checkpoints.CARD_FORMAT,
        "task": job.task,
        "fold": job.fold,
        "classes": list(job.classes),
        "backbone": job.recipe.backbone,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "head": job.head.as_dict(),
        "preprocess": job.preprocess.as_dict(),
        "recipe": job.recipe.model_dump(mode="json"),
        "seed": job.seed,
        "initial_weights_sha256": job.initial.sha256,
        "train": {"photos": len(job.train), "people": int(people.iloc[job.train].nunique())},
        "held_out": {"photos": len(job.held_out), "people": int(people.iloc[job.held_out].nunique())},
        "photos_per_epoch": job.photos_per_epoch,
        "epochs": state.epoch,
        "best_epoch": best_epoch,
        "scores": scores,
        "seconds": round(state.seconds, 1),
        "device": job.device,
        "threads": job.threads,
        **job.notes,
        "sha256": sha256,
    }
    write_json(job.folder / checkpoints.CARD, card)
    for name in (checkpoints.CHECKPOINT, checkpoints.BEST, checkpoints.PROGRESS):
        (job.folder / name).unlink(missing_ok=True)
    return card


def _write_held_out(job: MemberJob, probabilities: NDArray[np.float32]) -> None:
    """The out-of-fold table: path, person, fold, truth and one probability per class."""
    rows = job.table.iloc[job.held_out]
    table = pd.DataFrame({"path": rows["path"].array, "person": rows["person"].array, "fold": job.fold})
    table["truth"] = rows["truth"].to_numpy()
    for code, name in enumerate(job.classes):
        table[f"p({name})"] = probabilities[:, code]
    with atomic(job.folder / checkpoints.HELD_OUT) as temporary:
        table.to_parquet(temporary, index=False)


def _tell(job: MemberJob, state: State, share: float, rate: float) -> None:
    """Leaves a word for displays; not flushed, and not missed on a full disk, since a lost word costs nothing."""
    value = {
        "epoch": state.epoch,
        "share": share,
        "photos_per_second": rate,
        "best": max(0.0, state.best_score),
    }
    temporary = job.folder / f".{checkpoints.PROGRESS}"
    with suppress(OSError):
        temporary.write_text(json.dumps(value))
        temporary.replace(job.folder / checkpoints.PROGRESS)


def _check_parent(job: MemberJob) -> None:
    """Ends a worker whose command was killed: two trainings of one member must never run at once."""
    if job.parent is not None and os.getppid() != job.parent:
        os._exit(1)


def _workers(job: MemberJob) -> int:
    if job.recipe.workers >= 0:
        return job.recipe.workers
    return 0 if job.device == "cpu" else min(8, os.cpu_count() or 1)

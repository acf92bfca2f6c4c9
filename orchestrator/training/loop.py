"""Training one member: sample, augment, step; score the held-out people; keep the best epoch; go on after a kill.

Every epoch's draws depend on the seed and the epoch's number alone, and a checkpoint is written after every epoch, so a
training that was killed and run again ends with the same bits as one that was not (on a CPU, with the same threads).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from orchestrator.artifacts.cards import (
    CARD,
    CHECKPOINT,
    HELD_OUT,
    HISTORY,
    LOCK,
    WEIGHTS,
    MemberCard,
    ScoredOn,
    TrainedOn,
    best_file,
    check_identity,
)
from orchestrator.artifacts.held_out import HeldOut
from orchestrator.artifacts.weights import save_tensors
from orchestrator.core.epochs import MemberScores
from orchestrator.core.errors import DeviceError, WorkspaceError
from orchestrator.core.events import EpochEnded, Listener, ignore_events
from orchestrator.core.files import remove_own_file, remove_temporaries, sha256_of, write_json
from orchestrator.core.memory import is_out_of_memory
from orchestrator.networks.devices import keep_freed_memory
from orchestrator.training.checkpoints import best_tensors, load_best, save_best
from orchestrator.training.epoch import INITIALISE, train_epoch
from orchestrator.training.job import MemberJob
from orchestrator.training.learner import Learner, Progress
from orchestrator.training.scoring import held_out_probabilities, scores_of

__all__ = ["Pruned", "keep_best", "score_epoch", "train_fold"]


class Pruned(Exception):  # noqa: N818  (not an error: the caller asked for pruning)
    """A training stayed below its threshold. Its checkpoint stays, so it can be trained to the end.

    Args:
        epoch: the last one trained.
        threshold: the macro F1 that would have been enough.
    """

    def __init__(self, epoch: int, threshold: float) -> None:
        super().__init__(epoch, threshold)
        self.epoch, self.threshold = epoch, threshold


def train_fold(job: MemberJob, listen: Listener = ignore_events) -> MemberCard:
    """Trains one member, resumes its training, or returns it if it is complete.

    Args:
        job: the member.
        listen: receives progress within epochs, and each epoch that is trained here.

    Returns:
        The member's card.

    Raises:
        Pruned: its best score so far is below the job's threshold.
        TrainingError: the loss became infinite or not a number.
        DeviceError: memory ran out; names the settings to lower.
        WorkspaceError: another process trains this member.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.folder / LOCK)
    try:
        # A worker that outlived its killed command notices within a batch and releases the lock.
        lock.acquire(timeout=60)
    except Timeout:
        raise WorkspaceError(
            f"{job.folder}: another process is training this member. Wait for it, or stop it."
        ) from None
    try:
        remove_temporaries(job.folder)
        if os.path.lexists(job.folder / CARD):
            card = MemberCard.load(job.folder)
            check_identity(job.folder, card.id, job.identity)
            return card
        try:
            return _train(job, listen)
        except Exception as error:  # torch, CUDA and Python report it by different types; all others are raised again
            if is_out_of_memory(error):
                raise DeviceError(f"{job.title}: out of memory on {job.device}. {job.memory_advice}") from error
            raise
    finally:
        lock.release()


def _train(job: MemberJob, listen: Listener) -> MemberCard:
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    cv2.setNumThreads(1)
    recipe = job.recipe
    learner = Learner(job, job.entropy(INITIALISE))
    progress = learner.restore(job.folder)
    keep_best(job.folder, progress.best_epoch)
    while progress.epoch < recipe.epochs and not (recipe.patience and progress.waited >= recipe.patience):
        # Before each epoch, so that a training killed at this point is still pruned.
        threshold = job.pruning_thresholds.get(progress.epoch)
        if threshold is not None and progress.best_score < threshold:
            raise Pruned(progress.epoch, threshold)
        started = time.monotonic()
        epoch = train_epoch(job, learner, progress, listen)
        progress.epoch += 1
        if progress.epoch % recipe.evaluate_every == 0 or progress.epoch == recipe.epochs:
            scored = time.monotonic()
            epoch = replace(epoch, scores=score_epoch(job, learner, progress))
            if job.profile:
                epoch = replace(epoch, stages={**epoch.stages, "score": time.monotonic() - scored})
        progress.seconds += time.monotonic() - started
        progress.history.append(replace(epoch, seconds=round(time.monotonic() - started, 2)))
        write_json(job.folder / HISTORY, [trained.as_dict() for trained in progress.history])
        listen(EpochEnded(job.run, job.fold, progress.history[-1]))
        if recipe.train == "network":  # all epochs of a head take less than one checkpoint
            learner.save(job.folder, progress)
        keep_best(job.folder, progress.best_epoch)
    return _finish(job, learner, progress)


def score_epoch(job: MemberJob, learner: Learner, progress: Progress) -> MemberScores | None:
    """Scores all photos of the held-out people, and keeps the weights if they are the best so far.

    Returns:
        The scores; None where nobody is held out, and then the last weights are kept.

    Raises:
        TrainingError: the network's answers are infinite or NaN.
    """
    best = job.folder / best_file(progress.epoch)
    if not len(job.held_out):
        save_best(best, job.identity, best_tensors(learner.result, None))
        progress.best_epoch = progress.epoch
        return None
    probabilities = held_out_probabilities(job, learner.scored)
    scores, _ = scores_of(job, probabilities)
    if scores.macro_f1 > progress.best_score:
        progress.best_score, progress.best_epoch, progress.waited = scores.macro_f1, progress.epoch, 0
        save_best(best, job.identity, best_tensors(learner.result, torch.from_numpy(probabilities)))
    else:
        progress.waited += 1
    return scores


def keep_best(folder: Path, epoch: int) -> None:
    """Removes the files of earlier best epochs; called once the checkpoint names the new one, so no kill loses it.

    Args:
        folder: folder of the member.
        epoch: best epoch to keep; 0: none.
    """
    for path in folder.glob(best_file("*")):
        if path.name != best_file(epoch):
            remove_own_file(path)


def _finish(job: MemberJob, learner: Learner, progress: Progress) -> MemberCard:
    """Writes the best epoch's weights, its held-out probabilities and, last, the card."""
    best, checkpoint = job.folder / best_file(progress.best_epoch), job.folder / CHECKPOINT
    tensors, probabilities = load_best(best, job.identity, checkpoint)
    save_tensors(job.folder / WEIGHTS, tensors)
    sha256 = {WEIGHTS: sha256_of(job.folder / WEIGHTS)}
    scores: MemberScores | None = None
    counts: list[list[int]] = []
    if probabilities is not None:
        _write_held_out(job, probabilities.numpy())
        sha256[HELD_OUT] = sha256_of(job.folder / HELD_OUT)
        scores, confusion = scores_of(job, probabilities.numpy())
        counts = confusion.tolist()
    people = job.rows.person
    card = MemberCard(
        id=job.identity,
        task=job.task,
        fold=job.fold,
        classes=job.classes,
        backbone=job.recipe.backbone,
        pooling=job.recipe.pooling,
        views=tuple(job.recipe.views),
        parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        head=job.head.as_dict(),
        preprocess=job.preprocess.as_dict(),
        recipe=job.recipe.model_dump(mode="json"),
        seed=job.seed,
        initial_weights_sha256=job.initial.sha256,
        train=TrainedOn(len(job.train), len(np.unique(people[job.train])), extra=int(job.rows.extra[job.train].sum())),
        held_out=ScoredOn(len(job.held_out), len(np.unique(people[job.held_out]))),
        photos_per_epoch=job.photos_per_epoch,
        epochs=progress.epoch,
        best_epoch=progress.best_epoch,
        scores=scores,
        confusion=counts,
        history=tuple(progress.history),
        seconds=round(progress.seconds, 2),
        device=job.device,
        threads=job.threads,
        sha256=sha256,
        **vars(job.origin),
    )
    card.save(job.folder)
    checkpoint.unlink(missing_ok=True)
    keep_best(job.folder, 0)
    return MemberCard.load(job.folder)


def _write_held_out(job: MemberJob, probabilities: NDArray[np.float32]) -> None:
    """Writes the held-out table of the member."""
    photos = job.held_out_photos.assign(fold=job.fold)
    HeldOut(job.task, photos, job.rows.truth[job.held_out], probabilities).write(job.folder / HELD_OUT)

"""Scores a member on its held-out people: all their photos, without augmentation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.core.epochs import MemberScores
from orchestrator.core.errors import quantity
from orchestrator.core.metrics import member_scores
from orchestrator.data.loading import Batches, load
from orchestrator.networks.devices import autocast
from orchestrator.networks.views import mean_over_views
from orchestrator.training.cancelling import raise_if_cancelled
from orchestrator.training.epoch import diverged, network_input, worker_count
from orchestrator.training.job import MemberJob

__all__ = ["held_out_probabilities", "scores_of"]


def held_out_probabilities(job: MemberJob, model: nn.Module) -> NDArray[np.float32]:
    """Class probabilities of the held-out rows, shape (n, C).

    Raises:
        TrainingError: the network's answers are infinite or NaN.
    """
    model.eval()

    def answer(inputs: Tensor) -> Tensor:
        with autocast(job.recipe.precision, job.device):
            outputs = model(inputs)
        return job.head.probabilities(outputs)

    parts: list[Tensor] = []
    size = 64 if job.device == "cpu" else max(64, job.recipe.batch_size)
    batches = Batches(job.pixels, job.held_out, size)
    workers = worker_count(job.recipe, job.device, len(batches))
    with torch.inference_mode():
        for pixels, _ in load(batches, workers, pin=job.device != "cpu"):
            inputs = network_input(job, pixels)
            parts.append(mean_over_views(job.recipe.views, inputs, answer).cpu())
            raise_if_cancelled(job.cancel)
    probabilities = torch.cat(parts)
    wrong = int((~torch.isfinite(probabilities).all(dim=1)).sum())
    if wrong:  # argmax of NaN would be scored like any other class
        of_photos = f"{wrong:,} of {quantity(len(probabilities), 'held-out photo')}"
        raise diverged(job, f"the network's answers are infinite or NaN for {of_photos}")
    return probabilities.numpy()


def scores_of(job: MemberJob, probabilities: NDArray[np.float32]) -> tuple[MemberScores, NDArray[np.int64]]:
    """Scores of the held-out photos, and their confusion matrix by (truth, prediction), shape (C, C).

    Raises:
        TrainingError: probabilities are NaN or infinite.
    """
    if not np.isfinite(probabilities).all():
        raise diverged(job, "stored answers are infinite or NaN")
    return member_scores(job.rows.truth[job.held_out], probabilities)

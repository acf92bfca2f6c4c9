"""A member in training: its network, its optimiser, and all state that must survive a kill."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.artifacts.cards import CHECKPOINT, best_file
from orchestrator.core.epochs import TrainedEpoch
from orchestrator.networks.backbones import create, freeze_stages, heads_of, only_head
from orchestrator.networks.devices import precision_of
from orchestrator.training import checkpoints
from orchestrator.training.job import MemberJob
from orchestrator.training.optimisers import create_average, create_optimiser

__all__ = ["Learner", "Progress"]


@dataclass
class Progress:
    """How far a member has come."""

    epoch: int = 0  # whole epochs done
    best_epoch: int = 0
    best_score: float = -1.0
    waited: int = 0  # scores since the best one
    seconds: float = 0.0
    history: list[TrainedEpoch] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        """Macro F1 on the held-out people, in order."""
        return [epoch.scores.macro_f1 for epoch in self.history if epoch.scores]


class Learner:
    """Network, optimiser and averages of one member.

    Attributes:
        model: the whole network.
        optimiser: optimiser of all parameters that are ever trained.
        scaler: gradient scaler, for fp16.
        average: moving average of the weights, or None.

    Args:
        job: job to train.
        seed: seed of random weights.
    """

    def __init__(self, job: MemberJob, seed: int) -> None:
        recipe = job.recipe
        self._identity = job.identity
        torch.manual_seed(seed)
        self.model = create(recipe.backbone, job.head.outputs, recipe, job.initial).to(job.device)
        self._head_alone = recipe.train == "head"
        if self._head_alone:
            only_head(self.model)
        # Stages that are unfrozen later belong to the optimiser from the start; it skips them without gradients.
        optimiser_of_all = create_optimiser(self.model, recipe) if recipe.unfreeze_after else None
        self._frozen = freeze_stages(self.model, recipe.frozen_stages)
        self.optimiser = optimiser_of_all or create_optimiser(self.model, recipe)
        precision = precision_of(recipe.precision, job.device)
        self.scaler: Any = torch.amp.GradScaler(job.device, enabled=precision == torch.float16)
        self.average = create_average(self.model, recipe)

    @property
    def network(self) -> nn.Module:
        """The module that runs in training: the whole network, or only its head, which takes features."""
        return heads_of(self.model)[0] if self._head_alone else self.model

    @property
    def result(self) -> nn.Module:
        """What is saved: the moving average of the weights where there is one, else the weights."""
        return self.model if self.average is None else self.average.module

    @property
    def scored(self) -> nn.Module:
        """The module that answers for held-out people: the result, or only its head."""
        return heads_of(self.result)[0] if self._head_alone else self.result

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that are trained at present."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def begin_epoch(self, unfreeze: bool) -> None:
        """Puts the network into training mode, frozen parts aside.

        Args:
            unfreeze: whether the frozen stages learn from now on.
        """
        if unfreeze and self._frozen:
            self.model.requires_grad_(True)
            self._frozen = []
        self.network.train()
        for module in self._frozen:
            module.eval()

    def save(self, folder: Path, progress: Progress) -> None:
        """Writes the checkpoint that the next epoch begins from."""
        average = {} if self.average is None else dict(self.average.module.state_dict())
        history = [epoch.as_dict() for epoch in progress.history]
        counters = {**vars(progress), "history": history, "scaler": self.scaler.state_dict()}
        path = folder / CHECKPOINT
        checkpoints.save_checkpoint(path, self._identity, self.model, self.optimiser, counters, average)

    def restore(self, folder: Path) -> Progress:
        """Restores the checkpoint, if there is one, and returns the progress that it holds.

        Raises:
            DamagedError: it, or the file of the best epoch that it names, is damaged or another member's.
        """
        average = None if self.average is None else self.average.module
        path = folder / CHECKPOINT
        counters = checkpoints.load_checkpoint(path, self._identity, self.model, self.optimiser, average)
        if counters is None:
            return Progress()
        self.scaler.load_state_dict(counters.pop("scaler"))
        progress = Progress(**{**counters, "history": list(map(TrainedEpoch.from_dict, counters["history"]))})
        if progress.best_epoch:  # fails now, not after all other epochs are trained
            checkpoints.load_best(folder / best_file(progress.best_epoch), self._identity, path)
        return progress

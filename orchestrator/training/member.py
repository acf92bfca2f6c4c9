"""What one member's training depends on, as a value that travels to worker processes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.cards import Origin, identity_of
from orchestrator.data.preprocessing import Preprocess
from orchestrator.data.sampling import class_factors, epoch_size, expected_draws
from orchestrator.data.store import Rows
from orchestrator.networks.backbones import InitialWeights
from orchestrator.networks.heads import Head, photo_weights
from orchestrator.recipes.schema import Recipe
from orchestrator.training.cancelling import Cancel

__all__ = ["MemberJob"]


@dataclass(frozen=True)
class MemberJob:
    """Everything that one member's training depends on; travels to worker processes.

    Attributes:
        run: its run's id.
        folder: the member's folder.
        locks: a folder of this machine's for locks that jobs share, one a GPU.
        task: the specialist's name.
        fold: the fold held out; None trains on every row and scores nothing.
        classes: class names in code order.
        table: columns `path`, `person`, `truth` (class codes), `trained` (those that training takes for true: a moved
            border shows here), `target` (what the head trains on), `kind` (what a draw of one photo per person chooses
            first, a code) and `extra` (whether it comes from elsewhere).
        train: rows to train on.
        held_out: rows to score; empty without a plan.
        pixels: where pixels come from, by row of the table; features, for a recipe that trains a head alone.
        recipe: how to train.
        head: what outputs mean.
        preprocess: from pixels to the network's input.
        initial: weights to start from.
        seed: of the run.
        threads: CPU threads of the network.
        device: `cpu`, `cuda` or `cuda:N`.
        origin: its run, plan and data.
        cancel: reasons to stop, looked at once a batch.
        profile: whether the history shall tell where the time went.
        pruning_thresholds: epochs after which the training is pruned when its best macro F1 so far is below a number.
    """

    run: str
    folder: Path
    locks: Path
    task: str
    fold: int | None
    classes: tuple[str, ...]
    table: pd.DataFrame
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pixels: Rows
    recipe: Recipe
    head: Head
    preprocess: Preprocess
    initial: InitialWeights
    seed: int
    threads: int
    device: str
    origin: Origin
    cancel: tuple[Cancel, ...] = ()
    profile: bool = False
    pruning_thresholds: Mapping[int, float] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The digest of all that the member's weights depend on."""
        origin = self.origin
        return identity_of(
            self.task, self.fold, self.recipe.digest(), self.initial.sha256, origin.data_fingerprint, origin.plan_digest,
            self.seed, origin.extra_fingerprint,
        )  # fmt: skip

    @property
    def photos_per_epoch(self) -> int:
        """How many photos an epoch trains on: those drawn, less a last step that is not full; whole batches, if it has but one.

        Within a step all batches are of one size, so that all photos of a step weigh the same.
        """
        drawn = epoch_size(self.recipe.sampling, self.persons, self.kinds, self.factors)
        batch = self.recipe.batch_size
        step = batch * self.recipe.accumulate
        return drawn // step * step or drawn // batch * batch or drawn

    @property
    def steps_per_epoch(self) -> int:
        """How many steps of the optimiser an epoch takes."""
        return max(1, self.photos_per_epoch // (self.recipe.batch_size * self.recipe.accumulate))

    @property
    def persons(self) -> NDArray[np.int64]:
        """The person of each training row, as a number."""
        return pd.factorize(self.table["person"].iloc[self.train])[0]

    @property
    def kinds(self) -> NDArray[np.int64]:
        """What a draw of one photo per person chooses first, of each training row."""
        return self.table["kind"].to_numpy()[self.train]

    @property
    def factors(self) -> NDArray[np.float64] | None:
        """How many times as often each training row is drawn; None: once."""
        recipe = self.recipe
        extra = self.table["extra"].to_numpy()[self.train]
        scarce = np.where(extra, recipe.extra_factor, 1.0)
        if not recipe.sample_balance and not recipe.sample_factor:
            return scarce if (scarce != 1).any() else None
        classes = self.table["trained"].to_numpy()[self.train]
        factor = np.array([recipe.sample_factor.get(name, 1.0) for name in self.classes])
        draws = expected_draws(recipe.sampling, self.persons, self.kinds, scarce)
        return class_factors(classes, draws, recipe.sample_balance, factor) * scarce

    @property
    def weights(self) -> NDArray[np.float32]:
        """How much each training row counts in the loss, with mean 1 over an epoch."""
        draws = expected_draws(self.recipe.sampling, self.persons, self.kinds, self.factors)
        return photo_weights(self.table["trained"].to_numpy()[self.train], self.recipe.class_balance, draws)

    @property
    def work(self) -> float:
        """Roughly, how long this training is, to order jobs and to tell the time left: pixels through the network."""
        recipe = self.recipe
        small = min(recipe.small_epochs, recipe.epochs)
        epochs = (recipe.epochs - small + small * recipe.small_size**2) * (2 if recipe.sam else 1)
        return float(epochs * self.photos_per_epoch * recipe.height * recipe.width)

    def entropy(self, *purpose: int) -> int:
        """A seed for one purpose: the same for the same run seed, task, fold and purpose, and unlike all others."""
        fold = 2**16 if self.fold is None else self.fold
        parts = [self.seed, zlib.crc32(self.task.encode()), fold, *purpose]
        return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

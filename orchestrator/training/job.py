"""What one member's training depends on, as a value that travels to worker processes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.cards import Origin
from orchestrator.artifacts.ingredients import Ingredients
from orchestrator.data.preprocessing import Preprocess
from orchestrator.data.sampling import class_factors, epoch_size, expected_draws
from orchestrator.data.store import Rows
from orchestrator.networks.backbones import InitialWeights
from orchestrator.networks.heads import Head, photo_weights
from orchestrator.recipes.schema import Recipe
from orchestrator.training.cancelling import Cancel

__all__ = ["MemberJob", "TrainingRows"]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """What training uses of N photos, extra ones last.

    Attributes:
        person: a number for each person, shape (N,), int64.
        truth: true class codes, shape (N,), int64.
        trained: class codes to train on, which a moved border changes, shape (N,), int64.
        target: the head's targets, shape (N,).
        kind: code of the kind that per_person draws first, shape (N,), int64.
        extra: whether it is an extra photo, shape (N,), bool.
    """

    person: NDArray[np.int64]
    truth: NDArray[np.int64]
    trained: NDArray[np.int64]
    target: NDArray[Any]
    kind: NDArray[np.int64]
    extra: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True)
class MemberJob:
    """Everything that one member's training depends on; travels to worker processes.

    Attributes:
        run: id of its run.
        folder: folder of the member.
        task: the specialist's name.
        fold: the fold held out; None trains on every row and scores nothing.
        classes: class names in code order.
        rows: the photos.
        train: row numbers to train on.
        held_out: row numbers to score; empty without a plan.
        held_out_photos: `path` and `person` of these, for the held-out table.
        pixels: source of pixels by row number; of features, for a recipe that trains only a head.
        recipe: recipe of the run.
        head: meaning of the network's outputs.
        preprocess: conversion from pixels to the network's input.
        initial: initial weights.
        seed: seed of the run.
        threads: number of CPU threads of the network.
        device: `cpu`, `cuda` or `cuda:N`.
        origin: its run, plan and data.
        cancel: reasons to stop, checked once per batch.
        profile: whether the history records the seconds of each stage.
        pruning_thresholds: epoch -> macro F1; the training is pruned after this epoch if its best score is below.
    """

    run: str
    folder: Path
    task: str
    fold: int | None
    classes: tuple[str, ...]
    rows: TrainingRows
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    held_out_photos: pd.DataFrame
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
    def key(self) -> tuple[str, int | None]:
        """What identifies the member within a command: its run and its fold."""
        return self.run, self.fold

    @property
    def identity(self) -> str:
        """The digest of all that the member's weights depend on."""
        origin = self.origin
        made_from = Ingredients(
            self.task, self.recipe.digest(), self.initial.sha256, origin.data_fingerprint, origin.plan_digest,
            origin.extra_fingerprint,
        )  # fmt: skip
        return made_from.member_id(self.fold, self.seed)

    @property
    def title(self) -> str:
        """The member in messages: `mask fold 0`; the specialist alone where nobody is held out."""
        return self.task if self.fold is None else f"{self.task} fold {self.fold}"

    @property
    def memory_advice(self) -> str:
        """What to lower where memory runs out, as a sentence."""
        recipe = self.recipe
        return (
            f"Lower batch_size (now {recipe.batch_size}; --set {self.task}.batch_size={max(2, recipe.batch_size // 2)}), the "
            f"input size (now {recipe.height} x {recipe.width}), or the number of jobs at once (--jobs)."
        )

    @cached_property
    def photos_per_epoch(self) -> int:
        """Number of photos that an epoch trains on: those drawn, in full steps; in full batches if they fill no step.

        Within a step all batches have the same size, so that all its photos weigh the same.
        """
        drawn = epoch_size(self.recipe.sampling, self.persons, self.kinds, self.factors)
        batch = self.recipe.batch_size
        step = batch * self.recipe.accumulate
        return drawn // step * step or drawn // batch * batch or drawn

    @property
    def steps_per_epoch(self) -> int:
        """How many steps of the optimiser an epoch takes."""
        return max(1, self.photos_per_epoch // (self.recipe.batch_size * self.recipe.accumulate))

    @cached_property
    def persons(self) -> NDArray[np.int64]:
        """Number of the person of each training row, in order of appearance, shape (n,)."""
        return pd.factorize(self.rows.person[self.train])[0]

    @property
    def kinds(self) -> NDArray[np.int64]:
        """Kind code of each training row, shape (n,); per_person draws a kind first."""
        return self.rows.kind[self.train]

    @cached_property
    def factors(self) -> NDArray[np.float64] | None:
        """Factor on how often each training row is drawn, shape (n,); None: 1 for all."""
        recipe = self.recipe
        extra = self.rows.extra[self.train]
        scarce = np.where(extra, recipe.extra_factor, 1.0)
        if not recipe.sample_balance and not recipe.sample_factor:
            return scarce if (scarce != 1).any() else None
        classes = self.rows.trained[self.train]
        factor = np.array([recipe.sample_factor.get(name, 1.0) for name in self.classes])
        draws = expected_draws(recipe.sampling, self.persons, self.kinds, scarce)
        return class_factors(classes, draws, recipe.sample_balance, factor) * scarce

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Weight of each training row in the loss, with mean 1 over an epoch, shape (n,)."""
        draws = expected_draws(self.recipe.sampling, self.persons, self.kinds, self.factors)
        return photo_weights(self.rows.trained[self.train], self.recipe.class_balance, draws)

    @property
    def work(self) -> float:
        """Rough cost of this training, in pixels through the network: for the order of jobs and the time left."""
        recipe = self.recipe
        small = min(recipe.small_epochs, recipe.epochs)
        epochs = (recipe.epochs - small + small * recipe.small_size**2) * (2 if recipe.sam else 1)
        return float(epochs * self.photos_per_epoch * recipe.height * recipe.width)

    def entropy(self, *purpose: int) -> int:
        """A seed for one purpose: the same for the same run seed, task, fold and purpose, and unlike all others."""
        fold = 2**16 if self.fold is None else self.fold
        parts = [self.seed, zlib.crc32(self.task.encode()), fold, *purpose]
        return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

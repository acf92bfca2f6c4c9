"""What one member's training depends on, as a value that travels to worker processes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.data.preprocessing import Preprocess
from orchestrator.data.sampling import epoch_size
from orchestrator.data.store import Rows
from orchestrator.specialist import Recipe
from orchestrator.training.backbones import InitialWeights
from orchestrator.training.heads import Head

__all__ = ["MemberJob"]


@dataclass(frozen=True)
class MemberJob:
    """Everything that one member's training depends on; travels to worker processes.

    Attributes:
        folder: the member's folder.
        task: the specialist's name.
        fold: the fold held out; None trains on every row and scores nothing.
        classes: class names in code order.
        table: columns `path`, `person`, `truth` (class codes), `trained` (those that training takes for true: a moved
            border shows here), `target` (what the head trains on) and `kind` (what a draw of one photo per person chooses
            first, a code).
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
        notes: what else the card shall say (run, plan, data, versions).
        parent: process to die with, for worker processes.
        profile: whether the history shall tell where the time went.
    """

    folder: Path
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
    notes: dict[str, Any] = field(default_factory=dict)
    parent: int | None = None
    profile: bool = False

    @property
    def photos_per_epoch(self) -> int:
        """How many photos an epoch trains on: those drawn, less a last batch that is not full."""
        drawn, size = epoch_size(self.recipe.sampling, self.persons), self.recipe.batch_size
        return drawn // size * size or drawn

    @property
    def persons(self) -> NDArray[np.int64]:
        """The person of each training row, as a number."""
        return pd.factorize(self.table["person"].iloc[self.train])[0]

    @property
    def work(self) -> float:
        """Roughly, how long this training is, to order jobs and to tell the time left: pixels through the network."""
        recipe = self.recipe
        return float(recipe.epochs * self.photos_per_epoch * recipe.height * recipe.width)

    def entropy(self, *purpose: int) -> int:
        """A seed for one purpose: the same for the same run seed, task, fold and purpose, and unlike all others."""
        fold = 2**16 if self.fold is None else self.fold
        parts = [self.seed, zlib.crc32(self.task.encode()), fold, *purpose]
        return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])

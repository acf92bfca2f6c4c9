"""Batches for training and for scoring, in an order and with augmentation that depend on the seed alone.

Each batch is drawn as a whole by its number, and augmented with a seed of its own, so the same epoch gives the same
bits with no worker processes or with many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from orchestrator.data.augmentation import Augmenter
from orchestrator.data.store import Rows

__all__ = ["Batches", "load"]

Item = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Batches(Dataset[Item]):
    """The batches of one pass.

    Attributes:
        pixels: where pixels come from.
        rows: rows of the table in order, shape (n,).
        size: photos a batch; the last batch may be smaller.
        augmenter: None for scoring.
        seed: of the augmentation in this pass.
    """

    pixels: Rows
    rows: NDArray[np.int64]
    size: int
    augmenter: Augmenter | None = None
    seed: int = 0

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.size)

    def __getitem__(self, number: int) -> Item:
        """Pixels (n, H, W, 3) uint8 and their rows (n,) int64."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        rows = self.rows[number * self.size : (number + 1) * self.size]
        pixels = self.pixels.take(rows)
        if self.augmenter is not None:
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
            pixels = self.augmenter(pixels, seed)
        return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(rows)


def load(batches: Batches, workers: int, pin: bool = False) -> Iterator[Item]:
    """Iterates over batches, prepared in `workers` processes ahead of use (0: in this one).

    Args:
        batches: what to load.
        workers: processes; on a CPU the network itself uses every core, so 0 is fastest there.
        pin: page-locked memory, for copies to a GPU that overlap with its work.
    """
    loader = DataLoader(
        batches, batch_size=None, shuffle=False, num_workers=workers, pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    yield from loader

"""An ensemble's answers for held-out photos, as its scores count them; only this module handles their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.files import atomic
from orchestrator.core.labels import TASKS, columns_of, compose

__all__ = ["ScoredAnswers"]

PHOTOS = ["path", "person", "fold"]


@dataclass(frozen=True, eq=False)
class ScoredAnswers:
    """Answers for N held-out photos, and the truth.

    Attributes:
        photos: table with `path`, `person` and `fold`, the fold that holds the person out.
        truth: task -> true class codes, shape (N,), integers.
        choice: task -> class codes that were answered, shape (N,), integers.
        shares: task -> support for each class, shape (N, C), 0..1.
        prefixes: task -> prefix of the columns of its `shares`: `p` for probabilities, `share` for shares of votes.
    """

    photos: pd.DataFrame
    truth: Mapping[str, NDArray[np.integer[Any]]]
    choice: Mapping[str, NDArray[np.integer[Any]]]
    shares: Mapping[str, NDArray[np.floating[Any]]]
    prefixes: Mapping[str, str]

    @property
    def true_label(self) -> NDArray[np.int64]:
        """The true 18-way labels, shape (N,)."""
        return compose(*(self.truth[task] for task in TASKS))

    @property
    def label(self) -> NDArray[np.int64]:
        """The 18-way labels that were answered, shape (N,)."""
        return compose(*(self.choice[task] for task in TASKS))

    def write(self, path: Path) -> None:
        """Writes the table: the photos, and for each task its truth, its answer and a column per class; then the label."""
        table = self.photos[PHOTOS].copy()
        for task in TASKS:
            table[f"{task}_truth"], table[task] = self.truth[task], self.choice[task]
            for code, column in enumerate(columns_of(task, self.prefixes[task])):
                table[column] = self.shares[task][:, code].astype(np.float32)
        table["label"] = self.label
        with atomic(path) as temporary:
            table.to_parquet(temporary, index=False)

    @classmethod
    def read(cls, path: Path, prefixes: Mapping[str, str]) -> ScoredAnswers:
        """Reads a table that `write` wrote; the caller has checked its hash."""
        table = pd.read_parquet(path)
        truth = {task: table[f"{task}_truth"].to_numpy() for task in TASKS}
        choice = {task: table[task].to_numpy() for task in TASKS}
        shares = {task: table[columns_of(task, prefixes[task])].to_numpy() for task in TASKS}
        return cls(table[PHOTOS], truth, choice, shares, prefixes)

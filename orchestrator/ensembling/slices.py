"""Slices: how often answers are right for some photos alone, such as old people with a mask; the worst first, none left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.interval import Interval, share_interval
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.core.metrics import macro_f1

__all__ = ["GROUPINGS", "Slice", "slices_of"]

GROUPINGS: tuple[tuple[str, ...], ...] = (("mask",), ("gender",), ("age",), ("gender", "age", "mask"))
"""What photos are divided by: their true classes, each alone and all together."""


@dataclass(frozen=True)
class Slice:
    """How often one task is answered rightly for some photos.

    Attributes:
        task: the task.
        by: what the photos have in common: name of a class or column -> value; empty for all photos.
        photos: number of photos.
        people: number of people on these.
        accuracy: share of right answers, 0..1.
        interval: its 95 % interval, as if every person were one draw: a person's photos are mostly right or wrong together.
        macro_f1: macro F1 of the task, if all its classes are among the photos; None otherwise.
    """

    task: str
    by: Mapping[str, str]
    photos: int
    people: int
    accuracy: float
    interval: Interval
    macro_f1: float | None

    @property
    def name(self) -> str:
        """In words: `female, >=60, wear`; a further column is named, `race=Asian`."""
        parts = [value if name in CLASSES else f"{name}={value}" for name, value in self.by.items()]
        return ", ".join(parts) or "all photos"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "task": self.task, "by": dict(self.by), "photos": self.photos, "people": self.people, "accuracy": self.accuracy,
            "interval_95": self.interval.as_list(), "macro_f1": self.macro_f1,
        }  # fmt: skip


def slices_of(
    persons: pd.Series[str],
    truth: Mapping[str, NDArray[Any]],
    choice: Mapping[str, NDArray[Any]],
    columns: Mapping[str, Sequence[str]] | None = None,
) -> list[Slice]:
    """Every slice of every task, the lowest accuracy first; of equals the one with more photos.

    Args:
        persons: the person of each photo, shape (N,).
        truth: task -> true class codes, shape (N,), for the tasks whose truth is known.
        choice: task -> answered class codes, shape (N,), for these tasks at least.
        columns: name of a further column -> its value for each photo, shape (N,).
    """
    known = [task for task in TASKS if task in truth]
    values = {task: np.array(CLASSES[task], object)[truth[task]] for task in known}
    values |= {name: np.array([str(value) for value in column], object) for name, column in (columns or {}).items()}
    groupings = [names for names in GROUPINGS if set(names) <= set(known)] + [(name,) for name in columns or {}]
    table = pd.DataFrame({"person": persons.to_numpy(), **values})
    people = int(persons.nunique())
    slices = [_slice(task, {}, people, truth[task], choice[task]) for task in known]
    for names in groupings:
        for key, rows in table.groupby(list(names), sort=True).indices.items():
            parts = key if isinstance(key, tuple) else (key,)
            people = table["person"].iloc[rows].nunique()
            by = dict(zip(names, map(str, parts), strict=True))
            slices += [_slice(task, by, people, truth[task][rows], choice[task][rows]) for task in known]
    return sorted(slices, key=lambda part: (part.accuracy, -part.photos))


def _slice(task: str, by: Mapping[str, str], people: int, truth: NDArray[Any], answered: NDArray[Any]) -> Slice:
    accuracy, classes = float((truth == answered).mean()), len(CLASSES[task])
    f1 = macro_f1(truth, answered, classes) if len(np.unique(truth)) == classes else None
    return Slice(task, by, len(truth), people, accuracy, share_interval(accuracy, people), f1)

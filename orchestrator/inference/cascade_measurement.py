"""Measuring an ensemble's cascade, for a given rate, on photos that no member has seen; saved with the ensemble."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import CASCADE
from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combiner
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, LeakError, Problem
from orchestrator.core.interval import share_interval
from orchestrator.core.labels import LABELS
from orchestrator.core.metrics import macro_f1
from orchestrator.core.sealed import after_setting_aside, damaged_error, read_sealed, write_sealed
from orchestrator.data.hashes import HashCache
from orchestrator.inference.cascade import Cascade, Point, calibrate
from orchestrator.inference.options import check_cascade, check_rate

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.core.interval import Interval
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.reader import ReadResult

__all__ = [
    "Measured",
    "SavedCascade",
    "check_measurable",
    "check_unseen",
    "measure_cascade",
    "read_cascade",
    "save_cascade",
]

KIND = "cascade"
CASCADE_FORMAT = 3
BATCH = 64


@dataclass(frozen=True)
class Measured:
    """A cascade with the curve that it was chosen from.

    Attributes:
        chosen: the chosen point.
        curve: the exact cascade first, then points of decreasing confidence.
        photos: number of photos that it was measured on.
        macro_f1: macro F1 of the full vote, and of each point of the curve; None without labels.
        interval: 95 % interval of the full vote's macro F1 over people; None without labels and people.
        combiner: the combiner whose votes were settled, as JSON values: for another one nothing was measured.
    """

    chosen: Point
    curve: Sequence[Point]
    photos: int
    macro_f1: tuple[float, Sequence[float]] | None
    interval: Interval | None
    combiner: Mapping[str, Any]

    @property
    def changed_at_most(self) -> float:
        """Upper end of the 95 % interval of the share of changed labels; 0 for the exact cascade."""
        return 0.0 if self.chosen is self.curve[0] else share_interval(self.chosen.changed, self.photos).high

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        points = [{"asked": point.asked, "changed": point.changed} for point in self.curve]
        if self.macro_f1 is not None:
            points = [{**point, "macro_f1": value} for point, value in zip(points, self.macro_f1[1], strict=True)]
        return {
            "photos": self.photos, "combiner": dict(self.combiner), "cascade": self.chosen.cascade.as_dict(),
            "asked": self.chosen.asked, "changed": self.chosen.changed,
            "changed_at_most_95": self.changed_at_most, "curve": points,
            "full_macro_f1": None if self.macro_f1 is None else self.macro_f1[0],
            "full_macro_f1_interval_95": None if self.interval is None else [self.interval.low, self.interval.high],
        }  # fmt: skip


@dataclass(frozen=True)
class SavedCascade:
    """A saved cascade.

    Attributes:
        cascade: the rule that settles votes.
        photos: how many photos it was measured on.
        changed: share of their labels that it changed.
        changed_at_most: upper end of that share's 95 % interval.
    """

    cascade: Cascade
    photos: int
    changed: float
    changed_at_most: float


def check_measurable(record: EnsembleRecord, rate: float, photos: int) -> None:
    """Rejects ensembles and rates for which no cascade can be measured; loads no member.

    Args:
        record: the ensemble's record.
        rate: share of labels that may change, 0..1.
        photos: number of photos to measure on.

    Raises:
        ConfigError: members that a cascade cannot ask, a vote that does not average, a rate outside 0..1, or too few
            photos for it.
    """
    check_cascade(record.runs, record.external)
    if not record.read_combiner().averages:
        exact = orch("predict", "PHOTOS", "--cascade", workspace=record.root)
        raise ConfigError(
            f"a measured cascade is for votes that average (soft). For a {record.strategy.title}, `{exact}` stops where the rest "
            "cannot change the answer, as far as the vote can tell."
        )
    check_rate(rate, photos)


def check_unseen(paths: Sequence[Path], trained_on: Set[str]) -> None:
    """Refuses photos that members have trained on.

    Args:
        paths: the photos.
        trained_on: the hashes of the files that members were trained on.

    Raises:
        LeakError: photos that were trained on; all are named.
    """
    leaks = [path for path, digest in zip(paths, HashCache(None).hashes(paths), strict=True) if digest in trained_on]
    if leaks:
        raise LeakError(
            f"{len(leaks)} of {len(paths)} photos were trained on: members agree on them more than on new ones. "
            "Give photos of other people.",
            [Problem(str(path), "is a training photo of this ensemble.") for path in leaks],
        )


def measure_cascade(
    predictor: Predictor,
    paths: Sequence[Path],
    rate: float,
    done: Callable[[int, int], None],
    truth: NDArray[np.int64] | None = None,
    persons: pd.Series[str] | None = None,
    already_read: Sequence[ReadResult] = (),
) -> Measured:
    """Asks every member about photos that none has seen, and chooses a cascade for a rate of changed labels.

    Args:
        predictor: the ensemble, accepted by `check_measurable`.
        paths: the photos, accepted by `check_unseen`.
        rate: share of labels that may change, 0..1.
        done: called with (photos done, photos in all).
        truth: 18-way labels, shape (N,), where they are known.
        persons: the person of each photo, shape (N,), where they are known.
        already_read: results of reading the first photos, which are not read again.

    Raises:
        ConfigError: too few photos for the rate.
        DataError: photos that cannot be read.
    """
    parts: list[Answers] = []
    for batch in predictor.predict(paths, batch=BATCH, already_read=already_read):
        assert batch.answers is not None  # a photo that cannot be read is an error here
        parts.append(batch.answers)
        done(sum(map(len, parts)), len(paths))
    combiner = predictor.combiner.as_dict()
    chosen, curve = calibrate(Answers.stacked(parts), predictor.combiner, rate)
    if truth is None:
        return Measured(chosen, curve, len(paths), None, None, combiner)
    from orchestrator.ensembling.intervals import intervals

    full = curve[0].label  # of the exact cascade, equal to the full vote's
    scores = [macro_f1(truth, point.label, len(LABELS)) for point in curve]
    interval = None if persons is None else intervals(persons, truth, full, len(LABELS))["macro_f1"]
    return Measured(chosen, curve, len(paths), (macro_f1(truth, full, len(LABELS)), scores), interval, combiner)


def save_cascade(folder: Path, measured: Measured) -> Path:
    """Saves a cascade in its ensemble's folder, replacing an earlier one."""
    write_sealed(folder / CASCADE, KIND, folder.name, CASCADE_FORMAT, measured.as_dict())
    return folder / CASCADE


def read_cascade(folder: Path, combiner: Combiner) -> SavedCascade | None:
    """The ensemble's measured cascade; None if none was measured for this combiner, or if the combiner does not average, since
    its cascade is exact.

    Raises:
        DamagedError: the file is not the one that was written.
    """
    path = folder / CASCADE
    if not combiner.averages or not os.path.lexists(path):
        return None
    again = f"`{orch('cascade', 'PHOTOS', '--ensemble', folder.name, workspace=folder.parent)}` measures it again."
    way_out = after_setting_aside(path, again)
    value = read_sealed(path, KIND, folder.name, CASCADE_FORMAT, way_out)
    try:
        if value["combiner"] != combiner.as_dict():
            return None
        stored = value["cascade"]
        threshold = float("inf") if stored["sure"] is None else float(stored["sure"])
        cascade = Cascade(
            float(stored["rate"]), threshold, {task: float(stored["spread"][task]) for task in stored["spread"]}
        )
        return SavedCascade(cascade, int(value["photos"]), float(value["changed"]), float(value["changed_at_most_95"]))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise damaged_error(path, "not the shape of a cascade", way_out) from None

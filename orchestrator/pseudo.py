"""Pseudo-labels: what an ensemble is sure of on photos without labels, for its members' successors to learn from.

After Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method". Labels are made inside each fold: a
fold's labels come from the members that held this fold out, and only the member that will hold it out learns from them. So no
label comes from a network that has learnt from a person whom it helps to judge. (Which epoch of that network was kept was chosen
by these people's score, as in every training here.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.data.files import atomic
from orchestrator.ensemble.predictor import Predictor
from orchestrator.errors import ConfigError, DataError, Problem, counted, printable
from orchestrator.labels import CLASSES, JOINT, TASKS

__all__ = ["PseudoLabels", "pseudo_label", "write_labels"]


@dataclass(frozen=True)
class PseudoLabels:
    """Labels that an ensemble is sure of.

    Attributes:
        table: columns `path`, `fold`, `plan`, then `mask`, `gender`, `age` (words; empty where not sure enough) and `p(mask)` and
            so on, the probability of the likeliest class.
        photos: how many were answered for.
        failed: photos that could not be read, with the reason.
    """

    table: pd.DataFrame
    photos: int
    failed: list[tuple[Path, str]]

    @property
    def counts(self) -> dict[str, dict[str, float]]:
        """Task -> class -> how many labels a fold has of it, on the average."""
        folds = max(1, self.table["fold"].nunique())
        return {task: {name: int((self.table[task] == name).sum()) / folds for name in CLASSES[task]} for task in TASKS}


def pseudo_label(
    predictor: Predictor,
    record: Mapping[str, Any],
    paths: Sequence[Path],
    threshold: float,
    done: Callable[[int, int], None],
    skip_unreadable: bool = False,
) -> PseudoLabels:
    """Labels photos by each fold's members alone, where their mean probability reaches a threshold.

    Args:
        predictor: the ensemble's members.
        record: of the ensemble, which says whose fold each is.
        paths: photos, none of them trained on.
        threshold: 0.5 to 1; of a task's likeliest class.
        done: called with (photos done, photos in all).
        skip_unreadable: leave photos out that cannot be read, instead of raising.

    Raises:
        ConfigError: members without a fold or of several plans, or a threshold out of range.
        PhotoError: a photo cannot be read, and `skip_unreadable` is off.
        DataError: nothing is sure enough.
    """
    if not 0.5 <= threshold < 1:
        raise ConfigError(f"--threshold {threshold}; allowed: 0.5 up to, not including, 1.")
    unnamed = [
        Problem(str(path), "a table could not name it: its name is not UTF-8.", "Rename it.")
        for path in paths
        if printable(str(path)) != str(path)
    ]
    if unnamed:
        raise DataError(f"{counted(len(unnamed), 'photo')} cannot stand in a table of labels.", unnamed)
    folds = folds_of(record)
    plan = record.get("plan_digest")
    if plan is None or any(fold is None for own in folds.values() for fold in own):
        raise ConfigError(
            "pseudo-labels are made fold by fold, and this ensemble's members follow no single plan (--folds 0 or --no-score). "
            "Build a scored ensemble: orch ensemble --strategy soft."
        )
    if predictor.outside:
        raise ConfigError(
            "tables from elsewhere know no folds: name an ensemble without them by --ensemble (orch ensembles list), or build "
            "one without --with."
        )
    parts: list[pd.DataFrame] = []
    failed: list[tuple[Path, str]] = []
    for batch in predictor.predict(paths, skip_unreadable):
        failed += batch.failed
        if batch.fused is not None:
            answers = {task: list(vote.members) for task, vote in batch.fused.votes.items()}
            parts += [
                _of_fold(fold, batch.paths, answers, folds, threshold)
                for fold in sorted({int(one) for own in folds.values() for one in own if one is not None})
            ]
        done(sum(len(part) for part in parts) // max(1, len(set(folds[TASKS[0]]))) + len(failed), len(paths))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["path", "fold", *TASKS])
    table = table[(table[list(TASKS)] != "").any(axis=1)]
    if not len(table):
        raise DataError(f"no photo's class reaches {threshold:g}: lower --threshold, or train better members.")
    table.insert(2, "plan", str(plan)[:12])
    return PseudoLabels(table.sort_values(["path", "fold"], ignore_index=True), len(paths) - len(failed), failed)


def folds_of(record: Mapping[str, Any]) -> dict[str, list[int | None]]:
    """Task -> the fold of each of its members, in the order of their answers: specialists first, then joint networks."""
    members = record["members"]
    joint = [one["fold"] for one in members.get(JOINT, ())]
    return {task: [*(one["fold"] for one in members[task]), *joint] for task in TASKS}


def _of_fold(
    fold: int,
    paths: Sequence[Path],
    answers: Mapping[str, Sequence[NDArray[Any]]],
    folds: Mapping[str, Sequence[int | None]],
    threshold: float,
) -> pd.DataFrame:
    """What the members that hold a fold out say of some photos."""
    table: dict[str, Any] = {"path": [str(path.absolute()) for path in paths], "fold": fold}
    for task in TASKS:
        own = [answer for answer, its in zip(answers[task], folds[task], strict=True) if its == fold]
        mean = np.mean(own, axis=0) if own else np.zeros((len(paths), len(CLASSES[task])))
        sure, code = mean.max(axis=1), mean.argmax(axis=1)
        table[task] = np.where(sure >= threshold, np.array(CLASSES[task])[code], "")
        table[f"p({task})"] = sure.astype(np.float32)
    return pd.DataFrame(table)


def write_labels(labels: PseudoLabels, path: Path) -> None:
    """Writes the table: .csv or .parquet by its name.

    Raises:
        ConfigError: another ending.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {path}: a table is written; give a name that ends in .csv or .parquet.")
    with atomic(path) as temporary:
        if path.suffix == ".csv":
            labels.table.to_csv(temporary, index=False)
        else:
            labels.table.to_parquet(temporary, index=False)

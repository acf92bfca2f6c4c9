"""Pseudo-labels: an ensemble's confident answers for photos without labels, to train new members on.

After Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method". Labels are made inside each fold: a
fold's labels come from the members that held this fold out, and only the member that will hold it out learns from them. So no
label comes from a network that was trained on people whom the label helps to score. (The best epoch of that network
was chosen by these people's score, as in every training here.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, DataError, Problem, escape_non_utf8, quantity
from orchestrator.core.labels import CLASSES, TASKS, confidence_column
from orchestrator.core.outputs import Output, replace_output, suffix_of
from orchestrator.data.lines import write_rows

if TYPE_CHECKING:
    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.artifacts.run import PlanKey
    from orchestrator.combining.answers import Answers
    from orchestrator.combining.combiners import Combiner
    from orchestrator.inference.predictor import Predictor

__all__ = ["PseudoLabels", "check_labelling", "check_names", "pseudo_label", "write_labels"]


@dataclass(frozen=True)
class PseudoLabels:
    """Labels that an ensemble is sure of.

    Attributes:
        table: columns `path`, `fold`, `plan`, then `mask`, `gender`, `age` (words; empty where not sure enough) and `p(mask)` and
            so on, the probability of the likeliest class.
        photos: number of photos that were answered.
        failed: photos that could not be read, with the reason.
    """

    table: pd.DataFrame
    photos: int
    failed: list[tuple[Path, str]]

    @property
    def counts(self) -> dict[str, dict[str, float]]:
        """Task -> class -> mean number of its labels per fold."""
        folds = max(1, self.table["fold"].nunique())
        return {task: {name: int((self.table[task] == name).sum()) / folds for name in CLASSES[task]} for task in TASKS}


def check_labelling(record: EnsembleRecord, plans: Mapping[str, PlanKey | None]) -> None:
    """Rejects an ensemble whose members cannot label fold by fold; loads no member.

    Args:
        record: the ensemble's record.
        plans: run -> its fold plan, or None, for each run of the ensemble.

    Raises:
        ConfigError: members without a fold or of several plans, or external tables; with the commands that fix it.
    """
    runs, workspace = record.runs, record.root
    fuse = orch("ensemble", *record.strategy.options, workspace=workspace)
    cannot = "pseudo-labels are made fold by fold, which this ensemble does not allow"
    without = [run for chosen in runs.values() for run in chosen if plans[run] is None]
    if without:
        k = next((plan.k for plan in plans.values() if plan), 5)
        tasks = [task for task, chosen in runs.items() if set(chosen) & set(without)]
        again = [f"`{orch('train', task, '--data', 'DIR', '--folds', k, workspace=workspace)}`" for task in tasks]
        why = f"{', '.join(without)} learned from everybody (--folds 0)"
        raise ConfigError(f"{cannot}: {why}. Train by folds: {' and '.join(again)}; then `{fuse}`.")
    if len({plan.digest for plan in plans.values() if plan}) > 1:
        listed = orch("runs", "list", workspace=workspace)
        few = orch("ensemble", *record.strategy.options, "--members", "TASK=RUN", workspace=workspace)
        raise ConfigError(f"{cannot}: its runs follow several fold plans. Name runs of one plan (`{listed}`): `{few}`.")
    folds = {str(fold) for member in record.members if (fold := member.fold) is not None}
    if record.strategy.learns and folds - set(record.combiners_by_fold):
        soft = orch("ensemble", "--strategy", "soft", workspace=workspace)
        raise ConfigError(
            f"{cannot}: what {' '.join(record.strategy.options)} has learned comes from the only people who are held out. Vote "
            f"without learning: `{soft}`."
        )
    if record.external:
        members = [word for task, chosen in runs.items() for word in ("--members", f"{task}={','.join(chosen)}")]
        rebuild = orch("ensemble", *record.strategy.options, *members, workspace=workspace)
        raise ConfigError(f"external tables have no folds. Build an ensemble without them: `{rebuild}`.")


def check_names(paths: Sequence[Path]) -> None:
    """Refuses photos whose names no table can hold.

    Raises:
        DataError: names that are not UTF-8; all photos with one are listed.
    """
    unnamed = [
        Problem(str(path), "a table could not name it: its name is not UTF-8.", "Rename it.")
        for path in paths
        if escape_non_utf8(str(path)) != str(path)
    ]
    if unnamed:
        raise DataError(f"{quantity(len(unnamed), 'photo')} cannot be named in a table of labels.", unnamed)


def pseudo_label(
    predictor: Predictor,
    combiners: Mapping[int, Combiner],
    plan: str,
    paths: Sequence[Path],
    threshold: float,
    done: Callable[[int, int], None],
    skip_unreadable: bool = False,
) -> PseudoLabels:
    """Labels photos by each fold's members alone, where the probability of a class reaches a threshold.

    Args:
        predictor: the ensemble's members, accepted by `check_labelling`.
        combiners: fold -> what combines its members' answers, and has learned nothing from the fold's people; empty for an
            ensemble that does not learn.
        plan: digest of the fold plan.
        paths: photos, none of them trained on.
        threshold: least probability of a task's likeliest class, accepted by `check_threshold`.
        done: called with (photos done, photos in all).
        skip_unreadable: leave out photos that cannot be read, instead of raising.

    Raises:
        DataError: photos cannot be read, and `skip_unreadable` is off; or no class of any photo reaches the threshold.
    """
    folds = sorted({member.fold for member in predictor.members if member.fold is not None})
    parts: list[pd.DataFrame] = []
    failed: list[tuple[Path, str]] = []
    answered = 0
    for batch in predictor.predict(paths, skip_unreadable, way_out="--skip-unreadable leaves them out"):
        failed += [(paths[answered + number], why.reason) for number, why in batch.failed.items()]
        answered += len(batch)
        if batch.answers is not None:
            read = [path for path in batch.photos if isinstance(path, Path)]
            parts += [
                _of_fold(fold, read, batch.answers, combiners.get(fold, predictor.combiner), threshold)
                for fold in folds
            ]
        done(answered, len(paths))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["path", "fold", *TASKS])
    table = table[(table[list(TASKS)] != "").any(axis=1)]
    if not len(table):
        raise DataError(f"no photo's class reaches {threshold:g}: lower --threshold, or train better members.")
    table.insert(2, "plan", plan[:12])
    return PseudoLabels(table.sort_values(["path", "fold"], ignore_index=True), len(paths) - len(failed), failed)


def _of_fold(fold: int, paths: Sequence[Path], answers: Answers, combiner: Combiner, threshold: float) -> pd.DataFrame:
    """Labels of some photos by the members that hold a fold out."""
    table: dict[str, Any] = {"path": [str(path.absolute()) for path in paths], "fold": fold}
    of_fold = answers.where(lambda voter: voter.fold == fold)
    answered = combiner.answerable({voter.task for voter in of_fold.voters})
    probabilities = combiner.probabilities(of_fold.of(*answered))
    for task in TASKS:
        if task not in probabilities:  # a run that was trained over some of the folds
            table[task], table[confidence_column(task)] = "", 0.0
            continue
        confidence, code = probabilities[task].max(axis=1), probabilities[task].argmax(axis=1)
        table[task] = np.where(confidence >= threshold, np.array(CLASSES[task])[code], "")
        table[confidence_column(task)] = confidence.astype(np.float64).round(6)
    return pd.DataFrame(table)


def write_labels(labels: PseudoLabels, output: Output) -> None:
    """Writes the table, .csv or .parquet by its name's ending."""
    with replace_output(output.path) as temporary:
        if suffix_of(output) == ".csv":
            write_rows(temporary, labels.table, labels.table.itertuples(index=False))
        else:
            with temporary.open("wb") as file:  # by a name, pyarrow takes UTF-8 alone
                labels.table.to_parquet(file, index=False)

"""Comparison of runs of one specialist: settings, scores per class, and whether they differ clearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.differences import settings_of
from orchestrator.artifacts.held_out import HeldOut, held_out_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.epochs import History
from orchestrator.core.errors import ConfigError
from orchestrator.core.interval import Difference, Verdict
from orchestrator.core.metrics import Scores, log_losses, score
from orchestrator.ensembling.intervals import difference, mean_difference
from orchestrator.specialist import Specialist

__all__ = ["Compared", "Comparison", "compare_runs", "mean_curve"]


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        run: its record.
        held_out: number of photos that it has held out, compared or not.
        scores: out of fold, on the photos that all runs of the comparison have held out.
        log_loss: mean negative log probability of the true class, which changes long before answers do.
        gain: difference in macro F1 from the first run, with its 95 % interval over people; None for the first.
        log_loss_change: difference in log loss from the first run, likewise; below 0 is better.
        curves: member -> its trained epochs.
    """

    run: RunRecord
    held_out: int
    scores: Scores
    log_loss: float
    gain: Difference | None
    log_loss_change: Difference | None
    curves: dict[str, History]

    @property
    def verdict(self) -> Verdict | None:
        """What the difference from the first run says; None for the first."""
        return None if self.gain is None else self.gain.verdict

    @property
    def log_loss_verdict(self) -> Verdict | None:
        """The same for the log loss: `better` if the true classes got more probability."""
        return None if self.log_loss_change is None else (-self.log_loss_change).verdict


@dataclass(frozen=True)
class Comparison:
    """Runs of one specialist side by side, for the same people.

    Attributes:
        classes: class names.
        photos: number of photos held out by all runs.
        people: number of people on these photos.
        relabelled: number of further photos, left out because the runs disagree on their person or true class.
        differing: setting -> its value in each run, for settings that are not the same in all.
        runs: the runs, in the requested order.
    """

    classes: tuple[str, ...]
    photos: int
    people: int
    relabelled: int
    differing: dict[str, list[Any]]
    runs: list[Compared]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos, "people": self.people, "relabelled": self.relabelled, "differing": self.differing,
            "runs": [
                {
                    "run": compared.run.id, "held_out_photos": compared.held_out,
                    "macro_f1": compared.scores.macro_f1, "accuracy": compared.scores.accuracy,
                    "classes": dict(zip(self.classes, map(float, compared.scores.f1), strict=True)),
                    "gain": compared.gain and compared.gain.value,
                    "gain_interval_95": compared.gain and compared.gain.interval.as_list(),
                    "probability_better": compared.gain and compared.gain.probability,
                    "verdict": compared.verdict, "log_loss": compared.log_loss,
                    "log_loss_change": compared.log_loss_change and compared.log_loss_change.value,
                    "log_loss_change_interval_95": compared.log_loss_change
                    and compared.log_loss_change.interval.as_list(),
                    "log_loss_verdict": compared.log_loss_verdict,
                }
                for compared in self.runs
            ],
        }  # fmt: skip


def compare_runs(workspace: Workspace, runs: Sequence[RunRecord], specialist: Specialist) -> Comparison:
    """Compares complete runs of one specialist on the photos that all of them have held out.

    Args:
        workspace: the workspace of the runs.
        runs: two or more; the others are compared with the first.
        specialist: the specialist of all of them.

    Raises:
        ConfigError: the runs have held out no photo in common with the same person and true class.
        WorkspaceError: a held-out table is missing or damaged.
        LeakError: a table judges people that its member may have seen.
    """
    all_held_out = {run.id: held_out_of(workspace, run) for run in runs}
    held_out, common = _on_common_photos(all_held_out, {run.id: run.covers for run in runs})
    settings = [settings_of(run) for run in runs]
    differing = {
        key: [values.get(key) for values in settings]  # None: a run of another version lacks the setting
        for key in dict.fromkeys(key for values in settings for key in values)
        if any(values.get(key) != settings[0].get(key) for values in settings)
    }
    first = held_out[runs[0].id].photos
    return Comparison(
        specialist.classes, len(first), first["person"].nunique(), common - len(first), differing,
        _scored(runs, held_out, {name: len(answered.photos) for name, answered in all_held_out.items()}, len(specialist.classes)),
    )  # fmt: skip


def _on_common_photos(
    held_out_by_run: Mapping[str, HeldOut], covers: Mapping[str, str]
) -> tuple[dict[str, HeldOut], int]:
    """Each run's answers for the photos that all have held out with the same person and true class, in one order.

    Args:
        held_out_by_run: run -> its answers for all photos that it has held out.
        covers: run -> which people these are, in words.

    Returns:
        Run -> its answers, and the number of photos held out by all, whatever their person and class.

    Raises:
        ConfigError: there is no such photo.
    """
    names = ", ".join(held_out_by_run)
    common = sorted(set.intersection(*(set(held_out.photos["path"]) for held_out in held_out_by_run.values())))
    if not common:
        whom = "; ".join(f"{name} held out {people}" for name, people in covers.items())
        raise ConfigError(f"{names}: no photo was held out by all of them: nothing can be compared ({whom}).")
    shared = [
        held_out.take(pd.Index(held_out.photos["path"]).get_indexer(common)) for held_out in held_out_by_run.values()
    ]
    first = shared[0]
    agreed = np.logical_and.reduce(
        [
            (held_out.photos["person"].astype(str) == first.photos["person"].astype(str)).to_numpy()
            & (held_out.truth == first.truth)
            for held_out in shared
        ]
    )
    if not agreed.any():
        raise ConfigError(
            f"{names}: of {len(common)} photos held out by all, none has the same person and true "
            "class in all: these runs were trained on different data."
        )
    return dict(zip(held_out_by_run, (held_out.take(agreed) for held_out in shared), strict=True)), len(common)


def _scored(
    runs: Sequence[RunRecord], held_out: Mapping[str, HeldOut], photos: Mapping[str, int], classes: int
) -> list[Compared]:
    """Each run's scores on the same photos, and its differences from the first run."""
    base = runs[0].id
    truth, people = held_out[base].truth, held_out[base].photos["person"]
    answers = {name: answered.choice for name, answered in held_out.items()}
    losses = {name: log_losses(truth, answered.probabilities) for name, answered in held_out.items()}
    return [
        Compared(
            run, photos[run.id], score(truth, answers[run.id], classes), float(losses[run.id].mean()),
            None if run.id == base else difference(people, truth, answers[base], answers[run.id], classes),
            None if run.id == base else mean_difference(people, losses[base], losses[run.id]), _curves(run),
        )
        for run in runs
    ]  # fmt: skip


def _curves(run: RunRecord) -> dict[str, History]:
    """Name of each member's folder, as `fold-0` -> its history."""
    return {folder.name: history_of(folder) for folder in run.members}


def mean_curve(curves: dict[str, History], key: str) -> tuple[list[int], list[float]]:
    """A number of `NUMBERS` by epoch, averaged over the folds that have it."""
    by_epoch: dict[int, list[float]] = {}
    for history in curves.values():
        for epoch in history:
            if key in epoch.numbers:
                by_epoch.setdefault(epoch.number, []).append(epoch.numbers[key])
    epochs = sorted(by_epoch)
    return epochs, [float(np.mean(by_epoch[epoch])) for epoch in epochs]

"""The gain of one run or ensemble over another on the same people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import OUT_OF_FOLD, EnsembleRecord
from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.scored_answers import ScoredAnswers
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import ConfigError, DamagedError, OrchestratorError
from orchestrator.core.interval import VERDICTS, Difference
from orchestrator.core.labels import CLASSES, LABELS, TASKS
from orchestrator.core.metrics import macro_f1
from orchestrator.ensembling.intervals import difference

__all__ = ["ComparedEnsemble", "EnsembleComparison", "Gain", "compare_ensembles", "ensemble_gain", "paired_gain"]

SIZES = {**{task: len(CLASSES[task]) for task in TASKS}, "label": len(LABELS)}
"""Task, or `label` -> number of classes."""


@dataclass(frozen=True)
class Gain:
    """The gain of one run or ensemble over another on the same people.

    Attributes:
        difference: macro F1 of the second minus that of the first.
        people: number of people whom both judged out of fold.
        before: macro F1 of the first on these people.
        after: macro F1 of the second on these people.
    """

    difference: Difference
    people: int
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"macro F1 {self.after:.4f} against {self.before:.4f} on the same {self.people:,} people, {self.difference}: "
            f"{VERDICTS[self.difference.verdict]}"
        )


def paired_gain(workspace: Workspace, before: RunRecord, after: RunRecord) -> Gain | str:
    """Gain of one run over another on the photos that both held out with the same truth; or why there is none."""
    tables = []
    for run in (before, after):
        try:
            held_out = held_out_of(workspace, run)
        except OrchestratorError as error:
            return error.message
        tables.append(held_out.photos.assign(truth=held_out.truth, answer=held_out.choice))
    gain = _gain(tables[0], tables[1], len(CLASSES[before.task]))
    return f"{before.id} and {after.id} have held out no photo in common" if gain is None else gain


def ensemble_gain(before: EnsembleRecord, after: EnsembleRecord) -> Gain | str:
    """Gain of one ensemble's labels over another's for the same photos; or why there is none."""
    tables = []
    for record in (before, after):
        if record.evaluation is None:
            return f"{record.id} has no score"
        try:
            scored = ScoredAnswers.read(record.file(OUT_OF_FOLD), record.read_combiner().prefixes)
        except DamagedError as error:
            return error.fact
        tables.append(scored.photos.assign(truth=scored.true_label, answer=scored.label))
    gain = _gain(tables[0], tables[1], len(LABELS))
    return f"{before.id} and {after.id} were scored on no photo in common" if gain is None else gain


@dataclass(frozen=True)
class ComparedEnsemble:
    """One ensemble of a comparison.

    Attributes:
        record: its record.
        held_out: number of photos that it was scored on, compared or not.
        macro_f1: task, or `label` -> macro F1 on the photos of the comparison.
        gains: the same -> difference from the first ensemble; empty for the first.
    """

    record: EnsembleRecord
    held_out: int
    macro_f1: Mapping[str, float]
    gains: Mapping[str, Difference]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        gains = {
            name: {
                "gain": gain.value, "gain_interval_95": gain.interval.as_list(), "probability_better": gain.probability,
                "verdict": gain.verdict,
            }
            for name, gain in self.gains.items()
        }  # fmt: skip
        return {
            "ensemble": self.record.id,
            "held_out_photos": self.held_out,
            "macro_f1": dict(self.macro_f1),
            "over_first": gains,
        }


@dataclass(frozen=True)
class EnsembleComparison:
    """Ensembles side by side, on the photos that all of them were scored on.

    Attributes:
        photos: number of photos.
        people: number of people on these.
        relabelled: number of further photos, left out because the ensembles' data disagree on their person or truth.
        ensembles: the ensembles, in the requested order.
    """

    photos: int
    people: int
    relabelled: int
    ensembles: tuple[ComparedEnsemble, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {"photos": self.photos, "people": self.people, "relabelled": self.relabelled}
        return {**counts, "ensembles": [compared.as_dict() for compared in self.ensembles]}


def compare_ensembles(records: Sequence[EnsembleRecord]) -> EnsembleComparison:
    """Compares ensembles over the same people, each with the first; their strategies and members may differ in any way.

    Args:
        records: two ensembles or more, all with scores.

    Raises:
        ConfigError: an ensemble has no score, or no photo was scored by all with the same person and truth.
        DamagedError: a table of answers is missing or damaged.
    """
    tables = [_answers_of(record) for record in records]
    common = sorted(set.intersection(*(set(table.index) for table in tables)))
    aligned = [table.loc[common] for table in tables]
    agreed = np.logical_and.reduce(
        [(table[column] == aligned[0][column]).to_numpy() for table in aligned for column in ("person", "label")]
    )
    if not agreed.any():
        names = ", ".join(record.id for record in records)
        raise ConfigError(f"{names}: no photo was scored by all of them with the same person and truth.")
    first, *others = (table[agreed] for table in aligned)
    compared = [ComparedEnsemble(records[0], len(tables[0]), _macro_f1_of(first), {})]
    for record, table, whole in zip(records[1:], others, tables[1:], strict=True):
        gains = {name: difference(first["person"], *(_codes(name, first, table)), size) for name, size in SIZES.items()}
        compared.append(ComparedEnsemble(record, len(whole), _macro_f1_of(table), gains))
    return EnsembleComparison(len(first), first["person"].nunique(), len(common) - int(agreed.sum()), tuple(compared))


def _answers_of(record: EnsembleRecord) -> pd.DataFrame:
    """An ensemble's scored photos by path: person, the truth of each task and of the label, and the answers beside it."""
    if record.evaluation is None:
        raise ConfigError(f"{record.id} has no score: {record.why_no_score}")
    scored = ScoredAnswers.read(record.file(OUT_OF_FOLD, record.rebuild_advice()), record.read_combiner().prefixes)
    answers = {f"{name} answer": codes for name, codes in {**scored.choice, "label": scored.label}.items()}
    return scored.photos.assign(**scored.truth, label=scored.true_label, **answers).set_index("path")


def _codes(name: str, first: pd.DataFrame, second: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The truth of a task or of the label, and what two ensembles answered."""
    return first[name].to_numpy(), first[f"{name} answer"].to_numpy(), second[f"{name} answer"].to_numpy()


def _macro_f1_of(table: pd.DataFrame) -> dict[str, float]:
    return {
        name: macro_f1(table[name].to_numpy(), table[f"{name} answer"].to_numpy(), size) for name, size in SIZES.items()
    }


def _gain(before: pd.DataFrame, after: pd.DataFrame, classes: int) -> Gain | None:
    """Gain between tables with columns path, person, truth, answer, over the photos equal in the first three."""
    columns = ["path", "person", "truth"]
    same = before[[*columns, "answer"]].merge(after[[*columns, "answer"]], on=columns, suffixes=("_before", "_after"))
    if same.empty:
        return None
    truth, first, second = (same[name].to_numpy() for name in ("truth", "answer_before", "answer_after"))
    scores = macro_f1(truth, first, classes), macro_f1(truth, second, classes)
    return Gain(difference(same["person"], truth, first, second, classes), int(same["person"].nunique()), *scores)

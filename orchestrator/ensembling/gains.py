"""The gain of one run or ensemble over another on the same people."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from orchestrator.artifacts.ensembles import OUT_OF_FOLD, EnsembleRecord
from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.scored_answers import ScoredAnswers
from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining import STRATEGIES
from orchestrator.core.errors import DamagedError, OrchestratorError
from orchestrator.core.interval import VERDICTS, Difference
from orchestrator.core.labels import CLASSES, LABELS
from orchestrator.core.metrics import macro_f1
from orchestrator.ensembling.intervals import difference

__all__ = ["Gain", "ensemble_gain", "paired_gain"]


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
            scored = ScoredAnswers.read(record.file(OUT_OF_FOLD), STRATEGIES[record.strategy].prefix)
        except DamagedError as error:
            return error.fact
        tables.append(scored.photos.assign(truth=scored.true_label, answer=scored.label))
    gain = _gain(tables[0], tables[1], len(LABELS))
    return f"{before.id} and {after.id} were scored on no photo in common" if gain is None else gain


def _gain(before: pd.DataFrame, after: pd.DataFrame, classes: int) -> Gain | None:
    """Gain between tables with columns path, person, truth, answer, over the photos equal in the first three."""
    columns = ["path", "person", "truth"]
    same = before[[*columns, "answer"]].merge(after[[*columns, "answer"]], on=columns, suffixes=("_before", "_after"))
    if same.empty:
        return None
    truth, first, second = (same[name].to_numpy() for name in ("truth", "answer_before", "answer_after"))
    scores = macro_f1(truth, first, classes), macro_f1(truth, second, classes)
    return Gain(difference(same["person"], truth, first, second, classes), int(same["person"].nunique()), *scores)

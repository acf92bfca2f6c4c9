"""A run's held-out answers, read in one place and with one strictness, and two runs' scores over the same people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.data.sealed import check_file
from orchestrator.errors import ConfigError, DamagedError, OrchestratorError
from orchestrator.evaluation.intervals import Interval, difference
from orchestrator.evaluation.out_of_fold import read_held_out
from orchestrator.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.metrics import macro_f1
from orchestrator.records.members import check_member
from orchestrator.records.origins import plan_of
from orchestrator.records.run import RunRecord
from orchestrator.records.workspace import OUT_OF_FOLD, Workspace
from orchestrator.training.cards import HELD_OUT

__all__ = ["Gain", "answers_of", "ensemble_gain", "held_out_of", "paired_gain"]


def held_out_of(workspace: Workspace, run: RunRecord) -> pd.DataFrame:
    """A run's held-out table: the files that were written, every row checked against its plan.

    Returns:
        Columns `path`, `person`, `fold`, `truth` and one probability per class; sorted by path.

    Raises:
        ConfigError: the run holds nobody out, or is unfinished.
        DamagedError: a file of a member, or the plan, is missing or damaged.
        LeakError: a table judges people that its member may have seen.
    """
    if run.plan is None or not run.complete:
        why = "was trained on everything" if run.plan is None else "is unfinished"
        raise ConfigError(f"{run.id} {why}: it has no out-of-fold answers to compare.")
    plan = plan_of(workspace, run)
    for fold in run.folds:
        check_member(run, fold)
    return read_held_out(run.task, run.id, [folder / HELD_OUT for folder in run.members], plan)


def answers_of(table: pd.DataFrame, task: str) -> np.ndarray:
    """The class of each row of a held-out table, shape (N,), int64."""
    return np.asarray(table[[f"p({name})" for name in CLASSES[task]]].to_numpy().argmax(axis=1))


@dataclass(frozen=True)
class Gain:
    """How much better one thing is than another over the same people.

    Attributes:
        macro_f1: of the other less that of the first.
        interval: of it, 95 %, over people.
        people: that both judged out of fold.
        before: macro F1 of the first on them.
        after: macro F1 of the other on them.
    """

    macro_f1: float
    interval: Interval
    people: int
    before: float
    after: float

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart"
        return (
            f"macro F1 {self.after:.4f} against {self.before:.4f} on the same {self.people:,} people, {self.macro_f1:+.4f} "
            f"({low:+.4f} to {high:+.4f}): {verdict}"
        )


def paired_gain(workspace: Workspace, before: RunRecord, after: RunRecord) -> Gain | str:
    """How much better a run is than another on the photos that both held out with the same truth; or why nobody can say."""
    try:
        tables = [held_out_of(workspace, run) for run in (before, after)]
    except OrchestratorError as error:
        return error.message
    tables = [table.assign(answer=answers_of(table, before.task)) for table in tables]
    found = _gain(tables[0], tables[1], len(CLASSES[before.task]))
    return f"{before.id} and {after.id} have held out no photo in common" if found is None else found


def ensemble_gain(workspace: Workspace, before: Mapping[str, Any], after: Mapping[str, Any]) -> Gain | str:
    """How much better an ensemble's labels are than another's for the same photos; or why nobody can say.

    Args:
        workspace: of both.
        before: an ensemble's record.
        after: another's.
    """
    tables = []
    for record in (before, after):
        if record["evaluation"] is None:
            return f"{record['id']} has no score"
        path = workspace.root / record["id"] / OUT_OF_FOLD
        try:
            check_file(path, record["files"][OUT_OF_FOLD], "")
        except DamagedError as error:
            return error.fact
        table = pd.read_parquet(path)
        truth = compose(*(table[f"{task}_truth"].to_numpy() for task in TASKS))
        tables.append(table.assign(truth=truth, answer=table["label"]))
    found = _gain(tables[0], tables[1], len(LABELS))
    return f"{before['id']} and {after['id']} were scored on no photo in common" if found is None else found


def _gain(before: pd.DataFrame, after: pd.DataFrame, classes: int) -> Gain | None:
    """Of tables with the columns path, person, truth and answer, over the photos in which the first three agree."""
    columns = ["path", "person", "truth"]
    same = before[[*columns, "answer"]].merge(after[[*columns, "answer"]], on=columns, suffixes=("_before", "_after"))
    if same.empty:
        return None
    truth, first, second = (same[name].to_numpy() for name in ("truth", "answer_before", "answer_after"))
    value, span = difference(same["person"], truth, first, second, classes)
    scores = macro_f1(truth, first, classes), macro_f1(truth, second, classes)
    return Gain(value, span, int(same["person"].nunique()), *scores)

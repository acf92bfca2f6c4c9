"""A run's held-out answers, read in one place and with one strictness, and two runs' scores over the same people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.evaluation.intervals import Interval, difference
from orchestrator.evaluation.out_of_fold import read_held_out
from orchestrator.labels import CLASSES
from orchestrator.metrics import macro_f1
from orchestrator.records.members import check_member
from orchestrator.records.origins import plan_of
from orchestrator.records.run import RunRecord
from orchestrator.records.workspace import Workspace
from orchestrator.training.cards import HELD_OUT

__all__ = ["Gain", "answers_of", "gain_of", "held_out_of", "paired_gain"]


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


def gain_of(persons: pd.Series[str], truth: np.ndarray, before: np.ndarray, after: np.ndarray, classes: int) -> Gain:
    """The gain of some answers over others for the same photos; arrays of codes, shape (N,)."""
    value, span = difference(persons, truth, before, after, classes)
    scores = macro_f1(truth, before, classes), macro_f1(truth, after, classes)
    return Gain(value, span, int(persons.nunique()), *scores)


def paired_gain(workspace: Workspace, before: RunRecord, after: RunRecord) -> Gain | str:
    """How much better a run is than another on the photos that both held out with the same truth; or why nobody can say."""
    try:
        one, other = (held_out_of(workspace, run).set_index("path", drop=False) for run in (before, after))
    except OrchestratorError as error:
        return error.message
    same = one.merge(other, left_index=True, right_index=True, suffixes=("_before", "_after"))
    same = same[(same["truth_before"] == same["truth_after"]) & (same["person_before"] == same["person_after"])]
    if same.empty:
        return f"{before.id} and {after.id} have held out no photo in common"
    one, other = one.loc[same.index], other.loc[same.index]
    first, second = (answers_of(table, before.task) for table in (one, other))
    return gain_of(one["person"], one["truth"].to_numpy(), first, second, len(CLASSES[before.task]))

"""Out-of-fold evaluation: every photo judged by the members that did not see its person, and by them alone.

A run's held-out tables are joined here, checked against the fold plan row by row; a member that judged a person outside
its fold, a person twice, or tables of different plans raise an error instead of a score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.data.folds import FoldPlan
from orchestrator.ensemble.outside import OutsideTable
from orchestrator.ensemble.voting import STRATEGIES, Strategy, Vote, vote
from orchestrator.errors import LeakError, PlanError, Problem, WorkspaceError
from orchestrator.evaluation.intervals import Interval, difference, intervals
from orchestrator.labels import CLASSES, JOINT, LABELS, TASKS, compose, decompose, marginals
from orchestrator.metrics import Scores, score

__all__ = [
    "Evaluation", "OutOfFold", "added_by", "by_tasks", "evaluate", "join_outside", "join_runs", "join_tasks", "read_held_out",
]  # fmt: skip


@dataclass(frozen=True)
class OutOfFold:
    """Probabilities of one specialist for held-out photos.

    Attributes:
        task: the specialist.
        table: columns `path`, `person`, `fold`, `truth`; sorted by path.
        members: one array (N, C) per run: for each photo the answer of that run's member that did not see the person; then one
            per outside table, with rows of zeros where it abstains.
        outside: names of the outside tables.
    """

    task: str
    table: pd.DataFrame
    members: tuple[NDArray[np.float32], ...]
    outside: tuple[str, ...] = ()

    @property
    def sureness(self) -> float:
        """What members give to the class of their choice, on the average over held-out photos."""
        return float(np.mean([answers.max(axis=1) for answers in self.members]))


@dataclass(frozen=True)
class Evaluation:
    """Scores of one task or of the 18-way label, with intervals over people."""

    scores: Scores
    intervals: Mapping[str, Interval]
    people: int

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For JSON."""
        spans = {name: [span.low, span.high] for name, span in self.intervals.items()}
        return {
            "kind": "out-of-fold",
            "people": self.people,
            **self.scores.as_dict(names),
            "interval_95": spans,
        }


def read_held_out(task: str, run: str, files: Sequence[Path], plan: FoldPlan) -> pd.DataFrame:
    """One run's held-out tables, joined and checked.

    Args:
        task: the specialist.
        run: the run's id, for messages.
        files: the held-out tables of its members.
        plan: the plan it was trained by.

    Raises:
        WorkspaceError: a table is missing or unreadable, or its numbers are no probabilities.
        LeakError: a person is judged by a member that may have seen them, or twice.
    """
    parts = []
    for file in files:
        if not file.is_file():
            raise WorkspaceError(
                f"{file}: the held-out probabilities are missing. Restore the file, or retrain that fold."
            )
        try:
            parts.append(pd.read_parquet(file))
        except (OSError, ValueError) as error:
            raise WorkspaceError(f"{file}: cannot be read ({error}). Restore the file, or retrain that fold.") from None
    table = pd.concat(parts, ignore_index=True)
    numbers = table[[f"p({name})" for name in CLASSES[task]]].to_numpy()
    none = np.flatnonzero(~((numbers >= 0) & (numbers <= 1)).all(axis=1))
    if len(none):
        raise WorkspaceError(
            f"{run}: {len(none)} photos have no probabilities between 0 and 1, {table['path'].iloc[none[0]]} among "
            f"them ({numbers[none[0]]}). Retrain {task}, with a lower learning rate if it was the training that failed."
        )
    wrong = table["fold"].to_numpy() != plan.folds(table["person"])
    if wrong.any():
        raise LeakError(
            f"{run}: {int(wrong.sum())} photos were judged by a member of another fold than the plan {plan.digest[:12]} "
            f"holds their people out in, {table['path'][wrong].iloc[0]} among them. Such a score would not be out of fold."
        )
    if table["path"].duplicated().any():
        twice = table["path"][table["path"].duplicated()].iloc[0]
        raise LeakError(f"{run}: {twice} is judged twice: its held-out tables overlap. Retrain {task}.")
    return table.sort_values("path", ignore_index=True)


def join_runs(task: str, tables: Mapping[str, pd.DataFrame]) -> OutOfFold:
    """Several runs of one specialist, photo by photo.

    Raises:
        PlanError: the runs do not cover the same photos.
    """
    columns = [f"p({name})" for name in CLASSES[task]]
    names = list(tables)
    first = tables[names[0]]
    for name in names[1:]:
        if not first["path"].equals(tables[name]["path"]):
            raise PlanError(
                f"{names[0]} covers {len(first):,} held-out photos and {name} {len(tables[name]):,}, not the same ones: "
                "out-of-fold scores need runs over the same photos and folds."
            )
    members = tuple(tables[name][columns].to_numpy(dtype=np.float32) for name in names)
    return OutOfFold(task, first[["path", "person", "fold", "truth"]], members)


def join_tasks(by_task: Mapping[str, Mapping[str, pd.DataFrame]]) -> dict[str, OutOfFold]:
    """The three specialists over the same photos.

    Raises:
        PlanError: the specialists do not cover the same photos.
    """
    joined = {task: join_runs(task, tables) for task, tables in by_task.items()}
    counts = {task: len(one.table) for task, one in joined.items()}
    tasks = list(joined)
    for task in tasks[1:]:
        if not joined[tasks[0]].table["path"].equals(joined[task].table["path"]):
            told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            raise PlanError(
                f"the specialists' runs do not cover the same held-out photos ({told}): some run trained only a part of the "
                "folds, or other photos. Choose runs of all folds with --members, or train the missing folds."
            )
    return joined


def by_tasks(kind: str, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A held-out table for each task that it answers for: a specialist's is its own, a joint network's is three."""
    if kind != JOINT:
        return {kind: table}
    truths = decompose(table["truth"].to_numpy(dtype=np.int64))
    found = {}
    for task, answers in marginals(table[[f"p({name})" for name in LABELS]].to_numpy()).items():
        columns = {f"p({name})": answers[:, code] for code, name in enumerate(CLASSES[task])}
        found[task] = table[["path", "person", "fold"]].assign(truth=truths[task], **columns)
    return found


def join_outside(
    joined: Mapping[str, OutOfFold], outside: Sequence[OutsideTable], plan: FoldPlan
) -> dict[str, OutOfFold]:
    """The specialists' answers with those of tables from elsewhere beside them, where these can be out of fold.

    Args:
        joined: the specialists'.
        outside: the tables; photos that a table does not name are none of its business.
        plan: of the runs.

    Raises:
        LeakError: a table answers for training photos without saying which fold's member did, or by one that has seen them.
    """
    first = joined[TASKS[0]].table
    paths = list(first["path"])
    problems = []
    for one in outside:
        rows = one.rows(paths)
        there = np.flatnonzero(rows >= 0)
        if not len(there):
            continue
        where = f"{one.name}: {paths[there[0]]}"
        if one.folds is None:
            what = f"and {len(there) - 1:,} more are training photos, and no column `fold` says which fold's member answered."
            fix = f"Add it (0 to {plan.k - 1}, by plan {plan.digest[:12]}), leave these rows out, or use --no-score."
            problems.append(Problem(where, what, fix))
            continue
        wrong = there[one.folds[rows[there]] != first["fold"].to_numpy()[there]]
        if len(wrong):
            said, held = one.folds[rows[wrong[0]]], first["fold"].iloc[wrong[0]]
            what = f"answered by fold {said}'s member, and held out in fold {held}: {len(wrong):,} such photos."
            fix = "Their models were trained by another plan."
            if said < 0:
                what = f"its cell of `fold` is empty, and it is held out in fold {held}: {len(wrong):,} such photos."
                fix = "Say which fold's member answered, or leave these rows out."
            problems.append(Problem(f"{one.name}: {paths[wrong[0]]}", what, fix))
    if problems:
        raise LeakError(
            "answers from elsewhere would make the score too good: their models may have seen the photos.", problems
        )
    found = {}
    for task, own in joined.items():
        scored = [one for one in outside if task in one.by_task and (one.rows(paths) >= 0).any()]
        members = (*own.members, *(one.answers(task, paths) for one in scored))
        found[task] = replace(own, members=members, outside=tuple(one.name for one in scored))
    return found


def evaluate(
    joined: Mapping[str, OutOfFold], strategy: Strategy
) -> tuple[dict[str, Evaluation], dict[str, Vote], NDArray[np.int64]]:
    """Scores per task and of the 18-way label (key `label`), the votes, and the labels.

    Raises:
        ValueError: the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r}; allowed: {', '.join(STRATEGIES)}")
    votes = {task: vote(joined[task].members, strategy) for task in TASKS}
    persons = joined[TASKS[0]].table["person"]
    truths = {task: joined[task].table["truth"].to_numpy() for task in TASKS}
    answers = {task: votes[task].choice for task in TASKS}
    label = compose(*(answers[task] for task in TASKS))
    found = {task: _evaluation(persons, truths[task], answers[task], len(CLASSES[task])) for task in TASKS}
    found["label"] = _evaluation(persons, compose(*(truths[task] for task in TASKS)), label, len(LABELS))
    return found, votes, label


def added_by(
    joined: Mapping[str, OutOfFold], runs: Mapping[str, Sequence[str]], strategy: Strategy
) -> dict[str, tuple[float, Interval]]:
    """What each run or table adds to the vote: 18-way macro F1 of all less that of all others, with its 95 % interval.

    A weak voice drags a vote down; this is where it shows. Those without which a task would have no voice are left out.

    Args:
        joined: the answers of all.
        runs: task -> the runs whose answers come first in its `members`, in their order; its outside tables follow.
        strategy: how they vote.
    """
    names = {task: [*runs[task], *joined[task].outside] for task in TASKS}
    persons, truth = (
        joined[TASKS[0]].table["person"],
        compose(*(joined[task].table["truth"].to_numpy() for task in TASKS)),
    )

    def label(without: str | None) -> NDArray[np.int64]:
        kept = {
            task: [own for own, name in zip(joined[task].members, names[task], strict=True) if name != without]
            for task in TASKS
        }
        return compose(*(vote(kept[task], strategy).choice for task in TASKS))

    spare = [
        name
        for name in dict.fromkeys(name for own in names.values() for name in own)
        if all(set(own) - {name} for own in names.values())
    ]
    whole = label(None) if spare else truth
    return {name: difference(persons, truth, label(name), whole, len(LABELS)) for name in spare}


def _evaluation(persons: pd.Series[str], truth: NDArray[Any], answer: NDArray[Any], classes: int) -> Evaluation:
    return Evaluation(score(truth, answer, classes), intervals(persons, truth, answer, classes), int(persons.nunique()))

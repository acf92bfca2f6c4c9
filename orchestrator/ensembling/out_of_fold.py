"""Out-of-fold evaluation: every photo judged by the members that did not see its person, and by them alone.

Runs' held-out answers are joined here photo by photo, with external tables where these are out of fold. A table that
judges people whom its models may have seen raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import VoterScores
from orchestrator.artifacts.held_out import HeldOut
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.combining.people import NOBODY
from orchestrator.core.errors import LeakError, PlanError, Problem
from orchestrator.core.interval import Difference
from orchestrator.core.labels import CLASS_COUNTS, LABELS, TASKS, compose
from orchestrator.core.metrics import score
from orchestrator.data.folds import FoldPlan
from orchestrator.ensembling.evaluation import Evaluation, evaluations
from orchestrator.ensembling.external import ExternalTable
from orchestrator.ensembling.intervals import difference
from orchestrator.ensembling.learning import Learner

__all__ = [
    "CrossFitted", "OutOfFold", "added_by", "cross_fit", "evaluate", "fitted_to", "join", "singles", "with_external",
]  # fmt: skip

GROUPS = 5
"""Number of groups of people that take the place of folds if only one fold is held out."""


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Held-out photos, their truth, and what runs and tables answer for them.

    Attributes:
        photos: columns `path`, `person`, `fold`; sorted by path.
        truth: task -> codes, shape (N,), int64.
        answers: one voter per run and task; then one per external table and task, which abstains where the table has no answer.
        later: run -> rows of photos that joined the data after it was trained, shape (n,): all its members answer for their
            people; only runs that have any.
    """

    photos: pd.DataFrame
    truth: Mapping[str, NDArray[np.int64]]
    answers: Answers
    later: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def label(self) -> NDArray[np.int64]:
        """The true 18-way labels, shape (N,)."""
        return compose(*(self.truth[task] for task in TASKS))

    @property
    def persons(self) -> NDArray[np.int64]:
        """A code for the person on each photo, shape (N,)."""
        return np.asarray(pd.factorize(self.photos["person"])[0], np.int64)

    @property
    def mean_confidence(self) -> dict[str, float]:
        """Task -> mean probability of the class that a voter chooses, over its voters and the held-out photos."""
        return {
            task: float(np.mean([array.max(axis=1) for array in self.answers.of(task).probabilities])) for task in TASKS
        }


def join(held_out: Mapping[str, HeldOut], votes_in: Mapping[str, tuple[str, ...]] | None = None) -> OutOfFold:
    """Several runs' answers, photo by photo.

    Args:
        held_out: run -> its held-out answers; the runs cover every task, or are joint ones.
        votes_in: joint run -> the tasks in which it votes; all three, if it is not there.

    Raises:
        PlanError: the runs do not cover the same photos.
    """
    by_task: dict[str, dict[str, HeldOut]] = {task: {} for task in TASKS}
    for run, table in held_out.items():
        for part in table.by_task():
            if part.task in (votes_in or {}).get(run, TASKS):
                by_task[part.task][run] = part
    firsts = {task: next(iter(runs.items())) for task, runs in by_task.items()}
    for task, runs in by_task.items():
        name, first = firsts[task]
        for run, part in runs.items():
            if not first.photos["path"].equals(part.photos["path"]):
                raise PlanError(
                    f"{name} covers {len(first.photos):,} held-out photos and {run} {len(part.photos):,}, not the same ones: "
                    "out-of-fold scores need runs over the same photos and folds."
                )
    photos = firsts[TASKS[0]][1].photos
    if not all(photos["path"].equals(held_out.photos["path"]) for _, held_out in firsts.values()):
        counts = ", ".join(f"{task} {len(held_out.photos):,}" for task, (_, held_out) in firsts.items())
        raise PlanError(
            f"the specialists' runs do not cover the same held-out photos ({counts}): some run trained only a part of the "
            "folds, or other photos. Choose runs of all folds with --members, or train the missing folds."
        )
    voters = [(Voter(task, run), part.probabilities) for task, runs in by_task.items() for run, part in runs.items()]
    answers = Answers(
        CLASS_COUNTS, len(photos), tuple(voter for voter, _ in voters), tuple(array for _, array in voters)
    )
    return OutOfFold(photos, {task: held_out.truth for task, (_, held_out) in firsts.items()}, answers)


def with_external(out_of_fold: OutOfFold, tables: Sequence[ExternalTable], plan: FoldPlan) -> OutOfFold:
    """Adds the answers of external tables to the runs', if they are out of fold too.

    Args:
        out_of_fold: the runs' answers.
        tables: external tables; each abstains for photos that it does not name.
        plan: the runs' fold plan.

    Raises:
        LeakError: a table answers training photos without naming the member's fold, or by a member that has seen them.
    """
    paths = list(out_of_fold.photos["path"])
    rows_of = [table.rows(paths) for table in tables]
    problems = [
        problem
        for table, rows in zip(tables, rows_of, strict=True)
        for problem in _leaks(table, rows, out_of_fold.photos, plan)
    ]
    if problems:
        raise LeakError(
            "external tables would make the score too good: their models may have seen the photos.", problems
        )
    answers = out_of_fold.answers
    for table, rows in zip(tables, rows_of, strict=True):
        if table.answered(rows).any():
            answers = answers.with_voters(table.answers(rows))
    return replace(out_of_fold, answers=answers)


def _leaks(table: ExternalTable, rows: NDArray[np.int64], photos: pd.DataFrame, plan: FoldPlan) -> list[Problem]:
    """Problems of a table whose networks may have seen the held-out people that it answers for."""
    paths, true_folds = photos["path"], photos["fold"].to_numpy()
    answered = np.flatnonzero(table.answered(rows))
    if not len(answered):
        return []
    if table.folds is None:
        what = f"and {len(answered) - 1:,} more are training photos, and no column `fold` says which fold's member answered."
        fix = f"Add it (0 to {plan.k - 1}, by plan {plan.digest[:12]}), leave these rows out, or use --no-score."
        return [Problem(f"{table.name}: {paths.iloc[answered[0]]}", what, fix)]
    wrong = answered[table.folds[rows[answered]] != true_folds[answered]]
    if not len(wrong):
        return []
    stated, true_fold = table.folds[rows[wrong[0]]], true_folds[wrong[0]]
    what = f"answered by fold {stated}'s member, and held out in fold {true_fold}: {len(wrong):,} such photos."
    fix = "Their models were trained by another plan."
    if stated < 0:
        what = f"its cell of `fold` is empty, and it is held out in fold {true_fold}: {len(wrong):,} such photos."
        fix = "Say which fold's member answered, or leave these rows out."
    return [Problem(f"{table.name}: {paths.iloc[wrong[0]]}", what, fix)]


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Combiners for held-out photos, each of which has learned nothing from the person of the photos that it is for.

    Learned from everybody, a combiner would be scored on answers that it has learned from; these give a nested score.

    Attributes:
        groups: the group of each photo's person, shape (N,): the folds, where something is learned.
        combiners: group -> its combiner, learned from the other groups' people.
        of_folds: whether the groups are folds.
    """

    groups: NDArray[np.int64]
    combiners: Mapping[int, Combiner]
    of_folds: bool

    def combine(self, out_of_fold: OutOfFold, together: bool = True) -> Combined:
        """One answer for each of the N photos; a person's photos answer together where the combiners say so, or each alone."""
        parts, persons = [], out_of_fold.persons if together else np.full(len(out_of_fold.photos), NOBODY)
        for group, combiner in self.combiners.items():
            rows = np.flatnonzero(self.groups == group)
            parts.append((rows, combiner.combine(out_of_fold.answers.take(rows), persons[rows])))
        return parts[0][1] if len(parts) == 1 else Combined.gathered(parts)

    @property
    def by_fold(self) -> dict[int, Combiner]:
        """Fold -> its combiner, for answers that its people may be trained on; empty where the groups are no folds."""
        return dict(self.combiners) if self.of_folds else {}


def cross_fit(out_of_fold: OutOfFold, learner: Learner) -> CrossFitted:
    """Learns a combiner for each fold from the other folds' people.

    If only one fold is held out, its people are divided into `GROUPS` groups, which take the place of folds. Where nothing is
    learned, one combiner is for everybody.
    """
    folds = out_of_fold.photos["fold"].to_numpy()
    if not learner.learns:
        return CrossFitted(np.zeros(len(folds), np.int64), {0: fitted_to(out_of_fold, learner)}, of_folds=False)
    of_folds = len(np.unique(folds)) > 1
    groups = folds.astype(np.int64) if of_folds else pd.factorize(out_of_fold.photos["person"])[0] % GROUPS
    combiners = {int(group): fitted_to(out_of_fold, learner, groups != group) for group in np.unique(groups)}
    return CrossFitted(groups, combiners, of_folds)


def fitted_to(out_of_fold: OutOfFold, learner: Learner, rows: NDArray[np.bool_] | None = None) -> Combiner:
    """The combiner that is learned from some photos, given as a mask (N,), or from all."""
    rows = np.ones(len(out_of_fold.photos), bool) if rows is None else rows
    truth = {task: codes[rows] for task, codes in out_of_fold.truth.items()}
    return learner.fit(out_of_fold.answers.take(rows), truth, out_of_fold.photos["person"].to_numpy()[rows])


def evaluate(out_of_fold: OutOfFold, combined: Combined) -> dict[str, Evaluation]:
    """Scores per task and of the 18-way label (key `label`) of one answer for each held-out photo."""
    return evaluations(out_of_fold.photos["person"], out_of_fold.truth, combined.label)


def added_by(out_of_fold: OutOfFold, learner: Learner) -> dict[str, Difference]:
    """What each run or table adds: 18-way macro F1 of all minus that without it, with its 95 % interval.

    What is learned is learned again without it. A negative value reveals a voter that hurts. A voter that is
    the only one to answer some photo for its task is left out.
    """
    answers, truth = out_of_fold.answers, out_of_fold.label
    spare = [source for source in answers.sources if _answer_all(answers.without(source))]

    def label_of(part: OutOfFold) -> NDArray[np.int64]:
        return cross_fit(part, learner).combine(part).label

    with_source = label_of(out_of_fold) if spare else truth
    return {
        source: difference(
            out_of_fold.photos["person"],
            truth,
            label_of(replace(out_of_fold, answers=answers.without(source))),
            with_source,
            len(LABELS),
        )
        for source in spare
    }


def _answer_all(answers: Answers) -> bool:
    """Whether some voter answers, for each task and photo."""
    for task in answers.classes:
        arrays = answers.of(task).probabilities
        if not arrays or not np.logical_or.reduce([array.any(axis=1) for array in arrays]).all():
            return False
    return True


def singles(out_of_fold: OutOfFold) -> dict[str, tuple[VoterScores, ...]]:
    """Task -> scores of each run and each of its members alone, on the photos that it held out, and of each external
    table alone, on the photos that it answers."""
    folds = out_of_fold.photos["fold"].to_numpy()
    scores: dict[str, tuple[VoterScores, ...]] = {}
    for task in TASKS:
        answers, truth = out_of_fold.answers.of(task), out_of_fold.truth[task]
        scores[task] = ()
        for voter, array in zip(answers.voters, answers.probabilities, strict=True):
            answered = np.asarray(array.any(axis=1))
            parts: list[tuple[int | None, NDArray[np.bool_]]] = [(None, answered)]
            if not voter.external:
                held_out = answered.copy()
                held_out[out_of_fold.later.get(voter.source, [])] = False
                parts += [(int(fold), held_out & (folds == fold)) for fold in np.unique(folds)]
            scores[task] += tuple(
                _single(voter.source, fold, truth[rows], array[rows]) for fold, rows in parts if rows.any()
            )
    return scores


def _single(source: str, fold: int | None, truth: NDArray[Any], answers: NDArray[Any]) -> VoterScores:
    scores = score(truth, answers.argmax(axis=1), answers.shape[1])
    return VoterScores(source, fold, len(truth), scores.accuracy, scores.macro_f1)

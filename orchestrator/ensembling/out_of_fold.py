"""Out-of-fold evaluation: every photo judged by the members that did not see its person, and by them alone.

Runs' held-out answers are joined here photo by photo, with external tables where these are out of fold. A table that
judges people whom its models may have seen raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import VoterScores
from orchestrator.artifacts.held_out import HeldOut
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.core.errors import LeakError, PlanError, Problem
from orchestrator.core.interval import Difference
from orchestrator.core.labels import CLASS_COUNTS, LABELS, TASKS, compose
from orchestrator.core.metrics import score
from orchestrator.data.folds import FoldPlan
from orchestrator.ensembling.evaluation import Evaluation, evaluations
from orchestrator.ensembling.external import ExternalTable
from orchestrator.ensembling.intervals import difference

__all__ = [
    "OutOfFold", "added_by", "combine_unseen", "combiners_by_fold", "evaluate", "join", "singles", "with_external",
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
    """

    photos: pd.DataFrame
    truth: Mapping[str, NDArray[np.int64]]
    answers: Answers

    @property
    def label(self) -> NDArray[np.int64]:
        """The true 18-way labels, shape (N,)."""
        return compose(*(self.truth[task] for task in TASKS))

    @property
    def mean_confidence(self) -> dict[str, float]:
        """Task -> mean probability of the class that a voter chooses, over its voters and the held-out photos."""
        return {
            task: float(np.mean([array.max(axis=1) for array in self.answers.of(task).probabilities])) for task in TASKS
        }


def join(held_out: Mapping[str, HeldOut]) -> OutOfFold:
    """Several runs' answers, photo by photo.

    Args:
        held_out: run -> its held-out answers; the runs cover every task, or are joint ones.

    Raises:
        PlanError: the runs do not cover the same photos.
    """
    by_task: dict[str, dict[str, HeldOut]] = {task: {} for task in TASKS}
    for run, table in held_out.items():
        for part in table.by_task():
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


def combine_unseen(out_of_fold: OutOfFold, combiner: Combiner) -> Combined:
    """One answer for each held-out photo, by a combiner that has learned nothing from the photo's person.

    A combiner that learns is fitted to the other folds' people for each fold, so that its score is out of fold too: fitted to
    everybody, it would be scored on answers that it has learned from. If only one fold is held out, its people are divided into
    `GROUPS` groups, which take the place of folds.
    """
    if not combiner.learns:
        return combiner.combine(out_of_fold.answers)
    groups = out_of_fold.photos["fold"].to_numpy()
    if len(np.unique(groups)) == 1:
        groups = pd.factorize(out_of_fold.photos["person"])[0] % GROUPS
    parts = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        fitted = _fitted_to(out_of_fold, combiner, groups != group)
        parts.append((rows, fitted.combine(out_of_fold.answers.take(rows))))
    return Combined.gathered(parts)


def combiners_by_fold(out_of_fold: OutOfFold, combiner: Combiner) -> dict[int, Combiner]:
    """Fold -> the combiner that has learned nothing from this fold's people, for answers that they may be trained on.

    Empty for a combiner that does not learn, and where only one fold is held out: there is nobody else to learn from.
    """
    folds = out_of_fold.photos["fold"].to_numpy()
    if not combiner.learns or len(np.unique(folds)) == 1:
        return {}
    return {int(fold): _fitted_to(out_of_fold, combiner, folds != fold) for fold in np.unique(folds)}


def _fitted_to(out_of_fold: OutOfFold, combiner: Combiner, rows: NDArray[np.bool_]) -> Combiner:
    truth = {task: codes[rows] for task, codes in out_of_fold.truth.items()}
    return combiner.fit(out_of_fold.answers.take(rows), truth, out_of_fold.photos["person"].to_numpy()[rows])


def evaluate(out_of_fold: OutOfFold, combiner: Combiner) -> tuple[dict[str, Evaluation], Combined]:
    """Scores per task and of the 18-way label (key `label`), and the answers that were scored, by `combine_unseen`."""
    combined = combine_unseen(out_of_fold, combiner)
    return evaluations(out_of_fold.photos["person"], out_of_fold.truth, combined.label), combined


def added_by(out_of_fold: OutOfFold, combiner: Combiner) -> dict[str, Difference]:
    """What each run or table adds: 18-way macro F1 of all minus that without it, with its 95 % interval.

    A combiner that learns is fitted again without it. A negative value reveals a voter that hurts. A voter that is
    the only one of its task is left out.
    """
    answers, truth = out_of_fold.answers, out_of_fold.label
    spare = [
        source
        for source in answers.sources
        if {voter.task for voter in answers.voters if voter.source != source} == set(answers.classes)
    ]
    with_source = combine_unseen(out_of_fold, combiner).label if spare else truth
    return {
        source: difference(
            out_of_fold.photos["person"],
            truth,
            combine_unseen(replace(out_of_fold, answers=answers.without(source)), combiner).label,
            with_source,
            len(LABELS),
        )
        for source in spare
    }


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
                parts += [(int(fold), answered & (folds == fold)) for fold in np.unique(folds)]
            scores[task] += tuple(_single(voter.source, fold, truth[rows], array[rows]) for fold, rows in parts)
    return scores


def _single(source: str, fold: int | None, truth: NDArray[Any], answers: NDArray[Any]) -> VoterScores:
    scores = score(truth, answers.argmax(axis=1), answers.shape[1])
    return VoterScores(source, fold, len(truth), scores.accuracy, scores.macro_f1)

"""Members' answers for people they have not seen (held out), one table per member; only this module handles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.cards import HELD_OUT
from orchestrator.artifacts.members import check_member
from orchestrator.artifacts.origins import plan_of, table_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import ConfigError, LeakError, WorkspaceError
from orchestrator.core.files import atomic
from orchestrator.core.labels import JOINT, columns_of, decompose, marginals
from orchestrator.core.metrics import are_probabilities
from orchestrator.data.folds import FoldPlan

__all__ = ["HeldOut", "held_out_of", "plan_on_record", "read_held_out"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Answers for N held-out photos.

    Attributes:
        task: task of a specialist, or `joint`.
        photos: table with `path`, `person` and `fold`, the fold that holds the person out.
        truth: true class codes, shape (N,), int64.
        probabilities: answers of the member that did not see the person, shape (N, C), float32.
    """

    task: str
    photos: pd.DataFrame
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def choice(self) -> NDArray[np.int64]:
        """The likeliest class of each photo, shape (N,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def take(self, rows: NDArray[Any]) -> HeldOut:
        """The answers for some photos, given as row numbers or as a mask (N,)."""
        photos = self.photos[rows] if rows.dtype == bool else self.photos.iloc[rows]
        return replace(
            self,
            photos=photos.reset_index(drop=True),
            truth=self.truth[rows],
            probabilities=self.probabilities[rows],
        )

    @staticmethod
    def stacked(parts: Sequence[HeldOut]) -> HeldOut:
        """Concatenates one or more tables of answers."""
        return replace(
            parts[0],
            photos=pd.concat([part.photos for part in parts], ignore_index=True),
            truth=np.concatenate([part.truth for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
        )

    def by_task(self) -> list[HeldOut]:
        """The answers for each task: one table for a specialist, three for a joint network."""
        if self.task != JOINT:
            return [self]
        truths = decompose(self.truth)
        return [
            HeldOut(task, self.photos, truths[task], np.asarray(part, np.float32))
            for task, part in marginals(self.probabilities).items()
        ]

    def write(self, path: Path) -> None:
        """Writes the table: path, person, fold, truth, and one probability per class."""
        table = self.photos.assign(truth=self.truth)
        for code, column in enumerate(columns_of(self.task)):
            table[column] = self.probabilities[:, code]
        with atomic(path) as temporary:
            table.to_parquet(temporary, index=False)


def read_held_out(task: str, run: str, files: Sequence[Path], plan: FoldPlan) -> HeldOut:
    """One run's held-out tables, joined and checked, sorted by path.

    Args:
        task: task of the specialist, or `joint`.
        run: the run's id, for messages.
        files: the held-out tables of its members, whose hashes the caller has checked.
        plan: the plan it was trained by.

    Raises:
        WorkspaceError: a table's numbers are not probabilities.
        PlanError: a table names people whom the plan does not know.
        LeakError: a person is judged by a member that may have seen them, or twice.
    """
    table = pd.concat(list(map(pd.read_parquet, files)), ignore_index=True)
    numbers = table[columns_of(task)].to_numpy()
    invalid = np.flatnonzero(~are_probabilities(numbers))
    if len(invalid):
        raise WorkspaceError(
            f"{run}: {len(invalid)} photos have no probabilities that sum to 1, {table['path'].iloc[invalid[0]]} among "
            f"them ({numbers[invalid[0]]}). Retrain {task}, with a lower learning rate if its training diverged."
        )
    wrong = table["fold"].to_numpy() != plan.folds(table["person"])
    if wrong.any():
        raise LeakError(
            f"{run}: {int(wrong.sum())} photos were judged by a member of another fold than the plan {plan.digest[:12]} "
            f"holds their people out in, {table['path'][wrong].iloc[0]} among them. Such a score would not be out of fold."
        )
    if table["path"].duplicated().any():
        path = table["path"][table["path"].duplicated()].iloc[0]
        raise LeakError(f"{run}: {path} is judged twice: its held-out tables overlap. Retrain {task}.")
    table = table.sort_values("path", ignore_index=True)
    truth = table["truth"].to_numpy(dtype=np.int64)
    return HeldOut(task, table[["path", "person", "fold"]], truth, table[columns_of(task)].to_numpy(dtype=np.float32))


def plan_on_record(workspace: Workspace, run: RunRecord) -> FoldPlan | None:
    """A run's fold plan, put together from the answers of its members, each for the people whom it held out.

    Whoever left the data before is in other runs' answers. None if these do not give the plan.

    Args:
        workspace: the workspace of the run.
        run: a run with a plan.
    """
    assert run.plan is not None
    others = [other for other in workspace.read_runs()[0] if other.plan is not None and other.id != run.id]
    k, seed, fold_of = run.plan.k, run.plan.seed, dict[str, int]()
    for source in [run, *(other for other in others if other.plan and (other.plan.k, other.plan.seed) == (k, seed))]:
        for folder in source.members:
            try:
                table = pd.read_parquet(folder / HELD_OUT, columns=["person", "fold"])
            except (OSError, ValueError, KeyError):
                continue
            fold_of = {**dict(zip(table["person"], map(int, table["fold"]), strict=True)), **fold_of}
        plan = FoldPlan(k, seed, dict(sorted(fold_of.items())), ())
        if plan.digest == run.plan.digest:
            strata = tuple(column for column in ("gender", "age") if column in table_of(workspace, run))
            return replace(plan, strata=strata)
    return None


def held_out_of(workspace: Workspace, run: RunRecord) -> HeldOut:
    """A run's held-out answers, sorted by path; file hashes, and every row's fold, are checked.

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

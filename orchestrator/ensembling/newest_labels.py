"""The truth that an ensemble is scored against, where labels were corrected between its runs: the newest of each task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.origins import table_of
from orchestrator.core.errors import DamagedError, PlanError
from orchestrator.core.labels import TASKS
from orchestrator.ensembling.growth import newest_run

if TYPE_CHECKING:
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.specialist import Specialist

__all__ = ["NewestLabels", "check_labels", "newest_labels"]


log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class NewestLabels:
    """The newest labels of some photos.

    Attributes:
        truth: task -> codes, shape (N,), int64.
        outdated: run -> number of photos whose label it has learned otherwise, for runs that have any.
    """

    truth: Mapping[str, NDArray[np.int64]]
    outdated: Mapping[str, int]


def check_labels(workspace: Workspace, runs: Sequence[RunRecord], specialists: Mapping[str, Specialist]) -> None:
    """Refuses runs for whose newest photos some labels are on no record, before members answer for these photos.

    Raises:
        PlanError: no table has a task's labels for all the photos.
        DamagedError: a table of these runs is missing or damaged.
    """
    if len({run.data.photo_set for run in runs}) > 1:
        newest_labels(workspace, runs, table_of(workspace, newest_run(runs))["path"].tolist(), specialists)


def newest_labels(
    workspace: Workspace, runs: Sequence[RunRecord], scored: Sequence[str], specialists: Mapping[str, Specialist]
) -> NewestLabels | None:
    """The labels of the newest table that has them; None if every run of the workspace was trained on one table.

    Any run's table counts that has all the scored photos, of the same people: two ensembles are then judged alike, whichever
    runs they are made of.

    Args:
        workspace: workspace of the runs.
        runs: the runs that answer; the newest of them was trained on the photos that are scored, maybe among others.
        scored: paths of the N photos that are scored.
        specialists: task -> specialist, whose function gives codes.

    Raises:
        PlanError: no table has a task's labels for all the photos.
        DamagedError: a table of these runs is missing or damaged.
    """
    others, _ = workspace.read_runs()
    if len({run.data.table for run in (*runs, *others)}) == 1:
        return None
    own = {run.data.table: table_of(workspace, run).set_index("path") for run in runs}
    photos = own[newest_run(runs).data.table].loc[list(scored)]
    tables = list(_covering(workspace, [*runs, *others], own, photos))
    of_task = {task: specialists[task] for task in TASKS}
    truth = {task: _newest_truth(tables, specialist) for task, specialist in of_task.items()}
    codes = pd.DataFrame(truth, index=photos.index)
    outdated = {run.id: _differing(own[run.data.table], run, of_task, codes) for run in runs}
    return NewestLabels(truth, {run: photos for run, photos in outdated.items() if photos})


def _covering(
    workspace: Workspace, runs: Sequence[RunRecord], own: Mapping[str, pd.DataFrame], photos: pd.DataFrame
) -> Iterator[pd.DataFrame]:
    """The rows of some photos in each table that has them all, the newest first."""
    seen: set[str] = set()
    for run in sorted(runs, key=lambda run: run.data_read, reverse=True):
        if run.data.table in seen:
            continue
        seen.add(run.data.table)
        try:
            table = own[run.data.table] if run.data.table in own else table_of(workspace, run).set_index("path")
        except DamagedError as error:
            log.warning(f"{error.message} What was corrected in it does not count in this score.")
            continue
        rows = table.reindex(photos.index)
        if rows[["person", "content"]].equals(photos[["person", "content"]]):
            yield rows


def _newest_truth(tables: Sequence[pd.DataFrame], specialist: Specialist) -> NDArray[np.int64]:
    """The codes of one task in the first table that has its labels."""
    for table in tables:
        if set(specialist.columns) <= set(table.columns):
            return specialist.label(table)
    raise PlanError(
        f"no run was trained on a table with {specialist.name} labels of all scored photos: train {specialist.name} on the "
        "newest data, or build it for prediction only with --no-score."
    )


def _differing(table: pd.DataFrame, run: RunRecord, specialists: Mapping[str, Specialist], newest: pd.DataFrame) -> int:
    """On how many photos a run's own labels are not the newest ones; of a joint network, in any task."""
    tasks = [run.task] if run.task in specialists else list(specialists)
    common = newest.index.intersection(table.index)
    own, now = table.loc[common], newest.loc[common]
    return int(np.logical_or.reduce([specialists[task].label(own) != now[task].to_numpy() for task in tasks]).sum())

"""The truth that an ensemble is scored against, where labels were corrected between its runs: the newest of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.origins import table_of
from orchestrator.core.labels import TASKS

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.artifacts.run import RunRecord
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.specialist import Specialist

__all__ = ["NewestLabels", "newest_labels"]


@dataclass(frozen=True, eq=False)
class NewestLabels:
    """The newest labels of some photos.

    Attributes:
        truth: task -> codes, shape (N,), int64.
        outdated: run -> number of photos whose label it has learned otherwise, for runs that have any.
    """

    truth: Mapping[str, NDArray[np.int64]]
    outdated: Mapping[str, int]


def newest_labels(
    workspace: Workspace,
    runs: Sequence[RunRecord],
    paths: pd.Series[str],
    specialists: Mapping[str, Specialist],
) -> NewestLabels | None:
    """The labels of the newest table that some runs were trained on and that has them; None if all were trained on one.

    Args:
        workspace: workspace of the runs.
        runs: runs over the same photos, of which N are scored.
        paths: the N photos, as their tables name them.
        specialists: task -> specialist, whose function gives codes.

    Raises:
        DamagedError: a table is missing or damaged.
    """
    if len({run.data.table for run in runs}) == 1:
        return None
    tables: dict[str, pd.DataFrame] = {}
    for run in sorted(runs, key=lambda run: datetime.fromisoformat(run.created), reverse=True):
        if run.data.table not in tables:
            tables[run.data.table] = table_of(workspace, run).set_index("path").loc[list(paths)]
    of_task = {task: specialists[task] for task in TASKS}
    truth = {
        task: next(
            specialist.label(table) for table in tables.values() if set(specialist.columns) <= set(table.columns)
        )
        for task, specialist in of_task.items()
    }
    outdated = {run.id: _differing(tables[run.data.table], run, of_task, truth) for run in runs}
    return NewestLabels(truth, {run: photos for run, photos in outdated.items() if photos})


def _differing(
    table: pd.DataFrame, run: RunRecord, specialists: Mapping[str, Specialist], truth: Mapping[str, NDArray[Any]]
) -> int:
    """On how many photos a run's own labels are not the newest ones; of a joint network, in any task."""
    tasks = [run.task] if run.task in specialists else list(specialists)
    return int(np.logical_or.reduce([specialists[task].label(table) != truth[task] for task in tasks]).sum())

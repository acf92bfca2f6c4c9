"""Lists of a workspace's runs and ensembles; a record that cannot be read hides none of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.artifacts.annotations import Annotations
from orchestrator.artifacts.differences import flat_settings
from orchestrator.artifacts.ensembles import EnsembleRecord
from orchestrator.artifacts.filters import PERSON
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.summary import facts_of, lost_members, run_as_dict
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import DamagedError
from orchestrator.core.labels import CLASSES

__all__ = ["EnsembleList", "ListedEnsemble", "ListedRun", "RunList", "list_ensembles", "list_runs"]


@dataclass(frozen=True)
class ListedRun:
    """A run of a list.

    Attributes:
        run: its record.
        facts: what conditions test, by name: `score`, `status`, `current`, `tag`, `note` and others; its
            settings too if the list is filtered or sorted.
    """

    run: RunRecord
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = self.facts
        return {**run_as_dict(self.run), "current": facts["current"], "tags": facts["tag"], "note": facts["note"]}


@dataclass(frozen=True)
class RunList:
    """Runs that meet the conditions, in order.

    Attributes:
        runs: the runs.
        keys: keys that the conditions use, each once.
        total: number of runs in the workspace that could be read.
        damaged: one error for each file that could not be read, with its way out.
    """

    runs: Sequence[ListedRun]
    keys: Sequence[str]
    total: int
    damaged: Sequence[DamagedError]


@dataclass(frozen=True)
class ListedEnsemble:
    """An ensemble of a list.

    Attributes:
        record: its record.
        state: `damaged` if members are missing, else `current` if it is the current one, else empty.
        current: whether it is the current one, damaged or not.
    """

    record: EnsembleRecord
    state: Literal["current", "damaged", ""]
    current: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.record.id, **self.record.as_json(), "current": self.current}


@dataclass(frozen=True)
class EnsembleList:
    """A workspace's ensembles as `orch ensembles list` shows them.

    Attributes:
        ensembles: those whose records can be read, in the order in which they were made.
        damaged: one error for each file that could not be read, with its way out.
    """

    ensembles: Sequence[ListedEnsemble]
    damaged: Sequence[DamagedError]


def list_runs(workspace: Workspace, where: str = "", sort: str = "") -> RunList:
    """The workspace's runs as `orch runs list` shows them, filtered and sorted.

    Args:
        workspace: the workspace of the runs.
        where: conditions that all of them must meet, as in `task=age score>0.6`; empty: none.
        sort: key to sort by, with `-` in reverse; empty: as they were made.

    Raises:
        ConfigError: invalid conditions, or an unknown key.
    """
    records, damaged = workspace.read_runs()
    current, with_settings = _current_runs(workspace, records, damaged), bool(where or sort)
    with_people = PERSON in where  # plans are read only if somebody asks
    listed = [
        ListedRun(run, _facts(workspace, run, current.get(run.task), damaged, with_settings, with_people))
        for run in records
    ]
    total, keys = len(listed), list[str]()
    if listed and with_settings:
        listed, keys = _filter_and_sort(listed, where, sort)
    return RunList(listed, keys, total, damaged)


def list_ensembles(workspace: Workspace) -> EnsembleList:
    """The workspace's ensembles, those that cannot be read among the `damaged`."""
    damaged, listed, current = list[DamagedError](), list[ListedEnsemble](), None
    try:
        current = workspace.current("ensemble")
    except DamagedError as error:
        damaged.append(error)
    for name in workspace.ensembles():
        try:
            record = workspace.ensemble(name)
        except DamagedError as error:
            damaged.append(error)
            continue
        try:
            workspace.check_members(record, weights=True)
            listed.append(ListedEnsemble(record, "current" if name == current else "", name == current))
        except DamagedError as error:
            damaged.append(error)
            listed.append(ListedEnsemble(record, "damaged", name == current))
    return EnsembleList(listed, damaged)


def _current_runs(
    workspace: Workspace, runs: Sequence[RunRecord], damaged: list[DamagedError]
) -> dict[str, str | None]:
    """Task -> its current run; damaged files are added to `damaged` and left out."""
    current: dict[str, str | None] = {}
    for task in dict.fromkeys([*(run.task for run in runs), *CLASSES]):  # a task's only run may have been removed
        try:
            current[task] = workspace.current(task)
        except DamagedError as error:
            damaged.append(error)
    return current


def _facts(
    workspace: Workspace,
    run: RunRecord,
    current: str | None,
    damaged: list[DamagedError],
    with_settings: bool,
    with_people: bool,
) -> dict[str, Any]:
    """The facts of a run; damaged files are added to `damaged` and left out."""
    damaged += lost_members(run)
    notes = Annotations()
    try:
        notes = Annotations.read(run.folder)
    except DamagedError as error:
        damaged.append(error)
    facts = facts_of(run, current, notes)
    if not with_settings:
        return facts
    return {**flat_settings(run.recipe), **facts, PERSON: _people(workspace, run, damaged) if with_people else ()}


def _people(workspace: Workspace, run: RunRecord, damaged: list[DamagedError]) -> list[str]:
    """The people whom some member of a run has learned from."""
    from orchestrator.artifacts.origins import people_of, plan_of

    try:
        people = people_of(workspace, run)
        if run.plan is None:
            return people
        fold_of = plan_of(workspace, run).fold_of
        # Some member has not held them out; nobody holds out people on extra photos.
        return [person for person in people if set(run.folds) - {fold_of.get(person)}]
    except DamagedError as error:
        damaged.append(error)
        return []


def _filter_and_sort(listed: list[ListedRun], where: str, sort: str) -> tuple[list[ListedRun], list[str]]:
    """The runs that meet the conditions, in the requested order, and the keys that the conditions use."""
    from orchestrator.artifacts.filters import conditions_of, in_order

    keys = list(dict.fromkeys(key for run in listed for key in run.facts))
    numbers = {
        key
        for run in listed
        for key, value in run.facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    conditions = conditions_of(where, keys, numbers)
    matching = [run for run in listed if all(condition.holds(run.facts) for condition in conditions)]
    used_keys = list(dict.fromkeys(condition.key for condition in conditions))
    if sort:
        by_id = {run.run.id: run for run in matching}
        matching = [by_id[facts["run"]] for facts in in_order([run.facts for run in matching], sort, keys)]
    return matching, used_keys

"""Opening an ensemble for prediction: loads its members and its external tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.artifacts.ensembles import EnsembleRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.combiners import COMBINERS, Combiner
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS
from orchestrator.ensembling.external import read_external
from orchestrator.inference.member import MemberFiles, load_members
from orchestrator.inference.predictor import Predictor, start_predictor

__all__ = ["open_predictor"]


def open_predictor(
    workspace: Workspace,
    record: EnsembleRecord,
    device: str,
    loaded: Callable[[int, int], None] = lambda _done, _all: None,
    strategy: str | None = None,
    sharing: bool = True,
) -> Predictor:
    """An ensemble with its members loaded.

    Args:
        workspace: the workspace of the ensemble.
        record: its record.
        device: `cpu`, `cuda` or `cuda:N`.
        loaded: called with (members loaded, members in all).
        strategy: voting strategy to use instead of the ensemble's own.
        sharing: as in `start_runtime`.

    Raises:
        ConfigError: the strategy would have to be learned first.
        WorkspaceError: files of members or of external tables that are missing or changed.
    """
    workspace.check_members_exist(record)
    again = record.rebuild_advice()
    for table in record.external:
        record.file(table.file, again)
    files = [
        MemberFiles(
            member.task, member.run, member.fold, workspace.root / member.folder, member.sha256, member.function
        )
        for member in record.members
    ]
    members = load_members(files, device, loaded)
    tables = [replace(read_external(record.folder / table.file), name=table.name) for table in record.external]
    weights = {task: record.members_per_run(task) for task in TASKS}
    own = strategy is None or strategy == record.strategy
    combiner = record.read_combiner() if own else _unfitted(strategy or "", workspace)
    return start_predictor(members, combiner, device, sharing=sharing, external=tables, external_weights=weights)


def _unfitted(strategy: str, workspace: Workspace) -> Combiner:
    """A combiner to use in the place of an ensemble's own.

    Raises:
        ConfigError: it would have to be learned first.
    """
    if COMBINERS[strategy].learns:
        make = orch("ensemble", "--strategy", strategy, workspace=workspace.root)
        raise ConfigError(f"--strategy {strategy} is learned when an ensemble is built: `{make}` builds one.")
    return COMBINERS[strategy]()

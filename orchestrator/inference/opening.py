"""Opening an ensemble for prediction: loads its members and its external tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.artifacts.ensembles import EnsembleRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.combiners import Combiner
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.external import read_external
from orchestrator.ensembling.learning import plain_combiner
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
        strategy: words of `--strategy`, to use instead of the ensemble's own.
        sharing: as in `start_runtime`.

    Raises:
        ConfigError: the strategy would have to be learned first.
        WorkspaceError: files of members or of external tables that are missing or changed.
    """
    workspace.check_members(record)
    rebuild = record.rebuild_advice()
    for table in record.external:
        record.file(table.file, rebuild)
    files = [
        MemberFiles(
            member.task,
            member.run,
            member.fold,
            workspace.root / member.folder,
            member.sha256,
            member.function,
            member.votes_in,
        )
        for member in record.members
    ]
    members = load_members(files, device, loaded)
    tables = [replace(read_external(record.folder / table.file), name=table.name) for table in record.external]
    weights = {task: record.members_per_run(task) for task in TASKS}
    other = None if strategy is None else Strategy.parse(strategy)
    is_own = other is None or other == record.strategy
    combiner = record.read_combiner() if is_own else _plain(other or record.strategy, record)
    return start_predictor(members, combiner, device, sharing=sharing, external=tables, external_weights=weights)


def _plain(strategy: Strategy, record: EnsembleRecord) -> Combiner:
    """A combiner to use instead of the ensemble's own.

    Raises:
        ConfigError: it would have to be learned first.
    """
    if strategy.learns:
        make = orch("ensemble", *strategy.options, *record.member_options, workspace=record.root)
        asked = " ".join(strategy.options)
        raise ConfigError(f"{asked} is learned when an ensemble is built: `{make}` builds one.")
    return plain_combiner(strategy)

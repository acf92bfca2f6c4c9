"""An ensemble, opened for answering: its members loaded, its external tables beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.combiners import COMBINERS, read_combiner
from orchestrator.core.labels import TASKS
from orchestrator.core.sealed import check_file
from orchestrator.ensembling.external import read_external
from orchestrator.inference.member import MemberFiles, load_members
from orchestrator.inference.predictor import Predictor, start_predictor

__all__ = ["open_predictor"]


def open_predictor(
    workspace: Workspace,
    name: str | None,
    device: str,
    loaded: Callable[[int, int], None] = lambda _done, _all: None,
    strategy: str | None = None,
    sharing: bool = True,
) -> tuple[str, Predictor]:
    """The named ensemble (or the current one), its members loaded.

    Args:
        workspace: that holds it.
        name: its id; None: the current one.
        device: `cpu`, `cuda` or `cuda:N`.
        loaded: called with (members loaded, members in all).
        strategy: combines in another way than the ensemble was built for.
        sharing: as in `start_runtime`.

    Raises:
        WorkspaceError: no such ensemble, or member files that are missing or changed.
    """
    record = workspace.ensemble(name)
    workspace.check_answering(record.id)
    again = record.built_again()
    for one in record.external:
        check_file(record.folder / one.file, record.files[one.file], again)
    files = [
        MemberFiles(one.task, one.run, one.fold, workspace.root / one.folder, one.sha256, one.function)
        for one in record.members
    ]
    members = load_members(files, device, loaded)
    tables = [replace(read_external(record.folder / one.file), name=one.name) for one in record.external]
    weights = {task: record.members_a_run(task) for task in TASKS}
    combiner = read_combiner(record.combiner) if strategy is None else COMBINERS[strategy]()
    return record.id, start_predictor(
        members, combiner, device, sharing=sharing, external=tables, external_weights=weights
    )

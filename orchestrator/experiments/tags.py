"""Tags that find the runs of an experiment again: `orch runs list --where tag=...`."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.artifacts.annotations import Annotations
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace

__all__ = ["tag"]


def tag(run: RunRecord, tags: Iterable[str]) -> None:
    """Adds tags to a run."""
    with Workspace(run.root).lock():  # two experiments may find the same run
        Annotations.read(run.folder).tagged(tags).write(run.folder)

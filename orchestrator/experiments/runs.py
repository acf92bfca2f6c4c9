"""The runs of experiments: found or made, tagged, and never taking the current run's place by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.inputs import Inputs, key_of, new_run
from orchestrator.pipeline import found_run
from orchestrator.records.annotations import Annotations
from orchestrator.records.run import RunRecord
from orchestrator.records.workspace import Workspace
from orchestrator.settings import Settings

__all__ = ["known_run", "run_of", "tag"]


def known_run(settings: Settings, inputs: Inputs, task: str) -> RunRecord | None:
    """The run that these settings have already, complete or not."""
    return found_run(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)


def run_of(
    settings: Settings,
    inputs: Inputs,
    task: str,
    members: int,
    base: RunRecord | None,
    tags: Sequence[str],
    threads: int = 0,
) -> RunRecord:
    """The run of these settings, found or made, and tagged.

    Args:
        settings: what is asked for.
        inputs: what it is made from.
        task: its specialist.
        members: that the command trains in all, which share the cores.
        base: the run whose recipe was taken where none was named.
        tags: for `orch runs list --where tag=...`.
        threads: of a run that is made, as in `new_run`.
    """
    with inputs.workspace.lock():
        run = known_run(settings, inputs, task) or new_run(
            settings, inputs, task, members, base=base, offered=True, threads=threads
        )
    tag(run, tags)
    return run


def tag(run: RunRecord, tags: Sequence[str]) -> None:
    """Tags a run with some words more."""
    with Workspace(run.folder.parent).lock():  # two experiments may find the same run
        Annotations.read(run.folder).tagged(tags).write(run.folder)

"""Completing a run from its record alone: only its missing or damaged members are trained."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.arguments import moved_arguments, training_arguments
from orchestrator.artifacts.cards import CARD, CHECKPOINT, history_of
from orchestrator.artifacts.members import is_intact
from orchestrator.artifacts.origins import photo_hashes_of, plan_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.sources import check_initial_weights, extra_sources_of, source_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.device_names import check_device
from orchestrator.core.errors import ConfigError, DamagedError, DataError, Mistakes
from orchestrator.core.events import InputsRead
from orchestrator.data.readers import check_source
from orchestrator.pipeline.settings import Settings, add_mistakes, check_early, check_face, check_tables
from orchestrator.specialist import Specialist

if TYPE_CHECKING:
    from orchestrator.core.events import Listener
    from orchestrator.pipeline.inputs import Inputs
    from orchestrator.pipeline.training import Report

__all__ = ["resume"]

log = logging.getLogger(__name__)


def resume(
    name: str,
    specialists: Mapping[str, Specialist],
    settings: Settings,
    listen: Listener,
    data: Path | None = None,
    extra: Sequence[Path] = (),
) -> Report:
    """Completes a run from its record alone: trains missing or damaged members, and rewrites its plan if needed.

    Args:
        name: the run's id.
        specialists: task -> specialist.
        settings: the workspace, jobs, device, store and profile to use; the rest comes from the record.
        listen: receives progress events.
        data: the photos' new location; None: unchanged.
        extra: new locations of its tables of extra photos; empty: unchanged.

    Raises:
        ConfigError: the run was made from another one without training, or what it was started with has changed since.
        DataError: the photos are missing, or not those that it was trained on.
        WorkspaceError: there is no such run, or another command is working on it.
    """
    started = time.monotonic()
    opened = Workspace(settings.workspace)
    run = opened.run(name)
    _refuse_derived(run)
    _check_options(settings, data, extra)
    from orchestrator.pipeline.inputs import read_inputs
    from orchestrator.pipeline.preparation import begin_runs
    from orchestrator.pipeline.run_plans import RunPlan, find_runs
    from orchestrator.pipeline.training import Report, make_complete_runs_current, train_runs

    if run.complete and is_intact(run) and _has_origins(opened, run):
        log.info(f"{run.id} is complete, and every file of it is as it was written.")
        make_complete_runs_current([run])  # where the command that completed it was killed before it could
        return Report([run], {}, time.monotonic() - started)
    settings = _recorded_settings(opened, run, settings, data, extra)
    specialist = specialists[run.task]
    check_early(settings, {run.task: specialist}, run)
    inputs = read_inputs(settings, {run.task: specialist}, run)
    _check_unchanged(run, inputs, settings)
    plan = RunPlan(settings, inputs, run.task)
    find_runs([plan], lambda _: run)
    if run.complete:  # only its plan or the list of its photos was missing, and is written now
        make_complete_runs_current([run])
        return Report([run], {}, time.monotonic() - started)
    listen(InputsRead())
    log.info(f"{run.id} goes on: {_where_it_goes_on(run)}.")
    run_jobs = begin_runs([plan], listen, lambda _: run)
    report = train_runs([run], run_jobs, listen, started)
    make_complete_runs_current(report.runs)
    return report


def _where_it_goes_on(run: RunRecord) -> str:
    """Where each missing member goes on: `fold 1 after epoch 3, fold 2 from the start`."""
    parts = []
    for fold in run.folds:
        folder = run.member(fold)
        if not (folder / CARD).is_file():
            epochs = len(history_of(folder)) if (folder / CHECKPOINT).is_file() else 0
            name = "all photos" if fold is None else f"fold {fold}"
            parts.append(f"{name} {f'after epoch {epochs}' if epochs else 'from the start'}")
    return ", ".join(parts)


def _recorded_settings(
    workspace: Workspace, run: RunRecord, options: Settings, data: Path | None, extra: Sequence[Path]
) -> Settings:
    """The recorded settings, with the present locations of the sources; all missing ones are reported at once."""
    mistakes, source, tables = Mistakes(), Path(), tuple[Path, ...]()
    again = orch("resume", run.id, *moved_arguments(run, data), workspace=workspace.root)
    with mistakes.collect():
        source = source_of(run, data, again)
    with mistakes.collect():
        tables = extra_sources_of(run, extra, again)
    with mistakes.collect():
        check_initial_weights(run)
    with mistakes.collect():
        check_face(run.checked_recipe(), otherwise="")  # a run goes on by its own recipe
    mistakes.raise_if_any()
    folds, plan_seed = (run.plan.k, run.plan.seed) if run.plan else (0, 0)
    return replace(
        options, data=source, workspace=workspace.root, columns=run.data.columns, recipes=(), changes=(), folds=folds,
        plan_seed=plan_seed, follow=run.id, new_plan=False, folds_used=0, seed=run.seed, extra=tables,
        distinct_people=run.data.distinct_people,
    )  # fmt: skip


def _check_options(settings: Settings, data: Path | None, extra: Sequence[Path]) -> None:
    """Rejects invalid options, whether or not there is anything to do."""
    mistakes = Mistakes()
    add_mistakes(settings, mistakes)
    with mistakes.collect():
        check_device(settings.device)
    if data is not None:
        with mistakes.collect():
            check_source(data)
    with mistakes.collect():
        check_tables(extra)
    mistakes.raise_if_any()


def _has_origins(workspace: Workspace, run: RunRecord) -> bool:
    """Whether a run's plan and photo hashes are on record; if not, they are rewritten from the photos."""
    try:
        photo_hashes_of(workspace, run)
        return run.plan is None or bool(plan_of(workspace, run))
    except DamagedError:
        return False


def _refuse_derived(run: RunRecord) -> None:
    if run.derived:
        raise ConfigError(f"{run.id} was made from {run.parent} without training; {run.way_to_complete}")


def _check_unchanged(run: RunRecord, inputs: Inputs, settings: Settings) -> None:
    """Rejects a run whose photos, plan, weights or extra photos have changed since it was started."""
    if inputs.fingerprint_of(run.task) != run.data.fingerprint:
        options = training_arguments(run, settings.data, settings.extra)
        train = orch("train", run.task, *options, workspace=settings.workspace)
        raise DataError(
            f"{settings.data}: not the photos, people or {run.task} labels that {run.id} was trained on. Give these with --data; "
            f"or train another run on those that are there: `{train}`."
        )
    digest = inputs.data.plan.digest if inputs.data.plan else None
    for origin, present, recorded in (
        ("the fold plan", digest, run.plan_digest),
        ("the initial weights", inputs.weights[run.task].sha256, run.initial_weights.sha256),
        ("the extra photos", inputs.extra_of(run.task), run.extra),
    ):
        if present != recorded:
            options = training_arguments(run, settings.data, settings.extra)
            train = orch("train", run.task, *options, workspace=settings.workspace)
            digests = f"now {str(present)[:12]}, on record {str(recorded)[:12]}"
            raise ConfigError(
                f"{run.id}: {origin} changed since the run was started ({digests}). "
                f"Restore what has changed, or train another run: `{train}`."
            )

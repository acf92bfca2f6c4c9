"""The whole training story on one page: photos -> plan -> weights -> runs -> pixels -> jobs -> current runs.

Both commands walk the same path. `train_all` takes up every run that the same settings have begun or finished;
`retrain` always ends in a new run of one specialist, and leaves the others' files alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from orchestrator.data.preprocessing import Geometry
from orchestrator.data.store import DirectPixels, PixelSource, Rows, build_stores, store_key
from orchestrator.errors import WorkspaceError
from orchestrator.inputs import Inputs, Settings, key_of, new_run, read_inputs
from orchestrator.labels import CLASSES
from orchestrator.records.environment import versions
from orchestrator.records.members import check_member, clear, share_member
from orchestrator.records.run import COMPLETE, RunRecord
from orchestrator.records.workspace import Workspace
from orchestrator.retraining import base_run, check_folds, settle
from orchestrator.specialist import Specialist
from orchestrator.training.backbones import preprocess_of
from orchestrator.training.checkpoints import CARD
from orchestrator.training.features import build_features
from orchestrator.training.heads import head_of
from orchestrator.training.jobs import JobResult, run_jobs, share_out
from orchestrator.training.member import MemberJob

__all__ = ["Observer", "Report", "Settings", "first_jobs", "retrain", "train_all"]


@dataclass(frozen=True)
class Report:
    """How a command ended.

    Attributes:
        runs: the runs that were trained or found, complete or not.
        failures: (run id, fold) -> reason.
        seconds: wall-clock.
    """

    runs: list[RunRecord]
    failures: dict[tuple[str, int | None], str]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every run is complete."""
        return all(run.complete for run in self.runs)


class Observer(Protocol):
    """Who watches; the terminal display is one."""

    def say(self, text: str) -> None:
        """A line on what was decided or found."""

    def decoding(self, done: int, photos: int) -> None:
        """Photos decoded into the store so far."""

    def features(self, done: int, photos: int) -> None:
        """Photos that have gone through a frozen backbone so far."""

    def training(self, jobs: Sequence[tuple[RunRecord, MemberJob]], at_once: int) -> None:
        """Training of these members begins; their folders tell how it goes."""

    def ended(self, run: RunRecord, job: MemberJob, failure: str) -> None:
        """One member is complete, or failed."""

    def finished(self) -> None:
        """All jobs ended."""


def train_all(settings: Settings, specialists: Mapping[str, Specialist], observer: Observer) -> Report:
    """Trains every specialist over the folds of one plan, or goes on with it.

    Args:
        settings: what is asked for.
        specialists: task -> specialist, in the order to train.
        observer: who watches.

    Raises:
        OrchestratorError: before any training, when something is wrong with the input; failing jobs are in the report.
    """
    started = time.monotonic()
    inputs = read_inputs(settings, specialists, observer.say)
    members = len(specialists) * len(inputs.folds)
    taken_up = {
        task: _found(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True) for task in specialists
    }
    open_tasks = {task for task, run in taken_up.items() if run is None or not run.complete}
    pixels = _pixels(settings, inputs, open_tasks, observer)  # before any run is written: a photo may be damaged
    with inputs.workspace.lock():
        runs = [
            _found(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)
            or new_run(settings, inputs, task, members)
            for task in specialists
        ]
    for run in runs:
        if run.complete and run.published:
            current = inputs.workspace.current(run.task)
            other = "" if current == run.id else f" {current} stays the current {run.task} run."
            observer.say(f"{run.id} is complete already (same recipe, data, plan and seed): kept as it is.{other}")
    return _train(settings, specialists, inputs, runs, pixels, observer, started)


def retrain(
    settings: Settings,
    specialist: Specialist,
    observer: Observer,
    folds: Sequence[int] = (),
    base: str | None = None,
) -> Report:
    """Trains one specialist into a new run, or goes on with an unfinished one of the same settings.

    Args:
        settings: what is asked for.
        specialist: which.
        observer: who watches.
        folds: retrain only these folds; the other members are shared with the base run.
        base: the run to share members with; its current run by default.
    """
    started = time.monotonic()
    task = specialist.name
    settings = settle(settings, task, folds)
    before = base_run(settings.workspace, task, base)
    parent = before if folds else None
    inputs = read_inputs(settings, {task: specialist}, observer.say, before)
    if before is not None and not settings.recipes:
        observer.say(
            f"recipe: that of {before.id} ({before.recipe_name})" + ", changed by --set." * bool(settings.changes)
        )
    check_folds(folds, inputs, parent)
    kept = [fold for fold in parent.folds if fold not in folds] if parent else []
    if parent is not None:
        for fold in kept:
            check_member(parent, fold)
    pixels = _pixels(settings, inputs, {task}, observer)  # before any run is written: a photo may be damaged
    with inputs.workspace.lock():
        key = key_of(settings, inputs, task, parent, folds)
        run = _found(inputs.workspace, task, key, finished_too=False)
        if run is None and (same := _found(inputs.workspace, task, key, finished_too=True)) and inputs.device == "cpu":
            observer.say(f"note: the same settings, data and seed as {same.id}: the same weights. --seed 1 draws anew.")
        members = len(folds) or len(inputs.folds)
        run = run or new_run(settings, inputs, task, members, parent, folds, before)
    if parent is not None and kept:
        observer.say(f"{run.id} shares fold{'s' * (len(kept) > 1)} {', '.join(map(str, kept))} with {parent.id}.")
        for fold in kept:
            share_member(parent, run, fold)
    return _train(settings, {task: specialist}, inputs, [run], pixels, observer, started)


def first_jobs(settings: Settings, specialists: Mapping[str, Specialist], observer: Observer) -> dict[str, MemberJob]:
    """The first member of each specialist's run that these settings made, as it was trained: for measuring it again.

    Raises:
        WorkspaceError: the settings have made no run.
    """
    inputs = read_inputs(settings, specialists, observer.say)
    pixels = _pixels(settings, inputs, set(specialists), observer)
    jobs = {}
    for task, specialist in specialists.items():
        run = _found(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)
        if run is None:
            raise WorkspaceError(f"{settings.workspace}: no {task} run of these settings. Train it first.")
        jobs[task] = _job(settings, specialist, inputs, run, run.folds[0], _table(specialist, inputs, task), pixels)
    return jobs


def _found(workspace: Workspace, task: str, key: str, finished_too: bool) -> RunRecord | None:
    """The newest run of this key that may be taken up: unfinished, or finished and killed before it was published."""
    runs = [run for run in workspace.runs() if run.task == task and run.key == key]
    return next((run for run in reversed(runs) if finished_too or not run.published), None)


def _train(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    inputs: Inputs,
    runs: Sequence[RunRecord],
    pixels: Mapping[str, Rows],
    observer: Observer,
    started: float,
) -> Report:
    """Trains what is missing of the runs, and closes those that are whole."""
    open_runs = [run for run in runs if not run.complete]
    for run in open_runs:
        now, then = versions(), run.environment["versions"]
        changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if now[name] != then.get(name)]
        if changed:
            observer.say(
                f"note: {run.id} was begun with other versions ({', '.join(changed)}): its later epochs may differ in bits."
            )
    failures: dict[tuple[str, int | None], str] = {}
    with ExitStack() as locks:
        for run in open_runs:
            _hold(locks, run)
        jobs = _jobs(settings, specialists, inputs, open_runs, pixels)
        if jobs:
            at_once, _ = share_out(settings.jobs, len(jobs), inputs.device)
            if (
                settings.jobs == 0 and inputs.device == "cpu"
            ):  # threads are the run's, whatever this command would choose
                at_once = max(1, min(at_once, joblib.cpu_count() // max(job.threads for _, job in jobs)))
            observer.training(jobs, at_once)

            def ended(result: JobResult) -> None:
                run, job = jobs[result.number]
                if result.failure:
                    failures[run.id, job.fold] = result.failure
                observer.ended(run, job, result.failure)

            try:
                run_jobs([job for _, job in jobs], at_once, ended)
            finally:
                observer.finished()
        for run in open_runs:
            for folder in run.members:
                clear(folder)
            run.seconds += time.monotonic() - started
            if all((folder / CARD).is_file() for folder in run.members):
                run.status = COMPLETE
            run.save()  # written last: a complete run has all its members
    for run in runs:
        if run.complete and not run.published:
            _make_current(inputs.workspace, run, observer)
            run.published = True
            run.save()
    return Report(list(runs), failures, time.monotonic() - started)


def _hold(locks: ExitStack, run: RunRecord) -> None:
    """Holds a run for this command; a killed command lets go by dying."""
    lock = FileLock(run.folder / "run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise WorkspaceError(f"{run.id}: another orch command is training this run. Wait for it, or stop it.") from None
    locks.callback(lock.release)


def _jobs(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    inputs: Inputs,
    runs: Sequence[RunRecord],
    pixels: Mapping[str, Rows],
) -> list[tuple[RunRecord, MemberJob]]:
    """The members that are still missing, longest first, so that no straggler begins last."""
    missing = [(run, fold) for run in runs for fold in run.own_folds if not (run.member(fold) / CARD).is_file()]
    tables = {task: _table(specialists[task], inputs, task) for task in {run.task for run, _ in missing}}
    jobs = [
        (run, _job(settings, specialists[run.task], inputs, run, fold, tables[run.task], pixels))
        for run, fold in missing
    ]
    return sorted(jobs, key=lambda one: -one[1].work)


def _pixels(settings: Settings, inputs: Inputs, tasks: set[str], observer: Observer) -> dict[str, Rows]:
    """What each task's networks are fed with: a store per geometry, or features where only heads are trained."""
    recipes = {task: recipe for task, recipe in inputs.recipes.items() if task in tasks}
    geometries = list(dict.fromkeys(recipe.geometry for recipe in recipes.values()))
    relative, paths = list(inputs.photos.table["path"]), inputs.photos.paths
    keys = {geometry: store_key(relative, inputs.content, geometry) for geometry in geometries}
    sources: Mapping[Geometry, PixelSource] = {geometry: DirectPixels(paths, geometry) for geometry in geometries}
    if geometries and settings.store:
        sources = build_stores(inputs.workspace.store, paths, keys, joblib.cpu_count(), observer.decoding)
    return {
        task: sources[recipe.geometry]
        if recipe.train == "network"
        else build_features(
            inputs.workspace.cache / "features", recipe, inputs.weights[task], preprocess_of(recipe), sources[recipe.geometry],
            keys[recipe.geometry], len(paths), inputs.device, joblib.cpu_count(), observer.features,
        )
        for task, recipe in recipes.items()
    }  # fmt: skip


def _table(specialist: Specialist, inputs: Inputs, task: str) -> pd.DataFrame:
    """What a job needs of the photo table: path, person, truth, trained class, target, kind."""
    photos, recipe = inputs.photos.table, inputs.recipes[task]
    table = photos[["path", "person"]].copy()
    table["truth"] = specialist.label(photos)
    table["trained"] = specialist.training_label(photos, recipe)
    table["target"] = head_of(specialist, recipe).targets(specialist, photos, recipe)
    by_mask = recipe.draw_by == "mask" and "mask" in photos
    table["kind"] = [CLASSES["mask"].index(word) for word in photos["mask"]] if by_mask else 0
    return table


def _job(
    settings: Settings,
    specialist: Specialist,
    inputs: Inputs,
    run: RunRecord,
    fold: int | None,
    table: pd.DataFrame,
    pixels: Mapping[str, Rows],
) -> MemberJob:
    recipe = inputs.recipes[run.task]
    if fold is None or inputs.plan is None:
        train, held_out = np.arange(len(table)), np.array([], dtype=np.int64)
    else:
        train, held_out = inputs.plan.split(table["person"], fold)
    train = train[~table["person"].iloc[train].isin(recipe.drop_people)]
    return MemberJob(
        folder=run.member(fold),
        task=run.task,
        fold=fold,
        classes=specialist.classes,
        table=table,
        train=train,
        held_out=held_out,
        pixels=pixels[run.task],
        recipe=recipe,
        head=head_of(specialist, recipe),
        preprocess=preprocess_of(recipe),
        initial=inputs.weights[run.task],
        seed=settings.seed,
        profile=settings.profile,
        threads=run.threads,  # of the run, not of this command: other threads give other bits
        device=inputs.device,
        notes={
            "run": run.id, "plan_digest": inputs.plan.digest if inputs.plan else None,
            "data_fingerprint": inputs.fingerprint, "versions": versions(),
        },
    )  # fmt: skip


def _make_current(workspace: Workspace, run: RunRecord, observer: Observer) -> None:
    """A run becomes its specialist's current one once, when it is completed, unless it covers only some folds."""
    before = workspace.current(run.task)
    if before == run.id:
        return
    partial = run.plan is not None and len(run.folds) < run.plan["k"]
    if partial and before is not None and workspace.run(before).covers != run.covers:
        observer.say(
            f"{run.id} covers {run.covers}: {before} stays the current {run.task} run. `orch runs use {run.id}`"
        )
        return
    workspace.set_current(run.task, run.id)
    observer.say(f"{run.id} is now the current {run.task} run" + (f" (was {before})." if before else "."))

"""The whole training story on one page: photos -> plan -> weights -> runs -> pixels -> jobs -> current runs.

Both commands walk the same path. `train_all` takes up every run that the same settings have begun or finished;
`retrain` always ends in a new run of one specialist, and leaves the others' files alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import joblib
from filelock import FileLock, Timeout

from orchestrator.choosing import make_current
from orchestrator.commands import orch
from orchestrator.errors import DamagedError, WorkspaceError
from orchestrator.inputs import key_of, new_run, read_inputs
from orchestrator.preparation import Observer, Work, first_job, missing_jobs, pixels_of
from orchestrator.records.comparison import near
from orchestrator.records.environment import versions
from orchestrator.records.members import check_member, clear, conclude, heal, share_member
from orchestrator.records.run import RUN_LOCK, RunRecord
from orchestrator.records.workspace import Workspace
from orchestrator.retraining import base_run, check_fold_numbers, check_folds, settle, tell_base
from orchestrator.settings import Settings
from orchestrator.specialist import Specialist
from orchestrator.training.cards import identity_of

if TYPE_CHECKING:
    from orchestrator.inputs import Inputs
    from orchestrator.training.jobs import JobResult
    from orchestrator.training.member import MemberJob

__all__ = [
    "Observer",
    "Report",
    "Settings",
    "first_jobs",
    "found_run",
    "heal_runs",
    "hold",
    "retrain",
    "train_all",
    "train_runs",
]


@dataclass(frozen=True)
class Report:
    """How a command ended.

    Attributes:
        runs: the runs that were trained or found, complete or not.
        failures: (run id, fold) -> reason.
        seconds: wall-clock.
        given_up: (run id, fold) -> why, of members that were stopped below their bar.
        trained: run id -> folds that this command worked on.
        at_once: how many members were trained side by side.
        training: wall-clock seconds from the first member's beginning to the last one's end.
    """

    runs: list[RunRecord]
    failures: dict[tuple[str, int | None], str]
    seconds: float
    given_up: dict[tuple[str, int | None], str] = field(default_factory=dict)
    trained: dict[str, list[int | None]] = field(default_factory=dict)
    at_once: int = 1
    training: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every run is complete."""
        return all(run.complete for run in self.runs)


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
    for task in specialists:  # what says so must be writable by this version when all is trained
        inputs.workspace.current_or_none(task)
    members = len(specialists) * len(inputs.folds)
    taken_up = {
        task: found_run(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)
        for task in specialists
    }
    heal_runs([run for run in taken_up.values() if run is not None], observer)
    open_tasks = {task for task, run in taken_up.items() if run is None or not run.complete}
    pixels = pixels_of(settings, inputs, open_tasks, observer)  # before any run is written: a photo may be damaged
    with inputs.workspace.lock():
        runs = [
            found_run(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)
            or new_run(settings, inputs, task, members)
            for task in specialists
        ]
    for run in runs:
        if run.complete and run.published:
            current = inputs.workspace.current_or_none(run.task)
            other = "" if current in (run.id, None) else f" {current} stays the current {run.task} run."
            observer.say(f"{run.id} is complete already (same recipe, data, plan and seed): kept as it is.{other}")
            if current is None:  # of an experiment, or the current one was deleted
                make_current(inputs.workspace, run, observer.say)
    _offer(runs)
    works = [Work(settings, specialists[run.task], inputs, run, pixels[run.task]) for run in runs if run.task in pixels]
    return train_runs(runs, works, observer, started)


def retrain(
    settings: Settings,
    specialist: Specialist,
    observer: Observer,
    folds: Sequence[int] = (),
    base: str | None = None,
    again: bool = False,
) -> Report:
    """Trains one specialist into a new run, goes on with an unfinished one of the same settings, or finds it trained already.

    Args:
        settings: what is asked for.
        specialist: which.
        observer: who watches.
        folds: retrain only these folds; the other members are shared with the base run.
        base: the run to share members with; its current run by default.
        again: train what a complete run of the same settings has trained.
    """
    started = time.monotonic()
    task = specialist.name
    before = base_run(settings.workspace, task, base, bool(folds))
    settings = settle(settings, task, folds, before)
    check_fold_numbers(folds, settings.k)
    parent = before if folds else None
    inputs = read_inputs(settings, {task: specialist}, observer.say, before)
    tell_base(before, settings, observer.say)
    kept = [fold for fold in parent.folds if fold not in folds] if parent else []
    if parent is not None:
        check_folds(inputs, parent)
        for fold in kept:
            check_member(parent, fold)
        if not again and all(_is_trained_so(parent, fold, settings, inputs) for fold in folds):
            numbers = f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"
            observer.say(
                f"{parent.id} has {numbers} already, by the same recipe, data, plan and seed. --again trains once more, another "
                "--seed draws anew."
            )
            return Report([parent], {}, time.monotonic() - started)
    key = key_of(settings, inputs, task, parent, folds)
    run, same = (found_run(inputs.workspace, task, key, finished_too) for finished_too in (False, True))
    heal_runs([one for one in (run, same) if one is not None], observer)
    if run is None and same is not None and not same.complete:
        run = same
    if run is None and same is not None and not again:
        observer.say(
            f"{same.id} has it already: the same recipe, data, plan and seed. --again trains it once more, another "
            "--seed draws anew."
        )
        current = inputs.workspace.current_or_none(task)
        if current is None:
            make_current(inputs.workspace, same, observer.say)
        elif current != same.id:
            use = orch("runs", "use", same.id, workspace=settings.workspace)
            observer.say(f"{current} is the current {task} run; `{use}` makes {same.id} that.")
        return Report([same], {}, time.monotonic() - started)
    if run is None:
        for line in near(
            inputs.workspace.runs(task), task, inputs.recipes[task], settings.seed, inputs.fingerprint, inputs.plan,
            inputs.extra_of(task),
        ):  # fmt: skip
            observer.say(line)
    pixels = pixels_of(settings, inputs, {task}, observer)  # before any run is written: a photo may be damaged
    with inputs.workspace.lock():
        run = found_run(inputs.workspace, task, key, finished_too=run is not None and run.published)
        members = len(folds) or len(inputs.folds)
        run = run or new_run(settings, inputs, task, members, parent, folds, before)
    _offer([run])
    if parent is not None and kept:
        observer.say(f"{run.id} shares fold{'s' * (len(kept) > 1)} {', '.join(map(str, kept))} with {parent.id}.")
        for fold in kept:
            share_member(parent, run, fold)
    return train_runs([run], [Work(settings, specialist, inputs, run, pixels[task])], observer, started)


def _is_trained_so(run: RunRecord, fold: int, settings: Settings, inputs: Inputs) -> bool:
    """Whether a run's member, complete and whole, is what a training by these inputs would come to."""
    task, recipe, weights = run.task, inputs.recipes[run.task].digest(), inputs.weights[run.task].sha256
    plan = inputs.plan.digest if inputs.plan else None
    wanted = identity_of(task, fold, recipe, weights, inputs.fingerprint, plan, settings.seed, inputs.extra_of(task))
    try:
        return bool(check_member(run, fold)["id"] == wanted)
    except DamagedError:
        return False


def heal_runs(runs: Sequence[RunRecord], observer: Observer) -> None:
    """Looks whether the members of runs are as they were written; those that are not will be trained again."""
    for run in runs:
        with ExitStack() as locks:
            hold(locks, run)
            heal(run, observer.say)


def first_jobs(settings: Settings, specialists: Mapping[str, Specialist], observer: Observer) -> dict[str, MemberJob]:
    """The first member of each specialist's run that these settings made, as it was trained: for measuring it again.

    Raises:
        WorkspaceError: the settings have made no run.
    """
    inputs = read_inputs(settings, specialists, observer.say)
    pixels = pixels_of(settings, inputs, set(specialists), observer)
    jobs = {}
    for task, specialist in specialists.items():
        run = found_run(inputs.workspace, task, key_of(settings, inputs, task), finished_too=True)
        if run is None:
            raise WorkspaceError(f"{settings.workspace}: no {task} run of these settings. Train it first.")
        jobs[task] = first_job(Work(settings, specialist, inputs, run, pixels[task]))
    return jobs


def found_run(workspace: Workspace, task: str, key: str, finished_too: bool) -> RunRecord | None:
    """The newest run of this key that may be taken up: unfinished, or finished and killed before it was published."""
    runs = [run for run in workspace.runs(task) if run.key == key]
    return next((run for run in reversed(runs) if finished_too or not (run.complete and run.published)), None)


def train_runs(
    runs: Sequence[RunRecord], works: Sequence[Work], observer: Observer, started: float, offer: bool = True
) -> Report:
    """Trains what is missing of runs, all their members in one queue, and closes those that are whole.

    Args:
        runs: all of the command's, those complete already among them.
        works: of those that are not.
        observer: who watches.
        started: when the command began, by time.monotonic.
        offer: runs that were not yet offered as their specialists' current ones become that.
    """
    from orchestrator.training.jobs import run_jobs, share_out

    open_works = [work for work in works if not work.run.complete]
    for work in open_works:
        run, now = work.run, versions()
        then = run.environment["versions"]
        changed = [f"{name} {then.get(name)} -> {now[name]}" for name in now if now[name] != then.get(name)]
        if changed:
            observer.say(
                f"note: {run.id} was begun with other versions ({', '.join(changed)}): its later epochs may differ in bits."
            )
    failures: dict[tuple[str, int | None], str] = {}
    given_up: dict[tuple[str, int | None], str] = {}
    trained: dict[str, list[int | None]] = {}
    at_once, training = 1, 0.0
    with ExitStack() as locks:
        for work in open_works:
            hold(locks, work.run)
        jobs = missing_jobs(open_works)
        if jobs:
            wanted, device = open_works[0].settings.jobs, open_works[0].inputs.device
            at_once, _ = share_out(wanted, len(jobs), device)
            if wanted == 0 and device == "cpu":  # threads are the run's, whatever this command would choose
                at_once = max(1, min(at_once, joblib.cpu_count() // max(job.threads for _, job in jobs)))
            observer.training(jobs, at_once)
            for run, job in jobs:
                trained.setdefault(run.id, []).append(job.fold)

            def ended(result: JobResult) -> None:
                run, job = jobs[result.number]
                if result.failure:
                    failures[run.id, job.fold] = result.failure
                if result.given_up:
                    given_up[run.id, job.fold] = result.given_up
                observer.ended(run, job, result)

            begun = time.monotonic()
            try:
                run_jobs([job for _, job in jobs], at_once, ended)
            finally:
                observer.finished()
            training = time.monotonic() - begun
        for work in open_works:
            _close(work.run)
    for run in runs if offer else []:
        if run.complete and not run.published:
            make_current(Workspace(run.folder.parent), run, observer.say)
            run.published = True
            run.save()
    return Report(list(runs), failures, time.monotonic() - started, given_up, trained, at_once, training)


def _close(run: RunRecord) -> None:
    """Clears up after training; a run whose members are all there is complete."""
    for folder in run.members:
        clear(folder)
    conclude(run, files=False)


def _offer(runs: Sequence[RunRecord]) -> None:
    """An experiment's unfinished runs that training itself goes on with shall become current ones when they are complete."""
    for run in runs:
        if run.published and not run.complete:
            run.published = False
            run.save()


def hold(locks: ExitStack, run: RunRecord) -> None:
    """Holds a run for this command; a killed command lets go by dying."""
    lock = FileLock(run.folder / RUN_LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise WorkspaceError(f"{run.id}: another orch command is training this run. Wait for it, or stop it.") from None
    locks.callback(lock.release)

"""The whole of training on one page: photos -> plan -> weights -> runs -> pixels -> jobs -> current runs.

Both commands take the same steps. `train_all` reuses every run, finished or not, of the same settings; `retrain`
trains a run of one specialist, and leaves the others' files alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.differences import similar_runs
from orchestrator.artifacts.environment import versions
from orchestrator.artifacts.locks import lock_run
from orchestrator.artifacts.members import (
    check_member,
    remove_leftovers,
    set_aside_damaged,
    share_member,
    update_status,
)
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, Mistakes, WorkspaceError
from orchestrator.core.events import (
    InputsRead,
    Listener,
    PlannedMember,
    TrainingEnded,
    TrainingStarted,
    ignore_events,
)
from orchestrator.ensembling.choosing import make_current
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.preparation import RunJob, begin_runs, first_job, missing_jobs, pixels_of
from orchestrator.pipeline.retraining import StartingPoint, check_folds, log_base
from orchestrator.pipeline.run_plans import RunPlan, find_runs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialist import Specialist
from orchestrator.training.cancelling import CancelledError

if TYPE_CHECKING:
    from orchestrator.training.job import MemberJob

__all__ = [
    "Report",
    "Settings",
    "first_jobs",
    "make_complete_runs_current",
    "retrain",
    "train_all",
    "train_runs",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """How a training ended: its runs, and the members that failed or were stopped.

    Attributes:
        runs: the runs that were trained or found, complete or not.
        failures: (run id, fold) -> reason.
        seconds: wall-clock seconds.
        pruned: (run id, fold) -> reason, for members that were stopped below their threshold.
        cancelled: (run id, fold) -> reason, for members that were asked to stop; the same call resumes them.
        trained: run id -> folds that this command worked on.
        at_once: how many members were trained side by side.
        training: wall-clock seconds from the start of the first member to the end of the last.
    """

    runs: list[RunRecord]
    failures: dict[tuple[str, int | None], str]
    seconds: float
    pruned: dict[tuple[str, int | None], str] = field(default_factory=dict)
    cancelled: dict[tuple[str, int | None], str] = field(default_factory=dict)
    trained: dict[str, list[int | None]] = field(default_factory=dict)
    at_once: int = 1
    training: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every run is complete."""
        return all(run.complete for run in self.runs)

    def raise_if_cancelled(self) -> None:
        """Raises if members were cancelled, for callers that need all of them.

        Raises:
            CancelledError: members were asked to stop.
        """
        if self.cancelled:
            raise CancelledError


def train_all(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    listen: Listener = ignore_events,
) -> Report:
    """Trains every specialist over the folds of one plan, or resumes that training.

    Args:
        settings: what the command asks for.
        specialists: task -> specialist, in the order to train.
        listen: receives progress events.

    Raises:
        OrchestratorError: before any training, when something is wrong with the input; failing jobs are in the report.
    """
    started, settings = time.monotonic(), settings.or_defaults()
    inputs = read_inputs(settings, specialists)
    _check_current(inputs.workspace, specialists)
    members = len(specialists) * len(inputs.data.folds)
    plans = [RunPlan(settings, inputs, task, members=members) for task in specialists]
    complete = {run.task: run for run in find_runs(plans) if run is not None and run.complete}
    listen(InputsRead())
    run_jobs = begin_runs([plan for plan in plans if plan.task not in complete], listen)
    run_of = complete | {run_job.run.task: run_job.run for run_job in run_jobs}
    runs = [run_of[task] for task in specialists]
    for run in runs:
        if run.complete and not run.to_be_offered:
            current = inputs.workspace.current_or_none(run.task)
            stays = "" if current in (run.id, None) else f" {current} stays the current {run.task} run."
            log.info(f"{run.id} is complete already (same recipe, data, plan and seed): kept as it is.{stays}")
            if current is None:  # of an experiment, or the current one was deleted
                make_current(inputs.workspace, run)
    report = train_runs(runs, run_jobs, listen, started)
    make_complete_runs_current(report.runs)
    return report


def _check_current(workspace: Workspace, tasks: Iterable[str]) -> None:
    """Refuses to train where what is current was written by a newer version, or is lost; damaged files are rewritten."""
    mistakes = Mistakes()
    for task in tasks:
        if workspace.current_or_none(task) is None:
            with mistakes.collect(), suppress(DamagedError):
                workspace.current_unless_lost(task)
    mistakes.raise_if_any()


def retrain(start: StartingPoint, listen: Listener = ignore_events, again: bool = False) -> Report:
    """Trains one specialist into a new run, resumes one of the same settings, or finds it trained already.

    Args:
        start: starting point; if it names folds, the other members are shared with the base run.
        listen: receives progress events.
        again: train even if a complete run with the same settings exists.

    Raises:
        OrchestratorError: before any training, when something is wrong with the input; failing jobs are in the report.
    """
    started = time.monotonic()
    settings, specialist, task, folds = start.settings, start.specialist, start.task, start.folds
    inputs = read_inputs(settings, {task: specialist}, start.base)
    log_base(start.base, settings)
    members, parent = len(folds) or len(inputs.data.folds), start.base if folds else None
    plan = RunPlan(settings, inputs, task, start.base, parent, folds, members=members)
    shared_folds = [fold for fold in parent.folds if fold not in folds] if parent else []
    if parent is not None:
        check_folds(inputs, parent)
        for fold in shared_folds:
            check_member(parent, fold)
        if not again and _has_folds(parent, plan):
            return Report([parent], {}, time.monotonic() - started)
    (run,) = find_runs([plan], lambda plan: plan.find_open() or plan.find())
    if run is not None and run.complete and not run.to_be_offered:
        if not again:
            _log_trained(plan, run)
            return Report([run], {}, time.monotonic() - started)
        run = None
    if run is None:
        _log_similar(plan)
    listen(InputsRead())
    (run_job,) = begin_runs([plan], listen, lambda plan: plan.resume_or_create(run))
    run = run_job.run
    if parent is not None and shared_folds:
        numbers = f"fold{'s' * (len(shared_folds) > 1)} {', '.join(map(str, shared_folds))}"
        log.info(f"{run.id} shares {numbers} with {parent.id}.")
        for fold in shared_folds:
            share_member(parent, run, fold)
    report = train_runs([run], [run_job], listen, started)
    make_complete_runs_current(report.runs)
    return report


def _has_folds(parent: RunRecord, plan: RunPlan) -> bool:
    """Whether a run already has the members that retraining these folds would give."""
    if not all(_has_member(parent, fold, plan.identity(fold)) for fold in plan.folds):
        return False
    numbers = f"fold{'s' * (len(plan.folds) > 1)} {', '.join(map(str, plan.folds))}"
    log.info(
        f"{parent.id} has {numbers} already, by the same recipe, data, plan and seed. --again trains them again, another "
        "--seed makes another run."
    )
    return True


def _log_trained(plan: RunPlan, run: RunRecord) -> None:
    """Logs that a run has these settings already; makes it current if there is no current run."""
    log.info(
        f"{run.id} has it already: the same recipe, data, plan and seed. --again trains it again, another "
        "--seed makes another run."
    )
    current = plan.inputs.workspace.current_or_none(plan.task)
    if current is None:
        make_current(plan.inputs.workspace, run)
    elif current != run.id:
        use = orch("runs", "use", run.id, workspace=plan.settings.workspace)
        log.info(f"{current} is the current {plan.task} run; `{use}` makes {run.id} current.")


def _has_member(run: RunRecord, fold: int, identity: str) -> bool:
    """Whether a run's member with this identity is complete and intact."""
    try:
        return check_member(run, fold).id == identity
    except DamagedError:
        return False


def _log_similar(plan: RunPlan) -> None:
    """Logs the runs that differ from the planned one in a setting or two."""
    inputs = plan.inputs
    runs = inputs.workspace.runs(plan.task)
    for line in similar_runs(runs, inputs.ingredients(plan.task), plan.recipe, plan.settings.seed):
        log.info(line)


def first_jobs(settings: Settings, specialists: Mapping[str, Specialist], listen: Listener) -> dict[str, MemberJob]:
    """The job of the first member of each specialist's run with these settings, for benchmarks.

    Raises:
        WorkspaceError: the settings have made no run.
    """
    settings = settings.or_defaults()
    inputs = read_inputs(settings, specialists)
    plans = [RunPlan(settings, inputs, task) for task in specialists]
    jobs = {}
    for plan, pixels in zip(plans, pixels_of(plans, listen), strict=True):
        run = plan.find()
        if run is None:
            raise WorkspaceError(f"{settings.workspace}: no {plan.task} run of these settings. Train it first.")
        jobs[plan.task] = first_job(RunJob(settings, specialists[plan.task], inputs, run, pixels))
    return jobs


def train_runs(
    runs: Sequence[RunRecord],
    run_jobs: Sequence[RunJob],
    listen: Listener,
    started: float,
) -> Report:
    """Trains the missing and damaged members of runs in one queue, and completes the runs that then have all members.

    Damaged members are set aside. A member that is missing in the end is a failure, whatever its result says.

    Args:
        runs: all runs of the command, including complete ones.
        run_jobs: what to train, for the incomplete runs.
        listen: receives progress events.
        started: when the command started, by time.monotonic, seconds.

    Raises:
        WorkspaceError: another command is working on a run.
        ConfigError: a member would train on a single photo per epoch.
    """
    open_jobs = [run_job for run_job in run_jobs if not run_job.run.complete]
    for run_job in open_jobs:
        run, present = run_job.run, versions()
        recorded = run.environment.versions
        changed = [
            f"{package} {recorded.get(package)} -> {version}"
            for package, version in present.items()
            if version != recorded.get(package)
        ]
        if changed:
            log.warning(
                f"{run.id} was started with other versions ({', '.join(changed)}): its later epochs may differ in bits."
            )
    ends: dict[str, dict[tuple[str, int | None], str]] = {"failed": {}, "pruned": {}, "cancelled": {}}
    trained: dict[str, list[int | None]] = {}
    at_once, training = 1, 0.0
    with ExitStack() as locks:
        for run_job in open_jobs:
            lock_run(locks, run_job.run)
            set_aside_damaged(run_job.run)
        jobs = missing_jobs(open_jobs)
        if jobs:
            executor = open_jobs[0].settings.executor_or_default()
            # The runs' own number of threads: another number would give other bits.
            at_once, _ = executor.parallelism(len(jobs), jobs[0].device, max(job.threads for job in jobs))
            for job in jobs:
                trained.setdefault(job.run, []).append(job.fold)
            listen(_started_event(jobs, at_once, open_jobs[0].run.root))
            training_started = time.monotonic()
            try:
                for result in executor.run(jobs, at_once, listen):
                    if result.outcome != "done":
                        ends[result.outcome][result.key] = result.why
            finally:
                listen(TrainingEnded())
            training = time.monotonic() - training_started
        for run_job in open_jobs:
            for fold, why in _finish(run_job).items():
                if not any((run_job.run.id, fold) in ended for ended in ends.values()):
                    ends["failed"][run_job.run.id, fold] = why
    seconds = time.monotonic() - started
    return Report(list(runs), ends["failed"], seconds, ends["pruned"], ends["cancelled"], trained, at_once, training)


def _started_event(jobs: Sequence[MemberJob], at_once: int, workspace: Path) -> TrainingStarted:
    members = []
    for job in jobs:
        history = history_of(job.folder)
        best = max((epoch.scores.macro_f1 for epoch in history if epoch.scores), default=0.0)
        members.append(PlannedMember(job.run, job.fold, job.folder, job.recipe.epochs, len(history), job.work, best))
    return TrainingStarted(tuple(members), at_once, jobs[0].threads, jobs[0].device, workspace)


def _finish(run_job: RunJob) -> dict[int | None, str]:
    """Cleans up after training; completes a run that has all its members.

    Returns:
        Fold -> what is wrong with its member, for the folds that were to be trained and are missing or damaged.
    """
    run = run_job.run
    for folder in run.members:
        remove_leftovers(folder)
    missing = [fold for fold in update_status(run, files=False) if run_job.only is None or fold in run_job.only]
    return {fold: _why_missing(run, fold) for fold in missing}


def _why_missing(run: RunRecord, fold: int | None) -> str:
    """What is wrong with a member that is missing or damaged, as a sentence."""
    try:
        check_member(run, fold, files=False)
    except DamagedError as error:
        return str(error)
    return f"{run.id}: its member was missing when training ended."  # the check passes now, so it was written meanwhile


def make_complete_runs_current(runs: Sequence[RunRecord]) -> None:
    """Makes complete runs that are to be offered their specialists' current ones, each once."""
    for run in runs:
        if run.complete and run.to_be_offered:
            make_current(Workspace(run.root), run)
            run.update(was_offered=True)

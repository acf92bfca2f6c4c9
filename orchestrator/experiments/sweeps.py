"""A search for better settings of one specialist: trials drawn, trained as runs, pruned, all of it on record.

    runs/sweeps/age-1a2b3c4d.db     the search's storage (`search`); its name is a digest of what defines the search

Trials run in rounds, as many as train at once. A round's draws depend only on the rounds before it, so a search that
is killed resumes with the same trials.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.artifacts.annotations import annotate
from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import ConfigError, TrainingError, WeightsError, WorkspaceError, quantity
from orchestrator.core.events import InputsRead, Listener
from orchestrator.core.files import digest_of
from orchestrator.core.metrics import score
from orchestrator.experiments.budget import Budget
from orchestrator.experiments.comparing import Comparison, compare_runs
from orchestrator.experiments.search import COMPLETE, FAILED, PRUNED, Search, Trial, thresholds_of
from orchestrator.pipeline.inputs import Inputs, read_inputs
from orchestrator.pipeline.preparation import RunJob, begin_runs, missing_jobs
from orchestrator.pipeline.retraining import StartingPoint, log_base
from orchestrator.pipeline.run_plans import RunPlan
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import Report, train_runs
from orchestrator.recipes.spaces import Space
from orchestrator.specialist import Specialist

__all__ = ["Sweep", "sweep"]

log = logging.getLogger(__name__)

TAG = "sweep"
HOPELESS = 4
"""A search stops if the first trials of a command, this many, all fail: something is wrong with all of them."""


@dataclass(frozen=True)
class Sweep:
    """The state of a search.

    Attributes:
        name: its name, which is also that of its storage.
        reference: the run of the recipe as it is, with which trials are compared.
        reference_score: the reference's out-of-fold macro F1.
        trials: all trials so far.
        requested: requested number of trials.
        importance: axis -> share of the differences that it explains; empty for too few trials.
        comparison: the best trial's run compared with the reference; None if no trial is complete, if the best one is
            the recipe as it is, or if its run was deleted.
        seconds: wall-clock seconds of this command's search.
        out_of_time: whether time ran out before all trials ended.
    """

    name: str
    reference: RunRecord
    reference_score: float
    trials: list[Trial]
    requested: int
    importance: Mapping[str, float]
    comparison: Comparison | None
    seconds: float
    out_of_time: bool = False

    @property
    def ended(self) -> int:
        """Number of trials that ended: complete, pruned or failed."""
        return sum(trial.state in (COMPLETE, PRUNED, FAILED) for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The complete trial with the highest score; of equal ones the first."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, -trial.number)) if scored else None

    @property
    def winner(self) -> RunRecord:
        """The run of the best trial where that scores above the reference, else the reference.

        Raises:
            WorkspaceError: that run was deleted.
        """
        best = self.best
        if best is None or best.run is None or best.score is None or best.score <= self.reference_score:
            return self.reference
        return Workspace(self.reference.root).run(best.run)

    @property
    def ranked(self) -> list[Trial]:
        """Complete trials by their scores, then pruned ones, then failed ones."""
        order = {COMPLETE: 0, PRUNED: 1, FAILED: 2}
        return sorted(self.trials, key=lambda trial: (order.get(trial.state, 3), -(trial.score or 0.0), trial.number))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        best = self.best
        return {
            "sweep": self.name, "reference": {"run": self.reference.id, "macro_f1": self.reference_score},
            "requested": self.requested, "ended": self.ended, "out_of_time": self.out_of_time,
            "seconds": self.seconds, "importance": dict(self.importance),
            "best": None if best is None else best.number,
            "comparison": None if self.comparison is None else self.comparison.as_dict()["runs"][1:],
            "trials": [
                {
                    "number": trial.number, "state": trial.state, "run": trial.run, "macro_f1": trial.score,
                    "changes": list(trial.changes), "why": trial.why,
                }
                for trial in self.trials
            ],
        }  # fmt: skip


def sweep(
    start: StartingPoint,
    space: Space,
    listen: Listener,
    budget: Budget,
    tags: Sequence[str] = (),
    at: str = "",
    earlier: Inputs | None = None,
) -> Sweep:
    """Searches a space, or resumes a search.

    Args:
        start: everything except the space; its recipe is the reference.
        space: the search space, checked on that recipe; if it has choices alone, no point is repeated.
        listen: receives progress events.
        budget: how much it may take.
        tags: tags for the runs, in addition to `sweep`.
        at: how the reference differs from the recipe, as text: ", at 96 x 64".
        earlier: inputs that were read with settings that differ only in the recipe, as in `read_inputs`.

    Raises:
        OrchestratorError: something is wrong with the inputs, before any training; or with every trial.
        CancelledError: a stop was requested; the same call resumes.
    """
    started, task, settings = time.monotonic(), start.task, start.settings
    start.check_scored("a search")
    log_base(start.base, settings)
    inputs = read_inputs(settings, {task: start.specialist}, start.base, earlier)
    if earlier is None:
        listen(InputsRead())
    name = f"{task}-{_identity(settings, inputs, task, space)[:8]}"
    file = inputs.workspace.sweeps / f"{name}.db"
    file.parent.mkdir(exist_ok=True)
    try:
        with FileLock(file.with_suffix(".lock"), blocking=False):
            search = Search(file, space, settings.seed)
            if search.database_missing:
                log.info(f"{file} is gone: the search starts over. Runs that it trained are found again.")
            state = _Rounds(start, inputs, listen, search, [TAG, name, *tags], at)
            try:
                return state.run(name, budget, started)
            finally:
                search.close()
    except Timeout:
        raise WorkspaceError(f"{name}: another orch command runs this search. Wait for it, or stop it.") from None


def _identity(settings: Settings, inputs: Inputs, task: str, space: Space) -> str:
    """Digest of all that defines a search: any change makes another one."""
    return digest_of([RunPlan(settings, inputs, task).key, space.text])


@dataclass(frozen=True)
class _Rounds:
    """A running search: it draws trials round by round, trains them, and stops within its budget."""

    start: StartingPoint
    inputs: Inputs
    listen: Listener
    search: Search
    tags: Sequence[str]
    at: str

    def run(self, name: str, budget: Budget, started: float) -> Sweep:
        count, until = budget.trials, None if budget.minutes is None else started + 60 * budget.minutes
        most = len(self.search.space.points) if self.search.space.points is not None else count
        log.info(
            f"{name}: {quantity(min(count, most), 'trial')} of {quantity(len(self.inputs.data.folds), 'fold')} each."
        )
        reference = self._reference()
        at_once, _ = self.start.settings.executor_or_default().parallelism(count, self.inputs.device)
        late, ended_before = False, {trial.number for trial in self._ended()}
        while True:
            ended = self._ended()
            _stop_if_hopeless(name, [trial for trial in ended if trial.number not in ended_before], count - len(ended))
            if len(ended) >= count:
                break
            if until is not None and time.monotonic() >= until:
                late = len(ended) < min(count, most)
                if late:
                    log.info(f"time ran out: {len(ended)} of {quantity(min(count, most), 'trial')} ended.")
                break
            drawn = self.search.ask(min(at_once, count - len(ended)))
            if not drawn:
                log.info("every point of the space is tried.")
                break
            self._round(drawn, ended if budget.prune else [], reference.threads)
            self._log_trials(drawn, min(count, most))
        trials = self.search.trials
        result = Sweep(
            name, reference, _score(self.inputs.workspace, reference, self.start.specialist), trials, count,
            self.search.importance(), None, time.monotonic() - started, late,
        )  # fmt: skip
        existing = {run.id for run in self.inputs.workspace.runs()}
        if deleted := [trial for trial in trials if trial.run is not None and trial.run not in existing]:
            log.info(
                f"the runs of {quantity(len(deleted), 'trial')} were deleted: their scores count, nothing else is left."
            )
        best = result.best
        if best is None or best.run == reference.id or best.run not in existing:
            return result
        pair = [reference, self.inputs.workspace.run(best.run)]
        return replace(result, comparison=compare_runs(self.inputs.workspace, pair, self.start.specialist))

    def _ended(self) -> list[Trial]:
        """The trials that ended: complete, pruned or failed."""
        return [trial for trial in self.search.trials if trial.state in (COMPLETE, PRUNED, FAILED)]

    def _log_trials(self, drawn: Sequence[Trial], count: int) -> None:
        """Logs how a round ended, and the state of the search."""
        trials = self.search.trials
        scored = [trial for trial in trials if trial.score is not None]
        best = max(scored, key=lambda trial: (trial.score, -trial.number), default=None)
        so_far = f"; best so far {best.score:.4f} (trial {best.number})" if best is not None else ""
        for trial in (trials[each.number] for each in drawn):
            how = f"macro F1 {trial.score:.4f}" if trial.score is not None else trial.state
            log.info(f"trial {trial.number} ({' '.join(trial.changes)}): {how}")
        ended = sum(trial.state in (COMPLETE, PRUNED, FAILED) for trial in trials)
        log.info(f"{ended} of {quantity(count, 'trial')} ended{so_far}.")

    def _reference(self) -> RunRecord:
        """The recipe as it is, trained or found."""
        settings, inputs = self.start.settings, self.inputs
        plan = self._plan(settings, inputs, together=1)
        run = plan.find()
        if run is None or not run.complete:
            (run_job,) = begin_runs([plan], self.listen, self._run)
            run = run_job.run
            report = train_runs([run], [run_job], self.listen, time.monotonic())
            report.raise_if_cancelled()
            if report.failures:
                raise TrainingError("\n".join(report.failures.values()))
        log.info(f"{run.id} is the recipe as it is{self.at}; trials are compared with it.")
        return run

    def _round(self, drawn: Sequence[Trial], ended: Sequence[Trial], threads: int) -> None:
        """Trains some trials: their first folds together, then the others of those that were not pruned."""
        ready: list[tuple[Trial, RunJob]] = []
        run_jobs: dict[str, RunJob] = {}
        for trial in drawn:
            try:
                run_job = self._work(trial, len(drawn), ended, threads)
            except (ConfigError, WeightsError) as error:  # settings that cannot go together, or weights out of reach
                self.search.record_end(replace(trial, state=FAILED, why=str(error)))
                log.info(f"trial {trial.number} ({' '.join(trial.changes)}) cannot run: {error}")
                continue
            run_job = run_jobs.setdefault(run_job.run.id, run_job)  # two trials may draw one point, which is one run
            self.search.note_run(trial.number, run_job.run.id)
            ready.append((trial, run_job))
        first = train_runs(
            [run_job.run for run_job in run_jobs.values()],
            [replace(run_job, only=tuple(run_job.run.own_folds[:1])) for run_job in run_jobs.values()],
            self.listen, time.monotonic(),
        )  # fmt: skip
        first.raise_if_cancelled()  # before the results are recorded, so that the same search resumes these trials
        stopped = {run for run, _ in [*first.failures, *first.pruned]}
        unpruned = [
            replace(run_job, pruning_thresholds={})
            for name, run_job in run_jobs.items()
            if name not in stopped and len(run_job.run.own_folds) > 1
        ]
        second = train_runs([run_job.run for run_job in unpruned], unpruned, self.listen, time.monotonic())
        second.raise_if_cancelled()
        for trial, run_job in ready:
            self.search.record_end(self._end(trial, run_job, first, second))

    def _work(self, trial: Trial, together: int, ended: Sequence[Trial], threads: int) -> RunJob:
        task = self.start.task
        words = [f"{task}.{word}" for word in trial.changes]
        settings = replace(self.start.settings, changes=[*self.start.settings.changes, *words])
        inputs = read_inputs(settings, {task: self.start.specialist}, self.start.base, self.inputs)
        plan = self._plan(settings, inputs, together, threads)
        (run_job,) = begin_runs([plan], self.listen, self._run)
        thresholds = thresholds_of(ended, plan.recipe.epochs, plan.recipe.evaluate_every)
        run_job = replace(run_job, pruning_thresholds=thresholds)
        # Refuses a point that draws too few photos to train on: its trial fails, not the search.
        missing_jobs([run_job])
        return run_job

    def _plan(self, settings: Settings, inputs: Inputs, together: int, threads: int = 0) -> RunPlan:
        """The run of some settings, as planned; never the current one by itself."""
        members = together * len(inputs.data.folds)
        return RunPlan(
            settings, inputs, self.start.task, self.start.base, make_current="never", members=members, threads=threads
        )

    def _run(self, plan: RunPlan) -> RunRecord:
        """A planned run, found or begun, and tagged."""
        run = plan.find_or_create()
        annotate(run, tags=self.tags)
        return run

    def _end(self, trial: Trial, run_job: RunJob, *reports: Report) -> Trial:
        """How a trial ended, with its curve."""
        run = run_job.run
        trial = replace(trial, run=run.id, curve=_curve(run, run_job.inputs.recipes[run.task].epochs))
        for report in reports:
            for (name, _), why in report.failures.items():
                if name == run.id:
                    return replace(trial, state=FAILED, why=why)
            for (name, _), why in report.pruned.items():
                if name == run.id:
                    annotate(run, tags=["pruned"])
                    return replace(trial, state=PRUNED, why=why)
        return replace(trial, state=COMPLETE, score=_score(self.inputs.workspace, run, self.start.specialist))


def _stop_if_hopeless(name: str, ended: Sequence[Trial], left: int) -> None:
    """Stops a search whose trials all fail.

    Args:
        name: the search's name.
        ended: the trials that this command ended; what made trials of earlier commands fail may have been fixed.
        left: number of trials that are still to be tried.

    Raises:
        TrainingError: all of these trials have failed, and they are enough to show it.
    """
    if len(ended) < HOPELESS or any(trial.state != FAILED for trial in ended):
        return
    more = "" if left > 0 else ", with more --trials"
    raise TrainingError(
        f"{name}: the first {len(ended)} trials of this command all failed. The last one: {ended[-1].why}\n"
        f"Fix what made them fail, and run the same command again{more}: it goes on with other points. Another --seed, "
        "or a --space without what cannot work, begins another search."
    )


def _score(workspace: Workspace, run: RunRecord, specialist: Specialist) -> float:
    """A run's out-of-fold macro F1."""
    held_out = held_out_of(workspace, run)
    return score(held_out.truth, held_out.choice, len(specialist.classes)).macro_f1


def _curve(run: RunRecord, epochs: int) -> tuple[tuple[float, float], ...]:
    """The best macro F1 so far of a run's first member, by the share of its training."""
    best, curve = 0.0, []
    for epoch in history_of(run.members[0]):
        if epoch.scores:
            best = max(best, epoch.scores.macro_f1)
            curve.append((epoch.number / epochs, best))
    return tuple(curve)

"""Run plans: a planned run is found among the existing ones, resumed, or created. Every training goes through this module.

A run's key is a digest of everything that its result depends on; it decides whether a command resumes a run or creates
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from orchestrator.artifacts.environment import environment_of
from orchestrator.artifacts.locks import lock_run
from orchestrator.artifacts.members import set_aside_damaged
from orchestrator.artifacts.provenance import WeightsSource
from orchestrator.artifacts.run import UNFINISHED, PlanKey, RunRecord
from orchestrator.artifacts.workspace import now
from orchestrator.pipeline.inputs import Inputs
from orchestrator.pipeline.settings import Settings, changes_of
from orchestrator.recipes.load import choices_of
from orchestrator.recipes.names import DEFAULT_RECIPE, is_file_name, recipe_path
from orchestrator.recipes.schema import Recipe

__all__ = ["RunPlan", "find_runs"]


@dataclass(frozen=True)
class RunPlan:
    """What a planned run is made from.

    Attributes:
        settings: what the command asks for.
        inputs: the inputs read by these settings.
        task: its specialist.
        base: the run whose recipe was used if none was named.
        parent: the run to share members with; None: all members are trained.
        folds: the folds to train; empty: all folds of the data.
        make_current: when it is complete, `auto` may make it its specialist's current run; `never` (experiments) does
            not.
        members: total number of members that the command trains, which share the cores.
        threads: threads per member; 0: as in the base run, else as many as the cores allow. Another number sums in
            another order, which changes results like another seed: runs that are compared need the same number.
    """

    settings: Settings
    inputs: Inputs
    task: str
    base: RunRecord | None = None
    parent: RunRecord | None = None
    folds: Sequence[int] = ()
    make_current: Literal["auto", "never"] = "auto"
    members: int = 1
    threads: int = 0

    @property
    def recipe(self) -> Recipe:
        """The recipe that it is trained by."""
        return self.inputs.recipes[self.task]

    @cached_property
    def key(self) -> str:
        """A digest of everything that its result depends on."""
        folds = sorted(self.folds) or self.inputs.data.folds
        parent = self.parent.id if self.parent else None
        return self.inputs.ingredients(self.task).run_key(folds, self.settings.seed, self.inputs.device, parent)

    def identity(self, fold: int | None) -> str:
        """The id that the card of its member for a fold will have."""
        return self.inputs.ingredients(self.task).member_id(fold, self.settings.seed)

    def find(self) -> RunRecord | None:
        """The newest run of this key, complete or not."""
        return self.inputs.workspace.newest_run(self.task, self.key)

    def find_open(self) -> RunRecord | None:
        """The newest run of this key with something left to do: unfinished, or killed before it was offered."""
        return self.inputs.workspace.newest_run(self.task, self.key, open_only=True)

    def find_or_create(self) -> RunRecord:
        """The run of this key, or a new one."""
        with self.inputs.workspace.lock():
            run = self.find()
            return self._create() if run is None else self._taken_over(run)

    def resume_or_create(self, run: RunRecord | None) -> RunRecord:
        """Reloads a run that was found; without one, gives an open run created meanwhile, or a new one."""
        with self.inputs.workspace.lock():
            run = self.find_open() if run is None else RunRecord.load(run.folder)
            return self._create() if run is None else self._taken_over(run)

    def _taken_over(self, run: RunRecord) -> RunRecord:
        """An existing run; one of an experiment that is unfinished is offered too in the end, if this plan's run is."""
        if self.make_current == "auto" and not run.complete and not run.to_be_offered:
            run.update(make_current="auto", was_offered=False)
        return run

    def _create(self) -> RunRecord:
        """Writes the record of a run that is to be trained; the caller holds the workspace's lock."""
        settings, inputs, base, parent = self.settings, self.inputs, self.base, self.parent
        threads = self.threads
        if not threads and base is not None and base.device == inputs.device == "cpu":
            threads = base.threads
        threads = threads or settings.executor_or_default().parallelism(self.members, inputs.device)[1]
        recipe_name, plan = choices_of((self.task,), settings.recipes)[0].get(self.task, ""), inputs.data.plan
        if is_file_name(recipe_name):
            recipe_name = str(recipe_path(recipe_name).absolute())  # a printed command finds it from any folder
        folds: list[int | None] = [*self.folds] or inputs.data.folds
        if parent:
            folds = [*sorted({*self.folds, *(fold for fold in parent.folds if fold is not None)})]
        specialist = inputs.specialists[self.task]
        run = RunRecord(
            folder=Path(), id="", task=self.task, status=UNFINISHED, created=now(),
            recipe_name=recipe_name or (base.recipe_name if base else DEFAULT_RECIPE),
            changes=changes_of(settings, specialist, base),
            recipe=self.recipe.model_dump(mode="json"), chosen=self.recipe.chosen, seed=settings.seed, folds=folds,
            plan=None if plan is None else PlanKey(plan.digest, plan.k, plan.seed),
            data=inputs.data.about(settings, specialist, self.recipe),
            initial_weights=WeightsSource(self.recipe.weights, inputs.weights[self.task].sha256),
            threads=threads, device=inputs.device,
            environment=environment_of(inputs.device),
            parent=parent.id if parent else None, retrained=sorted(self.folds) if parent else [],
            make_current=self.make_current,
        )  # fmt: skip
        inputs.workspace.add_run(run)
        return run


def find_runs(
    plans: Sequence[RunPlan], find: Callable[[RunPlan], RunRecord | None] = RunPlan.find
) -> list[RunRecord | None]:
    """The existing run of each plan, None where there is none: the first step of every training, before anything slow.

    Damaged members are set aside, so that they are trained again: a complete run that had one is unfinished then.

    Args:
        plans: run plans.
        find: finds the run of a plan.

    Raises:
        WorkspaceError: another command is working on a run.
        DamagedError: a file is damaged and may not be replaced.
    """
    runs = [find(plan) for plan in plans]
    for run in runs:
        if run is not None:
            with ExitStack() as locks:
                lock_run(locks, run)
                set_aside_damaged(run)
    return runs

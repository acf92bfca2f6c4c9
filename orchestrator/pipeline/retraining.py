"""Retraining one specialist, or some of its folds, so that its scores still combine with the others'."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import ConfigError, WorkspaceError, quantity
from orchestrator.core.labels import TASKS
from orchestrator.pipeline.settings import DEFAULT_FOLDS, Settings, base_recipe, check_early
from orchestrator.specialist import Specialist

if TYPE_CHECKING:
    from orchestrator.pipeline.inputs import Inputs
    from orchestrator.recipes.schema import Recipe

__all__ = ["StartingPoint", "check_folds", "log_base", "starting_point"]

log = logging.getLogger(__name__)

NEVER_MIX = "members of different plans never mix. Leave --folds and --plan-seed out, or retrain all (without --fold)."


@dataclass(frozen=True)
class StartingPoint:
    """What a retraining, a grid or a search starts from: decided once, before the slow imports.

    Attributes:
        settings: what the command asks for; its fold plan is filled in.
        specialist: the specialist to train.
        base: the run whose recipe is used if none is named; None: the default recipe is.
        folds: the folds to retrain, in order; the other members are shared with the base run. Empty: all are trained.
    """

    settings: Settings
    specialist: Specialist
    base: RunRecord | None = None
    folds: tuple[int, ...] = ()

    @property
    def task(self) -> str:
        """The name of the specialist that is trained: a task, or `joint`."""
        return self.specialist.name

    @property
    def recipe(self) -> Recipe | None:
        """The base run's recipe, where no recipe is named for the task; None where one is, or without a base."""
        return base_recipe(self.settings, self.base)

    def check_scored(self, purpose: str) -> None:
        """Refuses a fold plan that holds nobody out.

        Args:
            purpose: what compares scores, as the subject of the message.

        Raises:
            ConfigError: there is no plan.
        """
        if self.settings.folds == 0:
            raise ConfigError(
                f"{purpose} compares out-of-fold scores, and --folds 0 holds nobody out: give --folds 2 or more."
            )


def starting_point(
    settings: Settings, specialist: Specialist, base: str | None = None, folds: Sequence[int] = ()
) -> StartingPoint:
    """The starting point of a command, checked as far as names and small files show.

    Args:
        settings: what the command asks for, with `folds` or `plan_seed` None if unset.
        specialist: the specialist to train.
        base: id of the run to start from; None: the current run.
        folds: the folds to retrain; empty: all.

    Raises:
        ConfigError: wrong recipes, settings or folds, or a base run of another specialist.
        DataError: there is nothing at a path.
        WeightsError: a recipe's weights are not a file.
        WorkspaceError: there is no such run; or none is current though there are some.
    """
    if folds and settings.new_plan:
        raise ConfigError(
            "--new-plan holds other people out, and --fold shares the members of a run: leave one of them out."
        )
    run = _base_run(settings.workspace, specialist.name, base, bool(folds))
    resolved = _resolve_plan(settings, specialist.name, folds, run)
    if folds and run is not None:
        resolved = replace(resolved, follow=run.id)
    _check_fold_numbers(folds, resolved.folds)
    if folds and run is not None:
        _check_same_plan(run, resolved)
    check_early(resolved, {specialist.name: specialist}, run)
    return StartingPoint(resolved, specialist, run, tuple(sorted(set(folds))))


def _resolve_plan(settings: Settings, task: str, folds: Sequence[int] = (), base: RunRecord | None = None) -> Settings:
    """Fills in unset options of the fold plan from the current runs, so that scores still combine.

    Args:
        settings: settings with `folds` or `plan_seed` None if unset.
        task: the specialist to retrain; its own current run comes first.
        folds: the folds to retrain; if these and `settings.folds` are unset, the first folds of a current run are kept.
        base: the run to start from, which takes precedence over the current runs.
    """
    k, seed, folds_used = DEFAULT_FOLDS, 0, settings.folds_used
    if Workspace.is_at(settings.workspace):
        workspace = Workspace(settings.workspace)
        others = [
            workspace.current_or_none(other) for other in TASKS if other != task
        ]  # a lost choice of theirs is their own
        names = list(filter(None, (workspace.current(task), *others))) if base is None else []
        if base is not None or names:
            run = base or workspace.run(names[0])
            k, seed = (run.plan.k, run.plan.seed) if run.plan else (0, 0)
            covers_first_folds = run.partial and run.folds == list(range(len(run.folds)))
            if covers_first_folds and not folds_used and settings.folds is None and not folds:
                folds_used = len(run.folds)
    k = k if settings.folds is None else settings.folds
    return replace(
        settings, folds=k, plan_seed=seed if settings.plan_seed is None else settings.plan_seed, folds_used=folds_used
    )


def log_base(base: RunRecord | None, settings: Settings) -> None:
    """Logs the run whose recipe is used, if no recipe is named."""
    if base is not None and not settings.recipes:
        changed = f" with {quantity(len(base.changes), 'change')}" if base.changes else ""
        new_changes = f", with {' '.join(settings.changes)}" if settings.changes else ""
        seeds = ", ".join(map(str, base.seeds))
        seed = f" Its seed was {seeds}, this one's is {settings.seed}." if base.seeds != [settings.seed] else ""
        log.info(f"recipe: that of {base.id} ({base.recipe_title}{changed}){new_changes}.{seed}")


def _base_run(root: Path, task: str, base: str | None, sharing: bool = False) -> RunRecord | None:
    """The run that a retraining or a search starts from: the one named, else the current one, else none.

    It may be unfinished: its recipe and plan are in its record all the same.

    Args:
        root: the workspace's folder.
        task: the specialist.
        base: the id of a run.
        sharing: whether its members will be shared, so that it must be complete.

    Raises:
        ConfigError: the run is of another specialist.
        WorkspaceError: there is no such run, or it is unfinished though its members are to be shared; or none is current
            though there are some.
    """
    if base is None and not Workspace.is_at(root):
        return None
    workspace = Workspace(root)
    name = base or workspace.current_unless_lost(task)
    if name is None:
        return None
    run = workspace.run(name)
    if run.task != task:
        raise ConfigError(f"--base {name}: a run of the {run.task} specialist; needed: one of {task}.")
    if sharing and not run.complete:
        raise WorkspaceError(f"--fold shares the members of {name}, and that run is unfinished: {run.way_to_complete}")
    return run


def _check_fold_numbers(folds: Sequence[int], k: int | None) -> None:
    """Refuses folds that a plan of `k` does not have; needs no data."""
    if folds and not k:
        raise ConfigError("--fold goes with a fold plan; --folds 0 has none.")
    wrong = [fold for fold in folds if not 0 <= fold < (k or 0)]
    if wrong:
        raise ConfigError(f"--fold {', '.join(map(str, wrong))}: allowed: 0 to {(k or 0) - 1}.")


def _check_same_plan(run: RunRecord, settings: Settings) -> None:
    """Refuses to retrain folds of a run by another number of folds or another seed of the plan than its own; needs no data."""
    if run.plan is None:
        raise ConfigError(f"--fold: {run.id} was trained without a plan (--folds 0): {NEVER_MIX}")
    if (run.plan.k, run.plan.seed) != (settings.folds, settings.plan_seed):
        raise ConfigError(
            f"--fold: {run.id} was trained by --folds {run.plan.k} --plan-seed {run.plan.seed}, and this command asks for "
            f"--folds {settings.folds} --plan-seed {settings.plan_seed}: {NEVER_MIX}"
        )


def check_folds(inputs: Inputs, parent: RunRecord) -> None:
    """Refuses to retrain folds of a run by another recipe or plan, on other data or from other weights than its own.

    Raises:
        ConfigError: one of them differs; says how to make them equal.
    """
    if inputs.recipes[parent.task].digest() != parent.checked_recipe().digest():
        raise ConfigError(
            f"--fold retrains folds of {parent.id}, and the settings differ from its recipe. A run has one recipe: leave "
            "--recipe and --set out, or retrain the whole specialist (without --fold)."
        )
    assert parent.plan is not None  # `_check_same_plan` has seen it
    assert inputs.data.plan is not None
    if parent.plan.digest != inputs.data.plan.digest:
        raise ConfigError(
            f"--fold: {parent.id} was trained by plan {parent.plan.digest[:12]}, and the same folds and seed make "
            f"{inputs.data.plan.digest[:12]} of this data: members of different plans never mix. Give the data that it was "
            "trained on, or retrain the whole specialist (without --fold)."
        )
    if parent.initial_weights.sha256 != inputs.weights[parent.task].sha256:
        raise ConfigError(
            f"--fold: the initial weights ({inputs.recipes[parent.task].weights}) differ from those that {parent.id} started "
            "from. Restore them, or retrain the whole specialist (without --fold)."
        )
    if parent.extra != inputs.extra_of(parent.task):
        raise ConfigError(
            f"--fold: {parent.id} was trained with other extra photos: members of different data never mix. Give the "
            "same --extra, or retrain the whole specialist (without --fold)."
        )
    if parent.data.fingerprint != inputs.fingerprint_of(parent.task):
        raise ConfigError(
            f"--fold: the photos or their labels changed since {parent.id} was trained: members of different data never mix. "
            "Retrain the whole specialist (without --fold)."
        )

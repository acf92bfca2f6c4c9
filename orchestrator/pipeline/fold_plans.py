"""The fold plan that a training follows: drawn once in a workspace, and extended when the data grows.

Runs whose plans hold the same people out in the same folds can be scored together, so people keep their folds for good:
whatever was corrected in their labels, whoever joins, whoever leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.artifacts.origins import plan_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import DamagedError, LeakError, PlanError, Problem
from orchestrator.data.folds import FoldPlan, plan_folds
from orchestrator.data.spelling import near, visible
from orchestrator.pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ChosenPlan", "choose_plan"]

NEW_PLAN = "--new-plan draws another, for runs that are trained anew."


@dataclass(frozen=True)
class ChosenPlan:
    """The plan that a training follows.

    Attributes:
        plan: the plan, which knows everybody in the data.
        followed: the plan of the workspace that it is, or extends; None: it was drawn.
    """

    plan: FoldPlan
    followed: FoldPlan | None = None

    def about(self, people: pd.DataFrame) -> str:
        """A sentence on who joined and who left since the plan that is followed was made; empty if nobody did."""
        if self.followed is None:
            return ""
        joined = len(self.plan.fold_of) - len(self.followed.fold_of)
        left = len(self.plan.fold_of) - len(people)
        parts = []
        if joined:
            new = "1 new person was" if joined == 1 else f"{joined:,} new people were"
            parts.append(f"{new} dealt out to the folds of plan {self.followed.name}, in which all others stay")
        if left:
            parts.append(
                f"{'1 person' if left == 1 else f'{left:,} people'} of the plan {'is' if left == 1 else 'are'} not here"
            )
        return f"{'; '.join(parts)}. (--new-plan draws the folds anew.)" if parts else ""


def choose_plan(settings: Settings, people: pd.DataFrame) -> ChosenPlan | None:
    """The plan for some people; None if everything is trained on.

    It is that of the workspace's newest run with as many folds, the same seed and a person in common, extended by whoever is
    new to it. Without such a run, or with `new_plan`, a plan is drawn.

    Args:
        settings: what the command asks for.
        people: one row per person, indexed by key; columns `gender` and `age` (years) where known.

    Raises:
        PlanError: there are too many folds for the people, or one of them holds nobody of this data out.
        LeakError: people are spelt almost as others who have a fold already.
        DamagedError: the file of the workspace's plan is damaged, and these people do not give the same plan again.
    """
    k, seed = settings.folds, settings.plan_seed or 0
    if not k:
        return None
    followed = None if settings.new_plan else _newest(settings, people, k, seed)
    if followed is None:
        return ChosenPlan(plan_folds(people, k, seed))
    plan = followed.extended(people)
    empty = sorted(set(range(k)) - set(plan.folds(people.index.to_series())))
    if empty:
        raise PlanError(
            f"the fold plan {plan.name} of {settings.workspace} holds nobody of this data out in fold "
            f"{', '.join(map(str, empty))}: {NEW_PLAN} Or choose another --workspace."
        )
    return ChosenPlan(plan, followed)


def _newest(settings: Settings, people: pd.DataFrame, k: int, seed: int) -> FoldPlan | None:
    """The plan of the newest run that knows some of the people, or of `follow`."""
    if not Workspace.is_at(settings.workspace):
        return None
    workspace = Workspace(settings.workspace)
    of_plan = [run for run in workspace.read_runs()[0] if run.plan and (run.plan.k, run.plan.seed) == (k, seed)]
    of_plan.sort(key=lambda run: run.data_read, reverse=True)
    plans, lost = _readable(workspace, of_plan)
    if lost:  # they may be what these people give again
        made_again = [plan.extended(people) for plan in plans.values()]
        with suppress(PlanError):
            made_again.append(plan_folds(people, k, seed))
        plans |= {plan.digest: plan for plan in made_again if plan.digest in lost}
    followed = [run for run in of_plan if settings.follow in (None, run.id)]
    for digest in dict.fromkeys(str(run.plan_digest) for run in followed):
        if digest not in plans:
            raise DamagedError(lost[digest].path, lost[digest].what, f"Restore it; or {NEW_PLAN}")
        if not settings.distinct_people:
            _check_spelling(plans[digest], people, settings)
        if people.index.isin(list(plans[digest].fold_of)).any():
            return plans[digest]
    return None


def _readable(workspace: Workspace, runs: Sequence[RunRecord]) -> tuple[dict[str, FoldPlan], dict[str, DamagedError]]:
    """The plans of some runs by digest, and the errors of those that cannot be read.

    Raises:
        DamagedError: a newer version wrote one of them.
    """
    plans, lost = dict[str, FoldPlan](), dict[str, DamagedError]()
    for digest, run in {str(run.plan_digest): run for run in runs}.items():
        try:
            plans[digest] = plan_of(workspace, run)
        except DamagedError as error:
            if not error.replaceable:
                raise
            lost[digest] = error
    return plans, lost


def _check_spelling(plan: FoldPlan, people: pd.DataFrame, settings: Settings) -> None:
    """Refuses people who are new to a plan and spelt almost as somebody in it: they would be dealt out a second time."""
    newcomers = [str(person) for person in people.index if person not in plan.fold_of]
    if not newcomers:
        return
    known = {near(person): person for person in plan.fold_of}
    problems = [
        Problem(
            str(settings.data),
            f"person '{visible(person)}' is spelt almost as '{visible(known[near(person)])}', who has a fold in the plan "
            f"{plan.name} of {settings.workspace}.",
            kind="near_people",
        )
        for person in newcomers
        if near(person) in known
    ]
    if problems:
        raise LeakError(
            f"{'1 person' if len(problems) == 1 else f'{len(problems):,} people'} may have a fold under another spelling, and "
            "would be dealt out again. Write everybody as before; or, if they are different people, --distinct-people.",
            problems,
        )

"""Finds, before any work, classes without photos, and classes so rare that some member trains without them.

A class without photos cannot be learned and counts as 0 in macro F1; a class that only one person has is either trained
on or scored, never both.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from orchestrator.core.errors import Problem, quantity
from orchestrator.core.labels import CLASSES, JOINT, TASKS, age_band_names
from orchestrator.data.folds import FoldPlan
from orchestrator.data.photos import Photos

__all__ = ["check_classes"]


def check_classes(photos: Photos, tasks: Iterable[str], plan: FoldPlan | None, extra: bool = False) -> list[Problem]:
    """Problems caused by missing and rare classes.

    Args:
        photos: table of photos.
        tasks: tasks to train; `joint` stands for its three. Tasks whose column is missing are skipped.
        plan: fold plan; None: all photos are trained on.
        extra: whether extra photos, which may supply a missing class, are trained on too.

    Returns:
        Fatal problems where nothing can be learned, notes otherwise.
    """
    names = [task for name in tasks for task in (TASKS if name == JOINT else (name,))]
    source = photos.source or photos.root
    problems = [_lonely(source, photos, plan)] if len(photos) else []
    for task in dict.fromkeys(names):
        if task in photos.table and len(photos):
            problems += _of_task(source, photos, task, plan, extra)
    return [problem for problem in problems if problem]


def _lonely(source: Path, photos: Photos, plan: FoldPlan | None) -> Problem | None:
    """A note where some member learns from a single person."""
    people = len(photos.people)
    if plan is None:
        is_single, learner = people == 1, "the member"
    else:
        sizes = pd.Series(dict(plan.fold_of)).value_counts()
        folds = [fold for fold in range(plan.k) if people - int(sizes.get(fold, 0)) == 1]
        is_single, learner = bool(folds), f"the member of fold {', '.join(map(str, folds))}"
    what = (
        f"{quantity(people, 'person') if people == 1 else f'{people} people'}: {learner} learns from a single person."
    )
    return (
        Problem(str(source), what, "Its answers will be worth little.", "few_people", fatal=False)
        if is_single
        else None
    )


def _of_task(source: Path, photos: Photos, task: str, plan: FoldPlan | None, extra: bool) -> list[Problem]:
    class_names = photos.table[task]
    if task == "age":
        class_names = pd.Series(age_band_names(class_names), index=class_names.index)
    people_by_class = {name: sorted(set(photos.table["person"][class_names == name])) for name in CLASSES[task]}
    present = [name for name, people in people_by_class.items() if people]
    if len(present) == 1:
        what = f"{task}: every photo is '{present[0]}', so there is nothing to tell apart."
        absent = " or ".join(name for name in people_by_class if name not in present)
        fix = f"Add photos of {absent}, or leave {task} out with --tasks."
        return [Problem(str(source), what, fix, "single_class", fatal=not extra)]
    problems = []
    for name, people in people_by_class.items():
        if not people:
            what = f"{task}: no photo is '{name}', so it is never learned here, and counts as 0 in macro F1."
            problems.append(Problem(str(source), what, kind="absent_class", fatal=False))
            continue
        folds = {plan.fold_of[person] for person in people} if plan is not None else set()
        if len(people) == 1:
            where = (
                f": the member of fold {min(folds)} trains without it, and the others are not scored on it"
                if folds
                else ""
            )
            what = f"{task}: only one person, {people[0]}, has '{name}'{where}."
            problems.append(Problem(str(source), what, kind="lone_class", fatal=False))
        elif len(folds) == 1 and plan is not None:
            what = f"{task}: only people of fold {min(folds)} have '{name}', so that fold's member trains without it."
            problems.append(Problem(str(source), what, kind="lone_class", fatal=False))
    return problems

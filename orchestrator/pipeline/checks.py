"""Checks of a recipe against the device, the plan and the data, and log messages about extra photos."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from orchestrator.core.errors import ConfigError, DataError, Problem, nearest, quantity
from orchestrator.data.classes import check_classes
from orchestrator.data.extra import ALONE, EVERY_FOLD, Extra
from orchestrator.data.folds import FoldPlan
from orchestrator.data.photos import Photos
from orchestrator.data.sharing import SHARED, WIDEN, shared_room
from orchestrator.recipes.schema import Recipe
from orchestrator.specialist import Specialist

__all__ = [
    "MIN_PHOTOS",
    "check_class_counts",
    "check_device_support",
    "check_dropped",
    "check_schedule",
    "check_training_rows",
    "loading_warning",
    "log_extra",
    "too_few",
]

log = logging.getLogger(__name__)


def check_schedule(task: str, recipe: Recipe, scored: bool) -> None:
    """Refuses a schedule that watches scores where there will be none.

    Raises:
        ConfigError: the schedule is `plateau`, and nobody is held out.
    """
    if recipe.schedule == "plateau" and not scored:
        raise ConfigError(f"{task}: schedule = plateau watches held-out people, and --folds 0 holds nobody out.")


def check_device_support(task: str, recipe: Recipe, device: str) -> None:
    """Rejects a recipe that the device cannot run.

    Raises:
        ConfigError: its precision, its workers or its use of SAM are not possible there.
    """
    if device == "cpu" and recipe.precision == "fp16":
        raise ConfigError(f"{task}: precision = fp16 needs a GPU; allowed on a CPU: auto, fp32, bf16.")
    if recipe.workers > 0:
        from orchestrator.data.loading import why_no_workers

        if why := why_no_workers(recipe.workers):
            raise ConfigError(f"{task}: {why}")
    if device and recipe.sam and _is_fp16(recipe.precision, device):
        raise ConfigError(
            f"{task}: sam takes two gradients a step, and fp16 scales them apart. Use precision=bf16 or fp32."
        )


def loading_warning(task: str, recipe: Recipe, device: str, photos: int) -> str:
    """A warning that shared memory is too small for the DataLoader workers' batches, which is slower; empty otherwise."""
    from orchestrator.data.loading import AHEAD
    from orchestrator.training.epoch import worker_count

    workers, room = worker_count(recipe, device, photos // recipe.batch_size), shared_room()
    needed = workers * AHEAD * recipe.batch_size * recipe.height * recipe.width * 3
    if not workers or room is None or room >= needed:
        return ""
    return (
        f"{task}: batches of {workers} DataLoader workers take up to {needed / 1e6:,.0f} MB of {SHARED}, where "
        f"{room / 1e6:,.0f} MB are free: the rest goes through pipes, which is slower. {WIDEN}"
    )


def _is_fp16(precision: str, device: str) -> bool:
    import torch

    from orchestrator.networks.devices import precision_of

    return precision_of(precision, device) == torch.float16


def check_dropped(task: str, recipe: Recipe | None, photos: Photos) -> None:
    """Refuses people to drop that the data does not have.

    Raises:
        ConfigError: names all of them, each with the nearest key.
    """
    people = list(dict.fromkeys(photos.table["person"])) if recipe is not None and recipe.drop_people else []
    unknown = [person for person in (recipe.drop_people if recipe else ()) if person not in set(people)]
    if unknown:
        problems = [Problem(f"'{person}'", f"no person has that key.{nearest(person, people)}") for person in unknown]
        raise ConfigError(f"{task}: drop_people names people that the data does not have.", problems)


def check_class_counts(photos: Photos, tasks: Iterable[str], plan: FoldPlan | None, extra: bool) -> list[Problem]:
    """Notes on classes that nobody holds, or too few people to train and score on.

    Raises:
        DataError: a task has a single class, so there is nothing to learn.
    """
    problems = check_classes(photos, tasks, plan, extra)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(f"{photos.source or photos.root}: cannot be trained on.", fatal)
    return problems


def check_training_rows(
    task: str, recipe: Recipe, photos: Photos, plan: FoldPlan | None, folds_used: int, extra: bool = False
) -> None:
    """Rejects a plan, or people dropped from it, that leave a fold (almost) nothing to train on.

    Args:
        task: the specialist.
        recipe: the recipe, for the people that it drops and its sampling.
        photos: the data.
        plan: the fold plan.
        folds_used: train only the first folds; 0: all.
        extra: whether extra photos join training.

    Raises:
        ConfigError: a fold has fewer than `MIN_PHOTOS` photos to train on; names all such folds.
    """
    usable = ~photos.table["person"].isin(recipe.drop_people)
    if plan is None:
        trained_on = {"all photos": usable}
    else:
        fold = plan.folds(photos.table["person"])
        trained_on = {f"fold {number}": usable & (fold != number) for number in range(folds_used or plan.k)}
    empty = [name for name, rows in trained_on.items() if not rows.any()]
    if empty and recipe.drop_people:
        raise ConfigError(
            f"{task}: drop_people leaves nobody to train on for {', '.join(empty)}. Drop fewer people, or use other folds."
        )
    per_person = recipe.sampling == "per_person"
    single = [
        name
        for name, rows in trained_on.items()
        if (photos.table["person"][rows].nunique() if per_person else int(rows.sum())) < MIN_PHOTOS
    ]
    if single and not extra:
        raise ConfigError(f"{task}: {too_few(', '.join(single), per_person)}")


def too_few(where: str, per_person: bool) -> str:
    """Why a single photo is too few to train on, and what to do."""
    drawn = "one photo a person is one photo" if per_person else "there is one photo"
    sampling = " or draw every photo (--set sampling=per_photo)," if per_person else ""
    return (
        f"{where}: {drawn} an epoch, and a network's norms need {MIN_PHOTOS} at least. Give more people, use more folds, "
        f"which leave more people to train on,{sampling} or drop fewer (drop_people, sample_factor)."
    )


MIN_PHOTOS = 2
"""Fewest photos of a forward pass: a batch norm has no variance over a single one."""


def log_extra(extra: Extra, photos: Photos, specialists: Mapping[str, Specialist]) -> None:
    """Logs how many extra photos each task learns from."""
    for task, specialist in specialists.items():
        rows = extra.known(specialist.columns)
        table = extra.table.iloc[rows]
        folds = "" if (table["fold"] == EVERY_FOLD).all() else ", some for single folds only"
        photo_count = quantity(int(table["path"].nunique()), "extra photo")
        people = table["person"][~table["person"].str.startswith(ALONE)].nunique()
        of_people = f" of {people:,} people" if people else ""
        log.info(f"{task}: {photo_count}{of_people} with {quantity(len(rows), 'label')} join training{folds}.")
    shared = set(extra.table["person"]) & set(photos.people.index)
    if shared:
        log.warning(f"{len(shared)} of their people are held out too; no fold is trained on those whom it holds out.")

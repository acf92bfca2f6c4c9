"""The data that runs are trained on: tables read and checked, then photos hashed, split by people, and recorded.

Reading tables takes a second and needs no torch, so all errors in them are reported before torch is imported. Hashing
reads every photo, so it comes after all other checks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from orchestrator.artifacts.origins import save_extra_photos, save_plan, save_table
from orchestrator.artifacts.provenance import ExtraPhotos, TrainingData
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import DataError, Mistakes, Problem, quantity
from orchestrator.core.files import absolute_text
from orchestrator.data.check import duplicates
from orchestrator.data.extra import Extra, read_extra
from orchestrator.data.folds import FoldPlan
from orchestrator.data.hashes import HashCache
from orchestrator.data.photos import Photos
from orchestrator.data.readers import check_command, read
from orchestrator.pipeline.checks import check_class_counts, log_extra
from orchestrator.pipeline.fold_plans import ChosenPlan, choose_plan
from orchestrator.pipeline.settings import Settings
from orchestrator.recipes.schema import Recipe
from orchestrator.specialist import Specialist

__all__ = ["Dataset", "Tables", "load_dataset", "log_notes", "read_tables"]

log = logging.getLogger(__name__)

SHOWN = 5  # notes on the data that training prints; `orch data check` prints all


@dataclass(frozen=True)
class Tables:
    """The tables, before any photo is opened; those that could not be read are None.

    Attributes:
        photos: the validated table.
        chosen: the fold plan; also None if everything is trained on.
        extra: the extra photos; also None if there are none.
        notes: warnings about the tables.
    """

    photos: Photos | None = None
    chosen: ChosenPlan | None = None
    extra: Extra | None = None
    notes: list[Problem] = field(default_factory=list)

    @property
    def plan(self) -> FoldPlan | None:
        """The fold plan; None if everything is trained on, or if there are mistakes."""
        return None if self.chosen is None else self.chosen.plan


@dataclass(frozen=True)
class Dataset:
    """Photos and labels that runs are made from.

    Attributes:
        photos: the validated table.
        content: sha256 of every photo, in the table's order.
        table: digest of photos, people and all labels, under which the workspace keeps them.
        chosen: the fold plan; None if everything is trained on.
        folds: the folds to train; [None] without a plan.
        extra: the extra photos; None if there are none.
        extra_content: sha256 of each extra photo.
    """

    photos: Photos
    content: list[str]
    table: str
    chosen: ChosenPlan | None
    folds: list[int | None]
    extra: Extra | None = None
    extra_content: Sequence[str] = ()

    @property
    def plan(self) -> FoldPlan | None:
        """The fold plan; None if everything is trained on."""
        return None if self.chosen is None else self.chosen.plan

    @property
    def tables(self) -> Tables:
        """The tables that it was made from."""
        return Tables(self.photos, self.chosen, self.extra)

    @cached_property
    def photo_set(self) -> str:
        """Digest of photos and people, whatever their labels."""
        return self.photos.fingerprint(self.content, ())

    @cached_property
    def _fingerprints(self) -> dict[frozenset[str], str]:
        return {}

    def fingerprint(self, specialist: Specialist, recipe: Recipe) -> str:
        """Digest of photos, people, and those labels that a specialist learns from by a recipe.

        What is corrected in other columns changes nothing that it would learn.
        """
        labels = frozenset((*specialist.columns, *(("mask",) if recipe.draws_by_mask else ())))
        if labels not in self._fingerprints:
            self._fingerprints[labels] = self.photos.fingerprint(self.content, labels)
        return self._fingerprints[labels]

    def extra_of(self, specialist: Specialist) -> str | None:
        """Fingerprint of the extra photos that a specialist learns from; None if none has its labels."""
        if self.extra is None or not len(self.extra.known(specialist.columns)):
            return None
        return self.extra.fingerprint(self.extra_content)

    def about(self, settings: Settings, specialist: Specialist, recipe: Recipe) -> TrainingData:
        """What a run's record says of its data."""
        of_extra, extra = self.extra_of(specialist), None
        if self.extra is not None and of_extra is not None:
            extra = ExtraPhotos(tuple(map(absolute_text, self.extra.sources)), of_extra, len(self.extra))
        read_at = datetime.now().astimezone().isoformat()  # to the microsecond: small trainings take less than a second
        return TrainingData(
            absolute_text(settings.data), self.photos.layout, dict(settings.columns), settings.distinct_people,
            self.fingerprint(specialist, recipe), self.photo_set, self.table, read_at, len(self.photos),
            len(self.photos.people), extra,
        )  # fmt: skip


def read_tables(settings: Settings, specialists: Mapping[str, Specialist], mistakes: Mistakes) -> Tables:
    """Reads the tables; no photo is opened, torch is not imported.

    Args:
        settings: what the command asks for.
        specialists: task -> specialist, whose columns are needed.
        mistakes: collects the mistakes.
    """
    photos, chosen, extra = None, None, None
    notes: list[Problem] = []
    with mistakes.collect():
        photos = read(settings.data, settings.columns, settings.distinct_people)
        for task, specialist in specialists.items():
            with mistakes.collect():
                photos.require(specialist.columns, f"the {task} specialist")
        chosen = choose_plan(settings, photos.people)
    with mistakes.collect():
        extra = read_extra(settings.extra) if settings.extra else None
        if extra is not None and photos is not None:
            notes += extra.check_people(photos, settings.distinct_people)
    if photos is not None:
        with mistakes.collect():
            plan = None if chosen is None else chosen.plan
            notes += check_class_counts(photos, specialists, plan, bool(settings.extra))
    return Tables(photos, chosen, extra, notes)


def load_dataset(
    settings: Settings, specialists: Mapping[str, Specialist], tables: Tables, workspace: Workspace
) -> Dataset:
    """Hashes the photos, and records their hashes and the fold plan in the workspace.

    Args:
        settings: what the command asks for.
        specialists: task -> specialist, for log messages about extra photos.
        tables: the tables, without mistakes.
        workspace: workspace of the runs.

    Raises:
        DataError: photos of different people are the same file.
        LeakError: extra photos are scored too, or their labels were made by another plan.
    """
    photos, plan, extra = tables.photos, tables.plan, tables.extra
    assert photos is not None  # else an error was raised
    if plan is not None:
        save_plan(workspace, plan)
    content = photos.content(workspace.hashes())
    leaks = [problem for problem in duplicates(photos, content) if problem.fatal]
    if leaks:
        raise DataError(f"{settings.data}: people would leak across folds.", leaks)
    extra_content: list[str] = []
    if extra is not None:
        extra_content = HashCache(workspace.cache / "extra_hashes.json").hashes(extra.paths)
        extra.check(photos, content, extra_content, plan)
        log_extra(extra, photos, specialists)
        persons = extra.table["person"].tolist()
        save_extra_photos(workspace, extra.fingerprint(extra_content), extra_content, persons)
    table = save_table(workspace, photos, content)
    folds: list[int | None] = [None] if plan is None else list(range(settings.folds_used or plan.k))
    dataset = Dataset(photos, content, table, tables.chosen, folds, extra, extra_content)
    log.info(_summary(dataset))
    if tables.chosen is not None and not settings.follow and (about := tables.chosen.about(photos.people)):
        log.info(about)
    return dataset


def log_notes(settings: Settings, tables: Tables) -> None:
    """Logs warnings about the tables, before training."""
    assert tables.photos is not None
    for note in [*tables.notes, *tables.photos.notes[:SHOWN]]:
        log.warning(f"{note}")
    if len(tables.photos.notes) > SHOWN:
        command = check_command(settings.data, settings.columns, settings.distinct_people)
        log.info(f"... and {quantity(len(tables.photos.notes) - SHOWN, 'more note')}: `{command}` lists them.")


def _summary(data: Dataset) -> str:
    """A sentence about the number of photos and people, and their folds."""
    photos, people, plan = len(data.photos), len(data.photos.people), data.plan
    if plan is None:
        return f"{photos:,} photos of {people:,} people, all trained on: there will be no out-of-fold score."
    used = ""
    if len(data.folds) < plan.k:
        used = f", {'fold 0' if len(data.folds) == 1 else f'folds 0 to {len(data.folds) - 1}'} only"
    return (
        f"{photos:,} photos of {people:,} people; fold plan {plan.digest[:12]}: {plan.k} folds of people, "
        f"stratified by {' x '.join(plan.strata) or 'nothing'}{used}."
    )

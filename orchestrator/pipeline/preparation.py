"""From runs to the jobs that train their members: pixels, tables, jobs. Progress on photos goes to the listener."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.cards import CARD, Origin
from orchestrator.artifacts.environment import versions
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import data_arguments, orch
from orchestrator.core.cores import cores
from orchestrator.core.errors import ConfigError, quantity
from orchestrator.core.events import Listener, ignore_events, progress_callback
from orchestrator.core.labels import CLASSES
from orchestrator.data.preprocessing import Box, Geometry
from orchestrator.data.store import DirectPixels, JoinedRows, PixelSource, Rows, build_stores, store_key
from orchestrator.faces.boxes import find_boxes
from orchestrator.pipeline.checks import MIN_PHOTOS, too_few
from orchestrator.pipeline.inputs import Inputs
from orchestrator.pipeline.run_plans import RunPlan
from orchestrator.pipeline.settings import Settings
from orchestrator.specialist import Specialist

if TYPE_CHECKING:
    from orchestrator.training.job import MemberJob, TrainingRows

__all__ = ["RunJob", "begin_runs", "first_job", "missing_jobs", "pixels_of", "prepare_photos"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunJob:
    """A run to be trained, and what its members are trained from.

    Attributes:
        settings: what the command asks for.
        specialist: the run's specialist.
        inputs: what the run is made from.
        run: record of the run.
        pixels: input of its networks, one row per photo.
        only: the folds to train now; None: all.
        pruning_thresholds: epoch -> macro F1 below which a member is pruned after it.
    """

    settings: Settings
    specialist: Specialist
    inputs: Inputs
    run: RunRecord
    pixels: Rows
    only: tuple[int | None, ...] | None = None
    pruning_thresholds: Mapping[int, float] = field(default_factory=dict)


def begin_runs(
    plans: Sequence[RunPlan], listen: Listener, begin: Callable[[RunPlan], RunRecord] = RunPlan.find_or_create
) -> list[RunJob]:
    """The runs of some plans, found or created, with what their members are trained from.

    Photos are decoded first: a damaged one is found before any run is written.

    Args:
        plans: run plans of one dataset, with settings that differ only in the recipe.
        listen: receives progress events.
        begin: finds or creates the run of a plan.

    Raises:
        DataError: some photos are unreadable.
        StoreError: the disk has no room for the stores.
    """
    pixels = pixels_of(plans, listen)
    return [
        RunJob(plan.settings, plan.inputs.specialists[plan.task], plan.inputs, begin(plan), rows)
        for plan, rows in zip(plans, pixels, strict=True)
    ]


def missing_jobs(run_jobs: Sequence[RunJob]) -> list[MemberJob]:
    """Jobs for the members that are missing, longest first, so that no long one starts last.

    Raises:
        ConfigError: a member would train on a single photo per epoch.
    """
    jobs: list[MemberJob] = []
    for run_job in run_jobs:
        folds_to_train = run_job.run.folds if run_job.only is None else run_job.only
        folds = [fold for fold in folds_to_train if not os.path.lexists(run_job.run.member(fold) / CARD)]
        rows = _rows(run_job) if folds else None
        of_run = [_job(run_job, fold, rows) for fold in folds if rows is not None]
        # The jobs know: here sample factors and extra photos count too.
        too_small = [job for job in of_run if job.photos_per_epoch < MIN_PHOTOS]
        if too_small:
            where = ", ".join("all photos" if job.fold is None else f"fold {job.fold}" for job in too_small)
            raise ConfigError(f"{run_job.run.id}: {too_few(where, too_small[0].recipe.sampling == 'per_person')}")
        jobs += of_run
    return sorted(jobs, key=lambda job: -job.work)


def first_job(run_job: RunJob) -> MemberJob:
    """The job of a run's first member, whether that is trained already or not."""
    return _job(run_job, run_job.run.folds[0], _rows(run_job))


def pixels_of(plans: Sequence[RunPlan], listen: Listener = ignore_events) -> list[Rows]:
    """The input of each planned run's networks: a store per geometry, or features where only heads are trained.

    Every photo is decoded once for all geometries. Extra photos come after the data's photos, in separate stores.

    Args:
        plans: run plans of one dataset, with settings that differ only in the recipe.
        listen: receives progress events.

    Returns:
        One row per photo, for each plan in order.

    Raises:
        DataError: some photos are unreadable.
        StoreError: the disk has no room for the stores.
    """
    if not plans:
        return []
    data = plans[0].inputs.data
    relative, paths = list(data.photos.table["path"]), data.photos.paths
    rows = _rows_of(plans, relative, paths, data.content, listen)
    if data.extra is None:
        return rows
    # By content, not path: a photo with a label for each fold is stored once.
    path_by_content = dict(zip(data.extra_content, data.extra.paths, strict=True))
    names = list(path_by_content)
    extra = _rows_of(plans, names, list(path_by_content.values()), names, listen)
    extra_indices = pd.Index(names).get_indexer(pd.Index(data.extra_content))
    return [JoinedRows(own, len(paths), others, extra_indices) for own, others in zip(rows, extra, strict=True)]


def _rows_of(
    plans: Sequence[RunPlan], relative: Sequence[str], paths: Sequence[Path], content: Sequence[str], listen: Listener
) -> list[Rows]:
    from orchestrator.networks.backbones import preprocess_of
    from orchestrator.training.features import build_features

    settings, inputs = plans[0].settings, plans[0].inputs
    geometries = list(dict.fromkeys(plan.recipe.geometry for plan in plans))
    sources, faces = prepare_photos(inputs.workspace, relative, paths, content, geometries, settings.store, listen)
    if faces is not None:
        _log_faces(faces, settings)
    rows: list[Rows] = []
    for plan in plans:
        recipe, source = plan.recipe, sources[plan.recipe.geometry]
        if recipe.train == "network":
            rows.append(source)
            continue
        features = build_features(
            inputs.workspace.cache / "features", recipe, plan.inputs.weights[plan.task], preprocess_of(recipe), source,
            store_key(relative, content, recipe.geometry), len(paths), inputs.device, cores(),
            progress_callback(listen, "compute features"),
        )  # fmt: skip
        rows.append(features)
    return rows


def prepare_photos(
    workspace: Workspace,
    relative: Sequence[str],
    paths: Sequence[Path],
    content: Sequence[str],
    geometries: Sequence[Geometry],
    store: bool,
    listen: Listener = ignore_events,
) -> tuple[Mapping[Geometry, PixelSource], Sequence[Box | None] | None]:
    """The pixels of N photos at each geometry, cropped around faces where the geometry asks for faces.

    Args:
        workspace: workspace with the folder of stores.
        relative: paths of the photos as in their table.
        paths: paths of the photos' files.
        content: sha256 of each photo.
        geometries: all geometries that are needed, each once.
        store: whether to decode each photo once, into the workspace's pixel stores, instead of at every use.
        listen: receives progress events.

    Returns:
        Geometry -> source of pixels, one row per photo; and each photo's face, None where none was found; None if no geometry
        asks for faces.

    Raises:
        DataError: some photos are unreadable.
        StoreError: the disk has no room for the stores.
    """
    faces = None
    if any(geometry.face for geometry in geometries):
        faces = find_boxes(workspace.faces, paths, content, cores(), progress_callback(listen, "find faces"))
    if not store:
        return {geometry: DirectPixels(paths, geometry, faces) for geometry in geometries}, faces
    keys = {geometry: store_key(relative, content, geometry) for geometry in geometries}
    return build_stores(workspace.store, paths, keys, cores(), progress_callback(listen, "decode"), faces), faces


def _log_faces(faces: Sequence[Box | None], settings: Settings) -> None:
    without = sum(box is None for box in faces)
    summary = f"faces: found in {len(faces) - without:,} of {quantity(len(faces), 'photo')}"
    listing = orch("data", "faces", *data_arguments(settings.data, settings.columns), workspace=settings.workspace)
    ending = f"; the other {without:,} use the recipe's crop and anchor: `{listing}` lists them." if without else "."
    log.info(summary + ending)


def _rows(run_job: RunJob) -> TrainingRows:
    """What training uses of each photo; extra photos come last."""
    from orchestrator.training.job import TrainingRows

    photos, extra = run_job.inputs.data.photos.table, run_job.inputs.data.extra
    columns, is_extra = _labelled(run_job, photos), np.zeros(len(photos), bool)
    if extra is not None:
        labelled = extra.known(run_job.specialist.columns)
        for name, values in _labelled(run_job, extra.table.iloc[labelled]).items():
            extra_column = np.zeros(len(extra), columns[name].dtype)  # rows without a label are never drawn
            extra_column[labelled] = values
            columns[name] = np.concatenate([columns[name], extra_column])
        is_extra = np.concatenate([is_extra, np.ones(len(extra), bool)])
    return TrainingRows(pd.factorize(_people(run_job))[0], **columns, extra=is_extra)


def _people(run_job: RunJob) -> pd.Series[str]:
    """The person of each photo, those of extra photos last."""
    data = run_job.inputs.data
    parts = [data.photos.table["person"], *([] if data.extra is None else [data.extra.table["person"]])]
    return pd.concat(parts, ignore_index=True)


def _labelled(run_job: RunJob, photos: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Columns of `TrainingRows` for photos whose labels are known, each of shape (n,)."""
    from orchestrator.networks.heads import head_of

    recipe, specialist = run_job.inputs.recipes[run_job.run.task], run_job.specialist
    by_mask = recipe.draws_by_mask and "mask" in photos
    kinds = [max(0, _mask_code(name)) for name in photos["mask"]] if by_mask else np.zeros(len(photos))
    return {
        "truth": specialist.label(photos),
        "trained": specialist.training_label(photos, recipe),
        "target": head_of(specialist, recipe).targets(specialist, photos, recipe),
        "kind": np.array(kinds, np.int64),
    }


def _mask_code(name: str | None) -> int:
    return CLASSES["mask"].index(name) if isinstance(name, str) else -1


def _job(run_job: RunJob, fold: int | None, rows: TrainingRows) -> MemberJob:
    from orchestrator.networks.backbones import preprocess_of
    from orchestrator.networks.heads import head_of
    from orchestrator.training.job import MemberJob

    inputs, run, specialist = run_job.inputs, run_job.run, run_job.specialist
    recipe = inputs.recipes[run.task]
    if fold is None or inputs.data.plan is None:
        train, held_out = np.arange(len(inputs.data.photos)), np.array([], dtype=np.int64)
    else:
        train, held_out = inputs.data.plan.split(inputs.data.photos.table["person"], fold)
    if inputs.data.extra is not None:
        usable = inputs.data.extra.for_fold(inputs.data.extra.known(specialist.columns), fold, inputs.data.plan)
        train = np.concatenate([train, len(inputs.data.photos) + usable])
    train = train[~_people(run_job).iloc[train].isin(recipe.drop_people)]
    return MemberJob(
        run=run.id, folder=run.member(fold), task=run.task, fold=fold, classes=specialist.classes, rows=rows,
        train=train, held_out=held_out, held_out_photos=inputs.data.photos.table[["path", "person"]].iloc[held_out],
        pixels=run_job.pixels, recipe=recipe, head=head_of(specialist, recipe),
        preprocess=preprocess_of(recipe), initial=inputs.weights[run.task], seed=run.seed_of(fold),
        profile=run_job.settings.profile, pruning_thresholds=run_job.pruning_thresholds, cancel=run_job.settings.cancel,
        threads=run.threads,  # the run's, not this command's: another number of threads gives other bits
        device=inputs.device,
        origin=Origin(
            run=run.id, plan_digest=inputs.data.plan.digest if inputs.data.plan else None,
            data_fingerprint=run.data.fingerprint, extra_fingerprint=run.extra, versions=versions(), record=run.as_json(),
        ),
    )  # fmt: skip

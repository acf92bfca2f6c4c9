"""What older runs answer for photos that joined the data after they were trained; each is computed once, and kept.

An answer depends on the member's function and the photo's content alone, so it is kept under a digest of both, in the
workspace's cache: a damaged or deleted file is computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.artifacts.cards import MemberCard
from orchestrator.artifacts.members import check_member
from orchestrator.artifacts.origins import table_of
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.sources import source_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, DataError, quantity
from orchestrator.core.events import Listener, counted, ignore_events, progress_callback
from orchestrator.core.files import digest_of
from orchestrator.core.labels import columns_of
from orchestrator.core.metrics import are_probabilities
from orchestrator.core.sealed import damaged_error, read_sealed, write_sealed
from orchestrator.data.preprocessing import Preprocess
from orchestrator.data.readers import read
from orchestrator.ensembling.growth import LaterAnswers, LaterPhotos, later_photos, newest_run
from orchestrator.pipeline.preparation import prepare_photos

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["later_answers"]

log = logging.getLogger(__name__)

KIND, FORMAT = "later answers", 1


def later_answers(
    workspace: Workspace,
    runs: Sequence[RunRecord],
    device: str = "auto",
    data: Path | None = None,
    listen: Listener = ignore_events,
) -> dict[str, LaterAnswers]:
    """The answers of runs for photos of the newest run that they were not trained on.

    Args:
        workspace: the workspace of the runs.
        runs: runs of one family of plans.
        device: as `--device`.
        data: where the newest run's photos are now; None: where they were.
        listen: receives progress events.

    Returns:
        Run -> its answers, for the runs that have any.

    Raises:
        DataError: the photos are not there, have changed, or cannot be read.
        LeakError: a run has learned from such photos as extra photos.
        DamagedError: a file of a run is missing or damaged.
    """
    if len({run.data.photo_set for run in runs}) == 1:
        return {}
    newest = newest_run(runs)
    table = table_of(workspace, newest)
    later = [photos for run in runs if (photos := later_photos(workspace, run, table)) is not None]
    kept = {photos.run.id: _kept(workspace, photos, table) for photos in later}
    missing = [photos for photos in later if len(kept[photos.run.id]) < len(photos.run.folds)]
    if missing:
        names = ", ".join(photos.run.id for photos in missing)
        log.info(
            f"{names}: answering for photos that joined the data later, or were given another name ({_most(missing)})."
        )
        files = _files(workspace, newest, data, table, missing)
        from orchestrator.networks.devices import resolve_device

        device = resolve_device(device)
        answered = counted(progress_callback(listen, "answer"), sum(len(photos.rows) for photos in missing))
        for of_run in missing:
            _compute(workspace, of_run, table, files, device, kept[of_run.run.id], answered)
    return {photos.run.id: LaterAnswers.mean_of(photos, kept[photos.run.id]) for photos in later}


def _files(
    workspace: Workspace, newest: RunRecord, data: Path | None, table: pd.DataFrame, later: Sequence[LaterPhotos]
) -> dict[str, Path]:
    """The files of later photos by their names in the table; the rest of the data may have changed since.

    Raises:
        DataError: nothing is there, or some of the photos are missing or others.
    """
    again = orch("ensemble", "--data", "DIR", workspace=workspace.root)
    photos = read(source_of(newest, data, again), newest.data.columns, distinct=True)
    there = dict(zip(photos.table["path"], photos.paths, strict=True))
    wanted = table.iloc[sorted({int(row) for of_run in later for row in of_run.rows})]
    files = {name: there[name] for name in wanted["path"] if name in there}
    content = dict(zip(files, workspace.hashes().hashes(list(files.values())), strict=True))
    changed = [
        name for name, sha256 in zip(wanted["path"], wanted["content"], strict=True) if content.get(name) != sha256
    ]
    if changed:
        are = "photo is" if len(changed) == 1 else "photos are"
        raise DataError(
            f"{photos.root}: {len(changed):,} {are} not as {newest.id} saw them, {changed[0]} first. Name where they are "
            f"(`{again}`), or train the other specialists too."
        )
    return files


def _most(later: Sequence[LaterPhotos]) -> str:
    return quantity(max(len(photos.rows) for photos in later), "photo")


def _kept(workspace: Workspace, photos: LaterPhotos, table: pd.DataFrame) -> dict[int | None, NDArray[np.float32]]:
    """Fold -> its member's answers, as far as they were computed before."""
    kept: dict[int | None, NDArray[np.float32]] = {}
    for fold in photos.run.folds:
        card = check_member(photos.run, fold)
        path, name = _place(workspace, card, photos, table)
        try:
            cells = read_sealed(path, KIND, name, FORMAT, "")["probabilities"]
            answers = np.asarray(cells, np.float32)
            if (
                answers.shape != (len(photos.rows), len(columns_of(photos.run.task)))
                or not are_probabilities(answers).all()
            ):
                raise damaged_error(path, "not probabilities for these photos", "")
        except (DamagedError, KeyError, TypeError, ValueError):
            continue
        kept[fold] = answers
    return kept


def _place(workspace: Workspace, card: MemberCard, photos: LaterPhotos, table: pd.DataFrame) -> tuple[Path, str]:
    """The file that keeps a member's answers, and its name."""
    name = digest_of([card.function, table["content"].iloc[photos.rows].tolist()])[:24]
    return workspace.cache / "later" / f"{name}.json", name


def _compute(
    workspace: Workspace,
    later: LaterPhotos,
    table: pd.DataFrame,
    files: Mapping[str, Path],
    device: str,
    kept: dict[int | None, NDArray[np.float32]],
    answered: Callable[[int], None],
) -> None:
    """Adds the answers of those members of a run of which none are kept."""
    from orchestrator.inference.member import MemberFiles, load_members
    from orchestrator.inference.member_answers import member_answers

    run, rows = later.run, later.rows
    cards = {fold: check_member(run, fold) for fold in run.folds if fold not in kept}
    (geometry,) = {Preprocess.from_dict(card.preprocess).geometry for card in cards.values()}  # a run has one recipe
    names, content = table["path"].iloc[rows].tolist(), table["content"].iloc[rows].tolist()
    pixels, _ = prepare_photos(workspace, names, [files[name] for name in names], content, [geometry], store=False)
    members = load_members([MemberFiles(run.task, run.id, fold, run.member(fold)) for fold in cards], device)
    answers = member_answers(members, pixels[geometry], np.arange(len(rows)), device, answered)
    for (fold, card), of_member in zip(cards.items(), answers, strict=True):
        kept[fold] = of_member
        path, name = _place(workspace, card, later, table)
        write_sealed(path, KIND, name, FORMAT, {"probabilities": of_member.tolist()})

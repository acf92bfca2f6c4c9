"""What runs were trained from: fold plans, and tables of photos with their labels as they were.

Each file is named by a digest of its contents, so the next training on the same contents can rewrite a damaged file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, LeakError
from orchestrator.core.files import set_aside
from orchestrator.core.labels import TASKS
from orchestrator.core.sealed import damaged_error, read_sealed, write_sealed

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.data.folds import FoldPlan
    from orchestrator.data.photos import Photos

__all__ = [
    "extra_photos_of", "people_of", "photo_hashes_of", "plan_of", "save_extra_photos", "save_plan", "save_table", "table_of",
    "trained_people", "trained_photo_hashes",
]  # fmt: skip

log = logging.getLogger(__name__)

PHOTOS, PHOTOS_FORMAT = "photos", 3

COLUMNS = ("path", "person", *TASKS)
"""What is kept of a table of photos, beside the hashes of their contents."""


def save_plan(workspace: Workspace, plan: FoldPlan) -> FoldPlan:
    """Saves a plan if it is not saved yet, or if its file is damaged.

    Args:
        workspace: workspace to save it in.
        plan: plan drawn from the data.

    Returns:
        The plan as saved.

    Raises:
        DamagedError: the file is damaged and may not be replaced.
    """
    from orchestrator.data.folds import FoldPlan

    path = _plan(workspace, plan.name)
    try:
        return FoldPlan.load(path, plan.name, "")
    except DamagedError as error:
        _set_aside(path, error)
        plan.save(path)
        return plan


def plan_of(workspace: Workspace, run: RunRecord) -> FoldPlan:
    """The plan that a run was trained by; the caller has checked that it has one.

    Raises:
        DamagedError: the file is missing, damaged, or another plan's.
    """
    from orchestrator.data.folds import FoldPlan

    assert run.plan is not None
    name = run.plan.digest[:12]
    whole = run.complete and not run.partial
    way_out = (
        f"run `{orch('workspace', 'repair', workspace=workspace.root)}`, which rewrites it from the run's answers."
    )
    return FoldPlan.load(_plan(workspace, name), name, way_out if whole else _by_resuming(workspace, run))


def save_table(workspace: Workspace, photos: Photos, content: Sequence[str]) -> str:
    """Saves the table that runs are about to be trained on, with all its labels: they may be corrected later.

    Args:
        workspace: workspace to save it in.
        photos: the table.
        content: sha256 of each photo.

    Returns:
        Its digest, which the runs record.

    Raises:
        DamagedError: the file is damaged and may not be replaced.
    """
    digest = photos.fingerprint(content)
    columns = {column: photos.table[column].tolist() for column in photos.table if column in COLUMNS}
    _save(workspace, digest, {**columns, "content": list(content)})
    return digest


def save_extra_photos(workspace: Workspace, fingerprint: str, content: Sequence[str], persons: Sequence[str]) -> None:
    """Saves the extra photos that runs are about to learn from, under the fingerprint that the runs record.

    Args:
        workspace: workspace to save them in.
        fingerprint: their fingerprint.
        content: sha256 of each.
        persons: the person of each, of a photo without one a name of its own.
    """
    _save(workspace, fingerprint, {"content": list(content), "person": list(persons)})


def _save(workspace: Workspace, digest: str, columns: Mapping[str, Sequence[Any]]) -> None:
    path, name = _photos(workspace, digest), digest[:12]
    try:
        read_sealed(path, PHOTOS, name, PHOTOS_FORMAT, "")
    except DamagedError as error:
        _set_aside(path, error)
        write_sealed(path, PHOTOS, name, PHOTOS_FORMAT, columns)


def table_of(workspace: Workspace, run: RunRecord) -> pd.DataFrame:
    """The table that a run was trained on: `path`, `person`, `content` (sha256) and the columns of labels that it had.

    Raises:
        DamagedError: the file is missing, damaged, or another table's.
    """
    import pandas as pd

    return pd.DataFrame(_read(workspace, run, run.data.table, ("path", "person", "content")))


def people_of(workspace: Workspace, run: RunRecord) -> list[str]:
    """The people on whose photos a run was trained, extra ones among them, or whom it held out, sorted.

    Raises:
        DamagedError: the table of its photos is missing or damaged.
    """
    own = _read(workspace, run, run.data.table, ("person",))["person"]
    return sorted({*own, *extra_photos_of(workspace, run)[1]})


def extra_photos_of(workspace: Workspace, run: RunRecord) -> tuple[dict[str, str], set[str]]:
    """The extra photos that a run has learned from: sha256 -> person, and the people on them.

    Raises:
        DamagedError: the table of these photos is missing or damaged.
    """
    if run.extra is None:
        return {}, set()
    table = _read(workspace, run, run.extra, ("content", "person"))
    persons = dict(zip(table["content"], table["person"], strict=True))
    return persons, set(table["person"])


def photo_hashes_of(workspace: Workspace, run: RunRecord) -> set[str]:
    """The hashes of every file that a run was trained on, extra photos among them.

    Raises:
        DamagedError: the file of hashes is missing or damaged.
    """
    digests = filter(None, (run.data.table, run.extra))
    return {sha256 for digest in digests for sha256 in _read(workspace, run, digest, ("content",))["content"]}


def _read(workspace: Workspace, run: RunRecord, digest: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of a saved table, of which some are needed, all of one length."""
    path, way_out = _photos(workspace, digest), _by_resuming(workspace, run)
    value = read_sealed(path, PHOTOS, digest[:12], PHOTOS_FORMAT, way_out)
    read = {column: cells for column, cells in value.items() if column in (*COLUMNS, "content")}
    for column in columns:
        cells = read.get(column)
        if not isinstance(cells, list) or not all(isinstance(cell, str) for cell in cells):
            raise damaged_error(path, f"{column} is not a list of texts", way_out)
    if len({len(cells) if isinstance(cells, list) else -1 for cells in read.values()}) > 1:
        raise damaged_error(path, "its columns differ in length", way_out)
    return read


def trained_photo_hashes(workspace: Workspace, names: Iterable[str]) -> set[str]:
    """The hashes of every file that some runs were trained on.

    Raises:
        LeakError: the record of these files is missing or damaged.
    """
    hashes: set[str] = set()
    for run in map(workspace.run, dict.fromkeys(names)):
        try:
            hashes |= photo_hashes_of(workspace, run)
        except DamagedError as error:
            raise LeakError(f"{run.id}: which photos it was trained on cannot be determined. {error.message}") from None
    return hashes


def trained_people(workspace: Workspace, names: Iterable[str]) -> set[str]:
    """The people whom some runs were trained on or held out: whoever some member has seen, where a run has several.

    Raises:
        LeakError: the record of these people is missing or damaged.
    """
    people: set[str] = set()
    for run in map(workspace.run, dict.fromkeys(names)):
        try:
            people.update(people_of(workspace, run))
        except DamagedError as error:
            raise LeakError(f"{run.id}: whom it was trained on cannot be determined. {error.message}") from None
    return people


def _plan(workspace: Workspace, name: str) -> Path:
    return workspace.root / "plans" / f"{name}.json"


def _photos(workspace: Workspace, digest: str) -> Path:
    return workspace.root / "photos" / f"{digest[:12]}.json"


def _by_resuming(workspace: Workspace, run: RunRecord) -> str:
    return f"run `{orch('resume', run.id, workspace=workspace.root)}`, which rewrites it."


def _set_aside(path: Path, error: DamagedError) -> None:
    if not error.replaceable:
        raise error
    aside = set_aside(path)
    if aside is not None:
        log.warning(f"{error.fact}: rewritten; the old one was set aside as {aside.name}.")

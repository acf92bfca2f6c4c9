"""What runs were trained from: fold plans, and hashes of their photos.

Each file is named by a digest of its contents, so the next training on the same contents can rewrite a damaged file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, LeakError
from orchestrator.core.files import set_aside
from orchestrator.core.sealed import damaged_error, read_sealed, write_sealed

if TYPE_CHECKING:
    from orchestrator.data.folds import FoldPlan

__all__ = ["photo_hashes_of", "plan_of", "save_photo_hashes", "save_plan", "trained_people", "trained_photo_hashes"]

log = logging.getLogger(__name__)

PHOTOS, PHOTOS_FORMAT = "photos", 2


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
    return FoldPlan.load(_plan(workspace, name), name, _by_resuming(workspace, run))


def save_photo_hashes(workspace: Workspace, fingerprint: str, content: Sequence[str]) -> None:
    """Saves the hashes of photos that runs are about to train on, under the fingerprint that the runs record."""
    path, name = _content(workspace, fingerprint), fingerprint[:12]
    try:
        read_sealed(path, PHOTOS, name, PHOTOS_FORMAT, "")
    except DamagedError as error:
        _set_aside(path, error)
        write_sealed(path, PHOTOS, name, PHOTOS_FORMAT, {"content": list(content)})


def photo_hashes_of(workspace: Workspace, run: RunRecord) -> set[str]:
    """The hashes of every file that a run was trained on, extra photos among them.

    Raises:
        DamagedError: the file of hashes is missing or damaged.
    """
    hashes: set[str] = set()
    for fingerprint in filter(None, (run.data.fingerprint, run.extra)):
        path, way_out = _content(workspace, fingerprint), _by_resuming(workspace, run)
        content = read_sealed(path, PHOTOS, fingerprint[:12], PHOTOS_FORMAT, way_out).get("content")
        if not isinstance(content, list) or not all(isinstance(digest, str) for digest in content):
            raise damaged_error(path, "not a list of hashes", way_out)
        hashes.update(content)
    return hashes


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


def trained_people(workspace: Workspace, names: Iterable[str]) -> tuple[set[str], list[str]]:
    """The people whom some runs were trained on or held out: whoever some member has seen, where a run has several.

    Returns:
        The people by name, and the runs whose people are on no record: those without a plan.

    Raises:
        LeakError: the record of a plan is missing or damaged.
    """
    people: set[str] = set()
    without: list[str] = []
    for run in map(workspace.run, dict.fromkeys(names)):
        if run.plan is None:
            without.append(run.id)
            continue
        try:
            people.update(plan_of(workspace, run).fold_of)
        except DamagedError as error:
            raise LeakError(f"{run.id}: whom it was trained on cannot be determined. {error.message}") from None
    return people, without


def _plan(workspace: Workspace, name: str) -> Path:
    return workspace.root / "plans" / f"{name}.json"


def _content(workspace: Workspace, fingerprint: str) -> Path:
    return workspace.root / "photos" / f"{fingerprint[:12]}.json"


def _by_resuming(workspace: Workspace, run: RunRecord) -> str:
    return f"run `{orch('resume', run.id, workspace=workspace.root)}`, which rewrites it."


def _set_aside(path: Path, error: DamagedError) -> None:
    if not error.replaceable:
        raise error
    aside = set_aside(path)
    if aside is not None:
        log.warning(f"{error.fact}: rewritten; the old one was set aside as {aside.name}.")

"""What runs were trained from: fold plans, and hashes of their photos.

Each file is named by a digest of its contents, so the next training on the same contents can rewrite a damaged file.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import data_arguments, display_path, orch
from orchestrator.core.errors import DamagedError, DataError, LeakError, WeightsError
from orchestrator.core.files import set_aside, sha256_of
from orchestrator.core.labels import CLASSES
from orchestrator.core.sealed import read_sealed, write_sealed
from orchestrator.data.paths import contest_table, is_folder
from orchestrator.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from orchestrator.data.folds import FoldPlan
    from orchestrator.specialist import Specialist

__all__ = [
    "check_initial_weights",
    "extra_sources_of",
    "moved_arguments",
    "photo_hashes_of",
    "plan_arguments",
    "plan_of",
    "recipe_arguments",
    "save_photo_hashes",
    "save_plan",
    "source_arguments",
    "source_of",
    "tables_of",
    "trained_photo_hashes",
    "training_arguments",
]  # fmt: skip

log = logging.getLogger(__name__)

PHOTOS, PHOTOS_FORMAT = "photos", 2


def save_plan(workspace: Workspace, plan: FoldPlan) -> FoldPlan:
    """Saves a plan if it is not saved yet, or if its file is damaged.

    Args:
        workspace: workspace to save it in.
        plan: plan drawn from the data.
    """
    from orchestrator.data.folds import FoldPlan

    path = _plan(workspace, plan.name)
    try:
        return FoldPlan.load(path, plan.name, "")
    except DamagedError as error:
        _put_aside(path, error)
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
        _put_aside(path, error)
        write_sealed(path, PHOTOS, name, PHOTOS_FORMAT, {"content": list(content)})


def photo_hashes_of(workspace: Workspace, run: RunRecord) -> set[str]:
    """The hashes of every file that a run has learnt from, extra photos among them.

    Raises:
        DamagedError: the file that has them is missing or damaged.
    """
    found: set[str] = set()
    for fingerprint in filter(None, (run.data.fingerprint, run.extra)):
        path, way_out = _content(workspace, fingerprint), _by_resuming(workspace, run)
        found.update(read_sealed(path, PHOTOS, fingerprint[:12], PHOTOS_FORMAT, way_out)["content"])
    return found


def tables_of(workspace: Workspace) -> list[Path]:
    """The tables that the workspace's runs were trained from, as far as they can be read."""
    found: dict[Path, None] = {}
    for run in workspace.read_runs()[0]:
        source = Path(run.data.source)
        found[contest_table(source) if is_folder(source) else source] = None
        found |= dict.fromkeys(run.data.extra_tables)
    return [path for path in found if path.is_file()]


def source_of(run: RunRecord, data: Path | None, again: str) -> Path:
    """Path of the data that a run was trained on.

    Args:
        run: record of the run.
        data: new path, given by the user; None: the recorded path.
        again: command that gives a new path, for the message.

    Raises:
        DataError: the recorded path no longer exists.
    """
    source = data or Path(run.data.source)
    if data is None and not source.exists():
        raise DataError(
            f"{source}: nothing is there, and {run.id} was trained on these photos. Give their new path: `{again}`."
        )
    return source


def training_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name what a run was trained from: data, recipe, fold plan, seed.

    Args:
        run: its record.
        data: where the photos are now; None: where they were.
        extra: where its tables of extra photos are now; none: where they were.
    """
    return [*source_arguments(run, data, extra), "--base", run.id, *plan_arguments(run), "--seed", str(run.seed)]


def source_arguments(run: RunRecord, data: Path | None = None, extra: Sequence[Path] = ()) -> list[str]:
    """The options of a printed training command that name a run's photos, extra ones among them; as `training_arguments`."""
    tables = extra or run.data.extra_tables
    distinct = run.data.distinct_people
    return data_arguments(data or Path(run.data.source), run.data.columns, distinct, tables)


def recipe_arguments(run: RunRecord, specialists: Iterable[Specialist]) -> list[str]:
    """The options of a printed command that trains specialists as a run was trained: its recipe, if all have it, and
    those of its changes that name no task."""
    from orchestrator.recipes.load import recipe_files

    name = run.recipe_name
    shared = Path(name).is_file() or all(name in recipe_files(specialist) for specialist in specialists)
    words = (
        ["--recipe", display_path(Path(name)) if name.endswith(".toml") else name]
        if shared and name != DEFAULT_RECIPE
        else []
    )
    common = [change for change in run.changes if change.partition("=")[0].partition(".")[0] not in CLASSES]
    return [*words, *(word for change in common for word in ("--set", change))]


def plan_arguments(run: RunRecord) -> list[str]:
    """The options of a printed training command that name a run's fold plan."""
    folds, seed = (run.plan.k, run.plan.seed) if run.plan else (0, 0)
    return ["--folds", str(folds), "--plan-seed", str(seed)]


def moved_arguments(run: RunRecord, data: Path | None = None) -> list[str]:
    """The options of a printed command that give a run's sources; placeholders for those that no longer exist.

    Args:
        run: its record.
        data: where the photos are, if that is known.
    """
    is_found = data is None and Path(run.data.source).exists()
    words = [] if is_found else ["--data", "DIR" if data is None else display_path(data)]
    tables = run.data.extra_tables
    if not all(table.is_file() for table in tables):
        words += [word for table in tables for word in ("--extra", display_path(table) if table.is_file() else "TABLE")]
    return words


def extra_sources_of(run: RunRecord, tables: Sequence[Path], again: str) -> tuple[Path, ...]:
    """The tables of extra photos that a run learnt from.

    Args:
        run: its record.
        tables: new paths, given by the user; empty: the recorded paths.
        again: command that gives new paths, for the message.

    Raises:
        DataError: a recorded path no longer exists.
    """
    sources = tuple(tables) or tuple(run.data.extra_tables)
    missing = [str(source) for source in sources if not source.is_file()]
    if missing and not tables:
        raise DataError(
            f"{', '.join(missing)}: no longer there, and {run.id} was trained on extra photos from "
            f"{'this table' if len(sources) == 1 else 'these tables'}. Give the new "
            f"{'path' if len(sources) == 1 else 'paths'}: `{again}`."
        )
    return sources


def check_initial_weights(run: RunRecord) -> None:
    """Checks that the file of a run's initial weights still exists.

    Raises:
        WeightsError: it does not; the message names the workspace's copy of it, if any.
    """
    from orchestrator.recipes.schema import WEIGHTS_WORDS

    source = str(run.recipe["weights"])
    if source in WEIGHTS_WORDS or Path(source).is_file():
        return
    copies = (Workspace(run.root).cache / "weights").glob(f"{run.recipe['backbone']}-*.safetensors")
    copy = next((path for path in copies if sha256_of(path) == run.initial_weights.sha256), None)
    way_out = "Restore it"
    if copy is not None:
        make = (
            f"{shlex.join(['mkdir', '-p', str(Path(source).parent)])} && " if not Path(source).parent.is_dir() else ""
        )
        restore = shlex.join(["cp", display_path(copy), source])
        way_out = f"The workspace keeps what was read from it: `{make}{restore}` restores it"
    raise WeightsError(f"{source}: not there any more, and {run.id} began from the weights in it. {way_out}.")


def trained_photo_hashes(workspace: Workspace, names: Iterable[str]) -> set[str]:
    """The hashes of every file that some runs have learnt from.

    Raises:
        LeakError: which files those were is not on record any more.
    """
    found: set[str] = set()
    for run in map(workspace.run, dict.fromkeys(names)):
        try:
            found |= photo_hashes_of(workspace, run)
        except DamagedError as error:
            raise LeakError(f"{run.id}: which photos it was trained on cannot be determined. {error.message}") from None
    return found


def _plan(workspace: Workspace, name: str) -> Path:
    return workspace.root / "plans" / f"{name}.json"


def _content(workspace: Workspace, fingerprint: str) -> Path:
    return workspace.root / "photos" / f"{fingerprint[:12]}.json"


def _by_resuming(workspace: Workspace, run: RunRecord) -> str:
    return f"run `{orch('resume', run.id, workspace=workspace.root)}`, which rewrites it."


def _put_aside(path: Path, error: DamagedError) -> None:
    if not error.replaceable:
        raise error
    place = set_aside(path)
    if place is not None:
        log.warning(f"{error.fact}: rewritten; the old one was put aside as {place.name}.")

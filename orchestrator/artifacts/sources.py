"""The files that a run was trained from: its tables, its photos and its initial weights, where they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.commands import display_path, shell_join
from orchestrator.core.errors import DataError, WeightsError
from orchestrator.core.files import sha256_of
from orchestrator.data.paths import contest_table, is_folder

__all__ = ["check_initial_weights", "extra_sources_of", "source_of", "tables_of"]


def tables_of(workspace: Workspace) -> list[Path]:
    """The tables that the workspace's runs were trained from, as far as they can be read."""
    tables: dict[Path, None] = {}
    for run in workspace.read_runs()[0]:
        source = Path(run.data.source)
        tables[contest_table(source) if is_folder(source) else source] = None
        tables |= dict.fromkeys(run.data.extra_tables)
    return [path for path in tables if path.is_file()]


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


def extra_sources_of(run: RunRecord, tables: Sequence[Path], again: str) -> tuple[Path, ...]:
    """The tables of extra photos that a run was trained on.

    Args:
        run: record of the run.
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

    source = run.weights
    if source in WEIGHTS_WORDS or Path(source).is_file():
        return
    copies = (Workspace(run.root).cache / "weights").glob(f"{run.backbone}-*.safetensors")
    copy = next((path for path in copies if sha256_of(path) == run.initial_weights.sha256), None)
    way_out = "Restore it"
    if copy is not None:
        make_folder = (
            f"{shell_join(['mkdir', '-p', Path(source).parent])} && " if not Path(source).parent.is_dir() else ""
        )
        restore = shell_join(["cp", display_path(copy), Path(source)])
        way_out = f"The workspace keeps what was read from it: `{make_folder}{restore}` restores it"
    raise WeightsError(f"{source}: no longer there, and {run.id} started from the weights in it. {way_out}.")

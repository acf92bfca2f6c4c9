"""The photos that a run was trained on, where they are now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.sources import source_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import DataError
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read

__all__ = ["trained_photos"]


def trained_photos(
    workspace: Workspace, run: RunRecord, data: Path | None, columns: Mapping[str, str] | None, again: str
) -> tuple[Photos, list[str]]:
    """The photos that a run was trained on, whatever was corrected in their labels since, and the sha256 of each.

    Args:
        workspace: the workspace of the run.
        run: the run.
        data: where they are now; None: where they were.
        columns: our column name -> the manifest's; None: unchanged.
        again: command that names another place, for messages.

    Raises:
        DataError: nothing is there, or other photos.
    """
    source = source_of(run, data, again)
    photos = read(source, columns if columns is not None else run.data.columns, distinct=True)
    content = photos.content(workspace.hashes())
    if photos.fingerprint(content, ()) != run.data.photo_set:
        raise DataError(f"{source}: not the photos that {run.id} was trained on. Name where those are: `{again}`.")
    return photos, content

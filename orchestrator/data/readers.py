"""One door for all layouts: a folder of the contest's, or a manifest file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.data.contest import read_contest
from orchestrator.data.manifest import read_manifest
from orchestrator.data.photos import Photos
from orchestrator.errors import DataError, Problem, counted

__all__ = ["inspect", "read"]


def inspect(source: Path, columns: Mapping[str, str] | None = None) -> tuple[Photos, list[Problem]]:
    """Reads a data source and tells everything that its table and file names show.

    Args:
        source: a folder with train.csv and images/, or a .csv or .parquet manifest.
        columns: our name -> the manifest's name.

    Raises:
        DataError: nothing at all can be read there.
    """
    if source.is_file() and source.suffix.lower() in (".csv", ".parquet") and source.name != "train.csv":
        return read_manifest(source, columns)
    if source.is_file() and source.name == "train.csv":
        source = source.parent
    if not source.is_dir():
        raise DataError(
            f"{source}: no such folder or table. Give a folder with train.csv and images/, or a manifest "
            "(.csv or .parquet). `orch data synth people/` makes one to try."
        )
    return read_contest(source)


def read(source: Path, columns: Mapping[str, str] | None = None) -> Photos:
    """Reads a data source that must be in order.

    Raises:
        DataError: with every fatal problem found.
    """
    photos, problems = inspect(source, columns)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(
            f"{source}: {counted(len(fatal), 'problem')}; `orch data check --data {source}` lists everything.", fatal
        )
    if not len(photos):
        raise DataError(f"{source}: no photos found.")
    return photos

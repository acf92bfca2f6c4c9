"""One entry point for all layouts: a folder in the contest's layout, or a manifest file.

Nothing heavy is imported before a table is read, so that a wrong path is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.commands import data_arguments, orch
from orchestrator.core.errors import ConfigError, DataError, Problem, quantity
from orchestrator.data.paths import check_contest, is_folder

if TYPE_CHECKING:
    from orchestrator.data.photos import Photos

__all__ = ["check_command", "check_source", "inspect", "read"]


def check_source(source: Path, columns: Mapping[str, str] | None = None, needs_table: bool = True) -> None:
    """Refuses a path that is neither a folder with its table nor named like a table; nothing is read.

    Args:
        source: a folder with train.csv and images/, or a .csv or .parquet manifest.
        columns: our name -> the manifest's name.
        needs_table: whether a folder must hold its table; a check of the data opens the photos of one that does not.

    Raises:
        DataError: the path does not exist, or is not named like a table; says what is allowed.
        ConfigError: `columns` is given for a folder.
    """
    if is_folder(source):
        if columns:
            raise ConfigError(
                f"--columns maps the names of a manifest, a table with a row per photo, and {source} is a folder in the "
                "contest's layout. Leave --columns out, or give --data a manifest."
            )
        if needs_table:
            check_contest(source)
        return
    if not os.path.lexists(source):
        raise DataError(
            f"{source}: no such folder or table. Give a folder with train.csv and images/, or a manifest "
            f"(.csv or .parquet). `{orch('data', 'synth', 'people')}` makes one to try."
        )
    if source.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(
            f"{source}: not named like a table. Give a folder with train.csv and images/, or a .csv or .parquet file."
        )


def inspect(
    source: Path, columns: Mapping[str, str] | None = None, distinct: bool = False
) -> tuple[Photos, list[Problem]]:
    """Reads a data source and returns every problem that its table and file names show.

    Args:
        source: a folder with train.csv and images/, or a .csv or .parquet manifest.
        columns: our name -> the manifest's name.
        distinct: whether names of people that differ only in spelling are different people.

    Raises:
        DataError: the source cannot be read at all.
        ConfigError: `columns` is given for a folder, or names an unknown column.
    """
    check_source(source, columns)
    from orchestrator.data.contest import read_contest
    from orchestrator.data.manifest import read_manifest

    if is_folder(source):
        return read_contest(source, distinct)
    if source.name != "train.csv" or columns:
        return read_manifest(source, columns, distinct)
    return read_contest(source.parent, distinct)


def check_command(source: Path, columns: Mapping[str, str] | None = None, distinct: bool = False) -> str:
    """The command that lists everything about a data source; arguments as for `inspect`."""
    return orch("data", "check", *data_arguments(source, columns, distinct))


def read(source: Path, columns: Mapping[str, str] | None = None, distinct: bool = False) -> Photos:
    """Reads a data source that must be in order; arguments as for `inspect`.

    Raises:
        DataError: the source is not in order; lists every fatal problem.
        ConfigError: `columns` is given for a folder, or names an unknown column.
    """
    photos, problems = inspect(source, columns, distinct)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(
            f"{source}: {quantity(len(fatal), 'problem')}; `{check_command(source, columns, distinct)}` lists everything.",
            fatal,
        )
    if not len(photos):
        raise DataError(f"{source}: no photos found.")
    return photos

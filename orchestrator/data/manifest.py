"""Any table of photos: a CSV or parquet file with a path and a person per row, and what is known of each.

Columns are `path` (relative to the table's folder, or absolute), `person`, `age`, `gender`, `mask`; other names
are mapped. A column may be missing when the task that needs it is not trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.data.photos import Photos, check_age, check_word
from orchestrator.data.preprocessing import SUFFIXES
from orchestrator.errors import ConfigError, DataError, Problem, nearest

__all__ = ["MANIFEST_COLUMNS", "place_of", "read_cells", "read_manifest"]

MANIFEST_COLUMNS = ("path", "person", "age", "gender", "mask")


def read_manifest(path: Path, columns: Mapping[str, str] | None = None) -> tuple[Photos, list[Problem]]:
    """Reads a manifest.

    Args:
        path: a .csv or .parquet file.
        columns: our name -> the table's name, for columns that are called otherwise.

    Returns:
        The photos of all rows that are in order, and everything found on the way, fatal or not.

    Raises:
        DataError: the file cannot be read, or has no path or person column.
        ConfigError: `columns` names what is not there.
    """
    frame = read_cells(path)
    frame = _rename(frame, path, columns or {})
    problems: list[Problem] = []
    known = [column for column in MANIFEST_COLUMNS if column in frame]
    kept: list[dict[str, Any]] = []
    left_out: list[str] = []
    for number, cells in enumerate(frame[known].itertuples(index=False, name=None), start=2):
        row = dict(zip(known, cells, strict=True))
        found = _check_row(row, f"{path} row {number}", path.parent)
        problems += found
        if not found:
            kept.append(row)
        elif (path.parent / str(row["path"])).is_file():
            left_out.append(str(row["path"]))
    for row in kept:
        row["path"], row["person"] = place_of(str(row["path"]), path.parent), str(row["person"]).strip()
    for key, value in pd.Series([str(row["path"]) for row in kept]).value_counts().items():
        if value > 1:
            problems.append(Problem(str(path), f"path '{key}' stands in {value} rows.", "Keep one.", "repeated_row"))
    for row in kept:
        for column in ("gender", "mask"):
            if column in row:
                row[column] = check_word(column, row[column], "")[0]
        if "age" in row:
            row["age"] = float(row["age"])
    table = pd.DataFrame(kept, columns=known).sort_values("path", ignore_index=True)
    problems += _conflicts(table, path)
    problems += _missing_columns(frame, path)
    problems += _extra_files({*table["path"], *left_out}, path)
    notes = tuple(problem for problem in problems if not problem.fatal)
    return Photos(path.parent, table, "manifest", notes, tuple(left_out), path), problems


def place_of(name: str, folder: Path) -> str:
    """One spelling of a photo's path: relative to the table's folder where it lies below it, absolute elsewhere."""
    place = Path(os.path.normpath(folder.absolute() / name))
    return (
        place.relative_to(folder.absolute()).as_posix() if place.is_relative_to(folder.absolute()) else place.as_posix()
    )


def read_cells(path: Path) -> pd.DataFrame:
    """A table's cells as they stand, words in a CSV file.

    Raises:
        DataError: no such file, or no table.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (ValueError, OSError, UnicodeDecodeError) as error:
        kind = "parquet" if path.suffix.lower() == ".parquet" else "CSV"
        raise DataError(f"{path}: cannot be read as a {kind} table ({error}).") from None


def _rename(frame: pd.DataFrame, path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    problems = [
        Problem("--columns", f"'{ours}' is no column of ours; allowed: {', '.join(MANIFEST_COLUMNS)}.")
        for ours in columns
        if ours not in MANIFEST_COLUMNS
    ]
    problems += [
        Problem("--columns", f"{path.name} has no column '{theirs}'.{nearest(theirs, frame.columns)}")
        for theirs in columns.values()
        if theirs not in frame
    ]
    if problems:
        raise ConfigError(f"{path}: has the columns {', '.join(map(str, frame.columns))}.", problems)
    taken = {theirs: ours for ours, theirs in columns.items()}
    if len(taken) < len(columns):
        raise ConfigError(f"--columns: two of our names ({', '.join(columns)}) stand for one column of {path.name}.")
    # A column that has one of our names but is not meant by it makes room, unless it is meant by another.
    frame = frame.drop(columns=[ours for ours in columns if ours in frame and ours not in taken])
    frame = frame.rename(columns=taken)
    missing = [column for column in ("path", "person") if column not in frame]
    if missing:
        found = [
            Problem(
                str(path),
                f"no column '{column}'.{nearest(column, frame.columns)}",
                kind="missing_column",
                column=column,
            )
            for column in missing
        ]
        raise DataError(
            f"{path}: has the columns {', '.join(map(str, frame.columns))}; map names with "
            f"--columns {missing[0]}=NAME.",
            found,
        )
    return frame


def _check_row(row: Mapping[str, Any], where: str, folder: Path) -> list[Problem]:
    problems: list[Problem] = []
    for column in ("path", "person"):
        if pd.isna(row[column]) or not str(row[column]).strip():
            problems.append(Problem(where, f"{column} is empty.", kind="empty_cell"))
    if not problems and not (folder / str(row["path"])).is_file():
        problems.append(Problem(where, f"no file {row['path']}.", "Paths are relative to the table.", "missing_file"))
    for column in ("gender", "mask"):
        if column in row:
            problems += [problem for problem in (check_word(column, row[column], where)[1],) if problem]
    if "age" in row:
        problems += [problem for problem in (check_age(row["age"], where)[1],) if problem]
    return problems


def _missing_columns(frame: pd.DataFrame, path: Path) -> list[Problem]:
    """Columns that some task would need: worth knowing, for a misspelt one looks like a missing one."""
    return [
        Problem(str(path), f"no column '{column}': {column} cannot be trained.{nearest(column, frame.columns)}",
                kind="missing_column", fatal=False, column=column)
        for column in MANIFEST_COLUMNS[2:]
        if column not in frame
    ]  # fmt: skip


def _extra_files(known: set[str], path: Path) -> list[Problem]:
    """Photos that stand beside listed ones and are in no row.

    Other folders are not searched: a table may lie at the top of a whole disk.
    """
    folders = {(path.parent / name).parent for name in known}
    extra = [
        place_of(str(file.absolute()), path.parent)
        for folder in sorted(folders)
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    what = f"is in no row of {path.name}: left out."
    return [
        Problem(str(path.parent / name), what, kind="extra_file", fatal=False) for name in extra if name not in known
    ]


def _conflicts(table: pd.DataFrame, path: Path) -> list[Problem]:
    """People whose rows disagree: two genders are an error, two ages (photos of several years) are told."""
    problems: list[Problem] = []
    for column, fatal in (("gender", True), ("age", False)):
        if column not in table:
            continue
        counts = table.groupby("person")[column].nunique()
        for person in counts[counts > 1].index:
            values = ", ".join(str(value) for value in sorted(table.loc[table["person"] == person, column].unique()))
            fix = "Correct the rows, or give the people keys of their own." if fatal else ""
            what = f"person '{person}' has the {column}s {values}."
            problems.append(Problem(str(path), what, fix, f"{column}_conflict", fatal))
    return problems

"""Any table of photos: a CSV or parquet file with a path and a person per row, and what is known of each.

Columns are `path` (relative to the table's folder, or absolute), `person`, `age`, `gender`, `mask`; other names
are mapped. A column may be missing when the task that needs it is not trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.core.commands import shell_join
from orchestrator.core.errors import ConfigError, DataError, Problem, nearest
from orchestrator.data.decoding import SUFFIXES
from orchestrator.data.paths import find_file, is_file, why_no_file
from orchestrator.data.photos import Photos, check_age, check_class_name
from orchestrator.data.spelling import clean, composed, near_people, odd_character, visible
from orchestrator.data.tables import Table, read_table, text

__all__ = ["MANIFEST_COLUMNS", "path_on_disk", "read_manifest"]

MANIFEST_COLUMNS = ("path", "person", "age", "gender", "mask")


def read_manifest(
    path: Path, columns: Mapping[str, str] | None = None, distinct: bool = False
) -> tuple[Photos, list[Problem]]:
    """Reads a manifest into the table of photos, leaving out rows with problems.

    Args:
        path: a .csv or .parquet file.
        columns: our name -> the table's name, for columns whose names differ.
        distinct: whether keys of people that differ only in spelling are different people.

    Returns:
        The photos of all valid rows, and all problems, fatal or not.

    Raises:
        DataError: the file cannot be read, or has no path or person column.
        ConfigError: `columns` names an unknown column.
    """
    table = read_table(path)
    names = _rename(table, columns or {})
    problems = list(table.notes)
    present = [column for column in MANIFEST_COLUMNS if column in names]
    cells = {column: table.column(names[column]) for column in present}
    valid_rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    keys: list[str] = []
    people: dict[str, list[int]] = {}
    for number in range(len(table)):
        row = {column: cells[column][number] for column in present}
        row["path"] = path_on_disk(text(row["path"]), path.parent) if clean(text(row["path"])) else ""
        row["person"] = clean(text(row["person"]))
        row_problems = _check_row(row, table.where(number), path.parent)
        problems += row_problems
        people.setdefault(row["person"], []).append(number)
        keys.append("" if row_problems else row["path"])
        if not row_problems:
            valid_rows.append(row)
        elif is_file(path.parent / row["path"]):
            left_out.append(row["path"])
    problems += table.repeated("path", keys)
    for row in valid_rows:
        for column in ("gender", "mask"):
            if column in row:
                row[column] = check_class_name(column, row[column], "")[0]
        if "age" in row:
            row["age"] = check_age(row["age"], "")[0]
    frame = pd.DataFrame(valid_rows, columns=present).sort_values(
        "path", key=lambda paths: paths.map(composed), ignore_index=True
    )
    lines_of = {person: table.several(numbers) for person, numbers in people.items() if person}
    problems += near_people(lines_of, path, distinct, "give a column that tells them apart (--columns person=NAME) or ")
    problems += _conflicts(frame, path, lines_of)
    problems += _missing_columns(names, table, path)
    problems += _extra_files({*frame["path"], *left_out}, path)
    notes = tuple(problem for problem in problems if not problem.fatal)
    return Photos(path.parent, frame, "manifest", notes, tuple(left_out), path, lines_of=lines_of), problems


def path_on_disk(name: str, folder: Path) -> str:
    """A photo's path in the disk's own spelling: relative if it is below the table's folder, absolute otherwise."""
    root = folder.absolute()
    absolute = os.path.normpath(root / (find_file(root, name) or clean(name)))
    path = Path(absolute)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _rename(table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    """Our name -> the table's name, for columns that have one of our names or are mapped to one."""
    path = table.path
    problems = [
        Problem("--columns", f"'{ours}' is not a column that orch knows; allowed: {', '.join(MANIFEST_COLUMNS)}.")
        for ours in columns
        if ours not in MANIFEST_COLUMNS
    ]
    problems += [
        Problem("--columns", f"{path.name} has no column '{theirs}'.{nearest(theirs, table.columns)}")
        for theirs in columns.values()
        if clean(theirs) not in table
    ]
    if problems:
        raise ConfigError(f"{path}: has the columns {', '.join(table.columns)}.", problems)
    taken = {clean(theirs): ours for ours, theirs in columns.items()}
    if len(taken) < len(columns):
        raise ConfigError(f"--columns: two of our names ({', '.join(columns)}) stand for one column of {path.name}.")
    # If one of our names is mapped to another column, a column of this name is dropped unless it is mapped itself.
    names = {name: name for name in table.columns if name not in columns and name not in taken}
    names |= {ours: theirs for theirs, ours in taken.items()}
    missing = [column for column in ("path", "person") if column not in names]
    if missing:
        mapped = shell_join(
            argument for column in missing for argument in ("--columns", f"{column}={_near(column, names)}")
        )
        missing_problems = [
            Problem(str(path), f"no column '{column}'.{nearest(column, names)}", kind="missing_column", column=column)
            for column in missing
        ]
        has = f"has the columns {', '.join(table.columns)}"
        missing_problems[-1] = replace(missing_problems[-1], fix=f"It {has}: map names by {mapped}.")
        raise DataError(f"{path}: {has}.", missing_problems)
    return names


def _near(column: str, names: Iterable[str]) -> str:
    """The table's own name for a column, if one is near; otherwise a placeholder."""
    match = re.search(r"'(.+)'", nearest(column, names))
    return match[1] if match else "NAME"


def _check_row(row: Mapping[str, Any], where: str, folder: Path) -> list[Problem]:
    problems = [
        Problem(where, f"{column} is empty.", kind="empty_cell") for column in ("path", "person") if not row[column]
    ]
    odd = odd_character(row["person"])
    if odd:
        what = f"person '{visible(row['person'][:40])}' holds the character {odd}."
        problems.append(Problem(where, what, kind="wrong_value"))
    missing = why_no_file(folder, row["path"]) if row["path"] else ""
    if missing:
        fix = "Paths are relative to the table." if missing.startswith("no file") else ""
        problems.append(Problem(where, missing, fix, "missing_file"))
    for column in ("gender", "mask"):
        if column in row:
            problems += [problem for problem in (check_class_name(column, row[column], where)[1],) if problem]
    if "age" in row:
        problems += [problem for problem in (check_age(row["age"], where)[1],) if problem]
    return problems


def _missing_columns(names: Mapping[str, str], table: Table, path: Path) -> list[Problem]:
    """Notes on missing columns that some task needs: a misspelt column looks like a missing one."""
    return [
        Problem(str(path), f"no column '{column}': {column} cannot be trained.{nearest(column, table.columns)}",
                kind="missing_column", fatal=False, column=column)
        for column in MANIFEST_COLUMNS[2:]
        if column not in names
    ]  # fmt: skip


def _extra_files(listed: set[str], path: Path) -> list[Problem]:
    """Photos that are in the folders of listed photos but in no row.

    Other folders are not searched: the table may be in the root folder of a disk.
    """
    folders = {(path.parent / name).parent for name in listed}
    extra = [
        path_on_disk(str(file.absolute()), path.parent)
        for folder in sorted(folders)
        for file in _files(folder)
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    what = f"is in no row of {path.name}: left out."
    return [
        Problem(str(path.parent / name), what, kind="extra_file", fatal=False) for name in extra if name not in listed
    ]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []  # a folder that may be entered, but not listed


def _conflicts(table: pd.DataFrame, path: Path, lines_of: Mapping[str, str]) -> list[Problem]:
    """People whose rows disagree: two genders are an error, two ages (photos of several years) a note."""
    problems: list[Problem] = []
    for column, fatal in (("gender", True), ("age", False)):
        if column not in table:
            continue
        counts = table.groupby("person")[column].nunique()
        for person in counts[counts > 1].index:
            values = ", ".join(str(value) for value in sorted(table.loc[table["person"] == person, column].unique()))
            fix = "Correct the rows, or give the people keys of their own." if fatal else ""
            what = f"person '{person}' ({lines_of[str(person)]}) has the {column}s {values}."
            problems.append(Problem(str(path), what, fix, f"{column}_conflict", fatal))
    return problems

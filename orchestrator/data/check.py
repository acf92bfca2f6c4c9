"""Finds all problems of a data source in one pass: tables, names, bytes and pixels.

`readers.inspect` reports what tables and file names show; this module opens every photo.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from orchestrator.core.errors import DataError, OrchestratorError, Problem, printable
from orchestrator.core.files import sha256_of
from orchestrator.core.labels import TASKS
from orchestrator.data.classes import check_classes
from orchestrator.data.decoding import FORMATS, SUFFIXES, UndecodableError, read_photo
from orchestrator.data.folds import plan_folds
from orchestrator.data.paths import is_folder
from orchestrator.data.photos import Photos
from orchestrator.data.readers import inspect
from orchestrator.data.tables import unreadable

__all__ = ["DataFindings", "check", "duplicates"]

REPLACE = "Replace the file or remove its row."
ALLOW = "Allow it (chmod u+r), or remove its row."


@dataclass(frozen=True)
class DataFindings:
    """What a check of a data source found.

    Attributes:
        photos: photos whose table rows are valid.
        problems: all problems, fatal ones first.
        sizes: (width, height) -> number of photos.
        opened: number of files opened: those photos, and others whose row is invalid or missing.
    """

    photos: Photos
    problems: list[Problem]
    sizes: dict[tuple[int, int], int]
    opened: int

    @property
    def fatal(self) -> list[Problem]:
        """Problems that prevent training from starting."""
        return [problem for problem in self.problems if problem.fatal]


@dataclass(frozen=True)
class _Opened:
    digest: str
    size: tuple[int, int] | None
    problems: tuple[Problem, ...] = ()


def check(
    source: Path,
    columns: Mapping[str, str] | None = None,
    needs: Mapping[str, Sequence[str]] | None = None,
    k: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    threads: int = 4,
    distinct: bool = False,
) -> DataFindings:
    """Checks a source completely: its tables, names and folds, and every photo by opening it.

    Args:
        source: a folder in the contest's layout, or a manifest.
        columns: our name -> the manifest's name.
        needs: task to train -> columns that it needs.
        k: number of folds of the plan to train with; 0: no plan.
        progress: callback that takes (photos opened, photos in all).
        threads: number of threads that open photos.
        distinct: whether names of people that differ only in spelling are different people.

    Raises:
        ConfigError: `columns` is given for a folder, or names an unknown column.
    """
    photos, problems = _inspect(source, columns, distinct)
    problems = [_needed(problem, needs or {}) for problem in problems]
    if not len(photos) and not any(problem.fatal for problem in problems):
        problems.append(Problem(str(source), "no photos found.", kind="missing_file"))
    opened = _open_all(photos, threads, progress)
    problems += [problem for photo in opened for problem in photo.problems]
    problems += duplicates(photos, [photo.digest for photo in opened[: len(photos)]])
    if len(photos):
        problems += _unlearnable(source, photos, problems, needs, k)
    sizes = Counter(photo.size for photo in opened if photo.size)
    problems.sort(key=lambda problem: not problem.fatal)  # stable: within both the order stays
    return DataFindings(photos, problems, dict(sizes.most_common()), len(opened))


def _inspect(source: Path, columns: Mapping[str, str] | None, distinct: bool) -> tuple[Photos, list[Problem]]:
    """The photos and problems of a source's tables; of a table that cannot be read, the photos that lie beside it."""
    try:
        return inspect(source, columns, distinct)
    except DataError as error:  # without its columns a table names no files, but photos can still be opened
        where, what = printable(str(source)), error.message
        if what.startswith(where):  # with the source itself, or with a file or a line of it: the problem is there
            inside, _, what = what.removeprefix(where).partition(": ")
            where += inside
        root = source if is_folder(source) else source.parent
        images = _images(root) if os.path.lexists(source) else ()
        photos = Photos(root, pd.DataFrame(columns=["path", "person"]), "unknown", left_out=images)
        return photos, list(error.problems) or [Problem(where, what, kind="no_table")]


def _open_all(photos: Photos, threads: int, progress: Callable[[int, int], None]) -> list[_Opened]:
    """Opens every photo of a table, in its order, then those that it leaves out."""
    paths = [*photos.paths, *(photos.root / path for path in photos.left_out)]
    opened = []
    with ThreadPoolExecutor(threads) as pool:
        for number, photo in enumerate(pool.map(_open, paths), start=1):
            opened.append(photo)
            progress(number, len(paths))
    return opened


def _unlearnable(
    source: Path, photos: Photos, problems: Sequence[Problem], needs: Mapping[str, Sequence[str]] | None, k: int
) -> list[Problem]:
    """Problems that keep tasks from being learned: too few people for the folds, classes that no or only one person has."""
    plan, too_few = None, []
    try:
        plan = plan_folds(photos.people, k, 0) if k else None
    except OrchestratorError as error:
        too_few = [Problem(str(source), error.message, kind="too_few_people")]
    # The class of a row with an invalid value is unknown: it may be the one that all other rows lack.
    unknown = {problem.column for problem in problems if problem.kind in ("unknown_word", "impossible_age")}
    return too_few + check_classes(photos, [task for task in needs or TASKS if task not in unknown], plan)


def _images(root: Path) -> tuple[str, ...]:
    """Photos below the contest's `images/`, for a table that cannot say which belong to it."""
    files = sorted(path for path in (root / "images").rglob("*") if path.suffix.lower() in SUFFIXES)
    return tuple(path.relative_to(root).as_posix() for path in files if not path.name.startswith("."))


def _needed(problem: Problem, needs: Mapping[str, Sequence[str]]) -> Problem:
    """The problem, made fatal if it is a missing column that a task to train needs."""
    for column in dict.fromkeys(column for columns in needs.values() for column in columns):
        if problem.kind == "missing_column" and not problem.fatal and problem.column == column:
            affected = ", ".join(task for task, columns in needs.items() if column in columns)
            fix = f"Add it, map a name to it with --columns {column}=NAME, or leave {affected} out with --tasks."
            return replace(problem, fatal=True, fix=fix)
    return problem


def _open(path: Path) -> _Opened:
    """Hashes and decodes one photo."""
    try:
        digest = sha256_of(path)
        photo = read_photo(path)
    except UndecodableError as error:
        return _Opened("", None, (Problem(str(path), str(error), REPLACE, "unreadable"),))
    except OSError as error:
        allow = isinstance(error, PermissionError)
        return _Opened("", None, (Problem(str(path), unreadable(error), ALLOW if allow else "", "unreadable"),))
    problems = [Problem(str(path), note, kind="photo_metadata", fatal=False) for note in photo.notes]
    if path.suffix.lower() not in FORMATS[photo.format]:
        what = f"is a {photo.format} file by its content; read as what it is."
        problems.append(Problem(str(path), what, kind="wrong_suffix", fatal=False))
    return _Opened(digest, (photo.pixels.shape[1], photo.pixels.shape[0]), tuple(problems))


def duplicates(photos: Photos, digests: Sequence[str]) -> list[Problem]:
    """Files with the same content: under two people they would leak, under one they only count twice.

    Args:
        photos: N photos.
        digests: the content hash of each, in the table's order; empty where it could not be read.
    """
    table = photos.table[["path", "person"]].assign(digest=list(digests))
    table = table[table["digest"] != ""]
    problems = []
    for _, group in table[table["digest"].duplicated(keep=False)].groupby("digest", sort=False):
        paths = ", ".join(group["path"].iloc[:3])
        people = group["person"].unique()
        if len(people) > 1:
            what = f"the same file is listed under {len(people)} people ({', '.join(people[:3])}): folds would leak."
            problems.append(
                Problem(paths, what, "Remove all but one, or give them one person key.", "duplicate_people")
            )
        else:
            what = f"the same file {len(group)} times for person {people[0]}."
            problems.append(Problem(paths, what, kind="duplicate", fatal=False))
    return problems

"""The validated table of photos: one row per photo, whatever the layout it was read from.

Every reader ends here. A table's columns are `path` (relative to the root, the key of a photo), `person` (the
key of a group), and those of `age` (years), `gender` and `mask` (words of `labels.CLASSES`) that the source has.
Rows are sorted by path, so the order of files on a disk or of rows in a table never decides anything.

This module knows no layout (`contest.py`, `manifest.py`) and opens no image (`preprocessing.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from orchestrator.data.files import digest_of, sha256_of, take_away
from orchestrator.data.sealed import read_sealed, write_sealed
from orchestrator.data.spelling import composed
from orchestrator.data.tables import unreadable
from orchestrator.errors import DamagedError, DataError, Problem, nearest
from orchestrator.labels import CLASSES

__all__ = ["MAX_AGE", "HashCache", "Photos", "check_age", "check_word"]

HASHES, HASHES_FORMAT = "hashes", 2
MAX_AGE = 120  # years; the oldest verified person reached 122


@dataclass(frozen=True)
class Photos:
    """A validated table of photos.

    Attributes:
        root: the folder that paths are relative to.
        table: columns `path`, `person` and those of `age`, `gender`, `mask` that are known; sorted by path,
            index 0..N-1. Ages are float64 years, the rest strings.
        layout: `contest` or `manifest`.
        notes: what the reader decided that a user should know (an id that occurs twice, a file left out).
        left_out: files of rows that are not in order, relative to the root; a check opens them too.
        source: the table's file, for messages; None: the root.
        ids: key of a person -> the id as the table has it, where the key is another.
        stands: key of a person -> where it stands in the table, `lines 3, 4`.
    """

    root: Path
    table: pd.DataFrame
    layout: str
    notes: tuple[Problem, ...] = field(default=())
    left_out: tuple[str, ...] = field(default=())
    source: Path | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    stands: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def paths(self) -> list[Path]:
        """The photos' files, in the table's order."""
        return [self.root / path for path in self.table["path"]]

    @cached_property
    def people(self) -> pd.DataFrame:
        """One row per person (index: the key, sorted): the columns of the person's first photo but path and mask."""
        columns = [column for column in ("age", "gender") if column in self.table]
        return (
            self.table.groupby("person", sort=True)[columns].first()
            if columns
            else (pd.DataFrame(index=pd.Index(sorted(self.table["person"].unique()), name="person")))
        )

    def require(self, columns: Iterable[str], purpose: str) -> None:
        """Refuses a table that lacks a column.

        Raises:
            DataError: naming the missing columns and what they are needed for.
        """
        missing = [column for column in columns if column not in self.table]
        if missing:
            raise DataError(
                f"{self.source or self.root}: {purpose} needs the column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; the table has {', '.join(self.table.columns)}. "
                "Add it, map another name to it with --columns, or leave that task out with --tasks."
            )

    def content(self, cache: HashCache | None = None) -> list[str]:
        """sha256 of every photo's file, in the table's order."""
        return (cache or HashCache(None)).hashes(self.paths)

    def fingerprint(self, content: Sequence[str]) -> str:
        """sha256 (hex) of the table's rows and the photos' content; the root, file times and how the disk composes names don't
        matter."""
        rows = self.table.assign(path=self.table["path"].map(composed)).astype(object)
        rows = rows.where(rows.notna(), None)
        return digest_of([list(self.table.columns), rows.to_numpy().tolist(), list(content)])


class HashCache:
    """Content hashes, remembered by (path, size, times of modification and of change) so that each file is read once.

    Photos are known by content, never by date: a copied folder is the same data, a replaced file is new data.
    The cache only saves reading; deleting it loses nothing.

    Args:
        path: the JSON file to remember in; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def hashes(self, paths: Sequence[Path]) -> list[str]:
        """sha256 (hex) of each file.

        Raises:
            DataError: files that cannot be read, all at once.
        """
        known = self._load()
        keys: list[str] = []
        problems: list[Problem] = []
        for path in paths:
            try:
                stat = path.stat()
                keys.append(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}")
            except OSError as error:
                problems.append(Problem(str(path), unreadable(error), kind="missing_file"))
        if problems:
            raise DataError(f"{len(problems)} of {len(paths)} photos cannot be read.", problems)
        new = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in known]
        if new:
            with ThreadPoolExecutor(8) as pool:  # hashing and reading release the interpreter's lock
                found = list(pool.map(_hash, [path for _, path in new]))
            closed = [one for one in found if isinstance(one, Problem)]
            if closed:
                raise DataError(f"{len(closed)} of {len(paths)} photos cannot be read.", closed)
            known.update({key: str(digest) for (key, _), digest in zip(new, found, strict=True)})
            if self.path is not None:
                if self.path.is_dir():
                    take_away(self.path)
                write_sealed(self.path, HASHES, HASHES, HASHES_FORMAT, {"hashes": known})
        return [known[key] for key in keys]

    def _load(self) -> dict[str, str]:
        if self.path is None:
            return {}
        try:
            return dict(read_sealed(self.path, HASHES, HASHES, HASHES_FORMAT, "")["hashes"])
        except DamagedError:
            return {}  # a damaged cache is an empty cache


def _hash(path: Path) -> str | Problem:
    try:
        return sha256_of(path)
    except OSError as error:
        return Problem(str(path), unreadable(error), kind="unreadable")


def check_word(column: str, value: object, where: str) -> tuple[str | None, Problem | None]:
    """A class word in its canonical spelling (`Not Wear` is `not_wear`), or what is wrong with it."""
    allowed = CLASSES[column]
    word = str(value).strip().lower().replace(" ", "_").replace("-", "_")
    if word in allowed:
        return word, None
    found = "nothing" if pd.isna(value) or not str(value).strip() else f"'{value}'"  # type: ignore[call-overload]  # any object
    return None, Problem(
        where,
        f"{column} is {found}; allowed: {', '.join(allowed)}.{nearest(word, allowed)}",
        kind="unknown_word",
    )


def check_age(value: object, where: str) -> tuple[float | None, Problem | None]:
    """An age in years in 0..120, or what is wrong with it."""
    word = str(value)
    try:
        years = float("nan") if "_" in word else float(word)  # Python reads 1_0 as 10
    except ValueError:
        years = float("nan")
    if 0 <= years <= MAX_AGE:
        return years, None
    found = "nothing" if pd.isna(value) or not str(value).strip() else f"'{value}'"  # type: ignore[call-overload]  # any object
    return None, Problem(where, f"age is {found}; allowed: years from 0 to {MAX_AGE}.", kind="impossible_age")

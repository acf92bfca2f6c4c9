"""The validated table of photos: one row per photo, whatever the layout it was read from.

Every reader ends here. A table's columns are `path` (relative to the root, the key of a photo), `person` (the
key of a group), and those of `age` (years), `gender` and `mask` (names of `labels.CLASSES`) that the source has.
Rows are sorted by path, so the order of files on a disk or of rows in a table never decides anything.

This module knows no layout (`contest.py`, `manifest.py`) and opens no image (`preprocessing.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from orchestrator.core.errors import DataError, Problem, nearest
from orchestrator.core.files import digest_of
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.data.hashes import HashCache
from orchestrator.data.spelling import composed

__all__ = ["MAX_AGE", "Photos", "check_age", "check_class_name"]

MAX_AGE = 120  # years; the oldest verified person reached 122


@dataclass(frozen=True)
class Photos:
    """A validated table of photos.

    Attributes:
        root: folder that paths are relative to.
        table: columns `path`, `person` and those of `age`, `gender`, `mask` that are known; sorted by path,
            index 0..N-1. Ages are float64 years, the rest strings.
        layout: `contest` or `manifest`.
        notes: the reader's decisions that a user should know (an id that occurs twice, a file left out).
        left_out: files of invalid rows, relative to the root; a check opens them too.
        source: file of the table, for messages; None: the root.
        ids: person key -> id in the table, if it is different.
        lines_of: person key -> lines of the table that name the person, `lines 3, 4`.
    """

    root: Path
    table: pd.DataFrame
    layout: str
    notes: tuple[Problem, ...] = field(default=())
    left_out: tuple[str, ...] = field(default=())
    source: Path | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    lines_of: Mapping[str, str] = field(default_factory=dict)

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
        """Refuses a table that lacks one of some columns.

        Raises:
            DataError: columns are missing; names them and what needs them.
        """
        missing = [column for column in columns if column not in self.table]
        if missing:
            raise DataError(
                f"{self.source or self.root}: {purpose} needs the column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; the table has {', '.join(self.table.columns)}. "
                "Add it, map another name to it with --columns, or leave that task out with --tasks."
            )

    def content(self, cache: HashCache | None = None) -> list[str]:
        """sha256 of every photo's file, in the table's order.

        Raises:
            DataError: files that cannot be read, all named.
        """
        return (cache or HashCache(None)).hashes(self.paths)

    def fingerprint(self, content: Sequence[str], labels: Iterable[str] = TASKS) -> str:
        """sha256 (hex) of paths, people, some columns of labels and the photos' content.

        It is independent of the root, file times and the disk's Unicode form of names.

        Args:
            content: sha256 of each photo.
            labels: columns of labels; those that the table has count.
        """
        known = {"path", "person", *labels}
        columns = [column for column in self.table.columns if column in known]
        rows = self.table[columns].assign(path=self.table["path"].map(composed)).astype(object)
        rows = rows.where(rows.notna(), None)
        return digest_of([columns, rows.to_numpy().tolist(), list(content)])


def check_class_name(column: str, value: object, where: str) -> tuple[str | None, Problem | None]:
    """The name of a class in its canonical spelling (`Not Wear` is `not_wear`), or what is wrong with it."""
    allowed = CLASSES[column]
    word = str(value).strip().lower().replace(" ", "_").replace("-", "_")
    if word in allowed:
        return word, None
    shown = "nothing" if pd.isna(value) or not str(value).strip() else f"'{value}'"  # type: ignore[call-overload]  # any object
    return None, Problem(
        where,
        f"{column} is {shown}; allowed: {', '.join(allowed)}.{nearest(word, allowed)}",
        kind="unknown_word",
        column=column,
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
    shown = "nothing" if pd.isna(value) or not str(value).strip() else f"'{value}'"  # type: ignore[call-overload]  # any object
    what = f"age is {shown}; allowed: years from 0 to {MAX_AGE}."
    return None, Problem(where, what, kind="impossible_age", column="age")

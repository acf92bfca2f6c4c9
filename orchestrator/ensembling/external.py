"""External tables that join a vote: tables of probabilities, and old submissions.

A table answers the photos that it names, matched by path, or by an end of the path that only one of its rows has; for
other photos it abstains. Its weight in a vote is that of one run.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.combining import SHARE
from orchestrator.combining.answers import Answers, Voter
from orchestrator.core.errors import DataError, Problem, quantity
from orchestrator.core.files import absolute_text, atomic
from orchestrator.core.labels import (
    CLASS_COUNTS,
    CLASSES,
    JOINT,
    LABELS,
    TASKS,
    columns_of,
    decompose,
    marginals,
    read_label,
)
from orchestrator.core.metrics import are_probabilities
from orchestrator.data.spelling import clean, composed
from orchestrator.data.tables import Table, read_table, text

__all__ = ["ExternalRows", "ExternalTable", "deduplicated", "read_external"]

KEYS = ("path", "ImageID")
ANSWER = "ans"
FOLD = "fold"


@dataclass(frozen=True, eq=False)
class ExternalTable:
    """Answers of an external table.

    Attributes:
        name: the file's name.
        keys: path or ImageID of each photo, in row order.
        by_task: task -> probabilities (N, C), float32; rows of zeros abstain. Tasks that the table does not answer for are left
            out.
        folds: the fold whose member answered for each photo, shape (N,), -1 where the table does not say; None without such a
            column.
        source: the file's absolute path.
    """

    name: str
    keys: tuple[str, ...]
    by_task: Mapping[str, NDArray[np.float32]]
    folds: NDArray[np.int64] | None = None
    source: str = ""

    @cached_property
    def _exact(self) -> Mapping[str, int]:
        """Photo's key, as the table spells it -> its row."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def _by_unique_end(self) -> Mapping[str, int]:
        """An end of a key, of at least a folder and a name, that is the end of no other key -> the key's row."""
        ends = [(end, row) for row, key in enumerate(self.keys) for end in _ends(key)[1:] if "/" in end]
        times = Counter(end for end, _ in ends)
        return {end: row for end, row in ends if times[end] == 1}

    def rows(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """The row of each photo, shape (n,); -1 where the table has none.

        A key matches a path if the two are equal or one ends with the other: an ImageID is the end of a path. An equal
        file name alone is not enough, because the folders of different people hold files of the same names.
        """
        paths = list(map(composed, paths))  # in the spelling of the keys
        exact, by_unique_end = self._exact, self._by_unique_end
        row_of_path = (
            next((exact[end] for end in _ends(path) if end in exact), by_unique_end.get(path, -1)) for path in paths
        )
        rows = np.fromiter(row_of_path, dtype=np.int64, count=len(paths))
        paths_by_row: dict[int, set[str]] = {}
        for path, row in zip(paths, rows.tolist(), strict=True):
            paths_by_row.setdefault(row, set()).add(path)
        ambiguous = [row for row, named in paths_by_row.items() if len(named) > 1]
        return np.where(np.isin(rows, ambiguous), -1, rows)  # a row that matches several photos matches none

    @property
    def photos(self) -> int:
        """Number of photos that it answers in at least one task."""
        return int(self._answered().sum())

    def _answered(self) -> NDArray[np.bool_]:
        answered = np.zeros(len(self.keys), bool)
        for answers in self.by_task.values():
            answered |= answers.any(axis=1)
        return answered

    def answered(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of some rows, -1 for none, answers in at least one task, shape (n,)."""
        return (rows >= 0) & self._answered()[rows]

    def matched(self, paths: Sequence[str]) -> int:
        """Number of `paths` that it answers in at least one task."""
        return int(self.answered(self.rows(paths)).sum())

    @property
    def digest(self) -> str:
        """sha256 (hex) of keys, answers and folds, whatever the file, row order and number format."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        digest = hashlib.sha256("\n".join(self.keys[row] for row in order).encode("utf-8", "surrogatepass"))
        for task in sorted(self.by_task):
            digest.update(task.encode() + np.ascontiguousarray(self.by_task[task][order]).tobytes())
        if self.folds is not None:
            digest.update(np.ascontiguousarray(self.folds[order]).tobytes())
        return digest.hexdigest()

    def answers(self, rows: NDArray[np.int64], weights: Mapping[str, float] | None = None) -> Answers:
        """Its answers for photos, one voter for each of its tasks, which abstains where the table has no answer.

        Args:
            rows: the row of each photo, shape (n,), as `rows` returns them.
            weights: task -> voter weight; None: 1.
        """
        voters, arrays = [], []
        for task, task_answers in self.by_task.items():
            array = np.zeros((len(rows), CLASS_COUNTS[task]), np.float32)
            array[rows >= 0] = task_answers[rows[rows >= 0]]
            voters.append(Voter(task, self.name, weight=weights[task] if weights else 1.0, external=True))
            arrays.append(array)
        return Answers(CLASS_COUNTS, len(rows), tuple(voters), tuple(arrays))

    def softened(self, confidence: Mapping[str, float]) -> ExternalTable:
        """Turns bare labels into probabilities, as confident as the members are on average.

        A certain label would outvote any number of members whose total weight is that of one run.

        Args:
            confidence: task -> probability of the label's class, above 1 / C; the other classes share the rest.
        """
        by_task = dict(self.by_task)
        for task, answers in self.by_task.items():
            if (answers.max(axis=1, initial=0) * answers.any(axis=1) == answers.any(axis=1)).all():
                elsewhere = (1 - confidence[task]) / (answers.shape[1] - 1)
                soft = np.where(answers > 0, confidence[task], elsewhere) * answers.any(axis=1, keepdims=True)
                by_task[task] = soft.astype(np.float32)
        return replace(self, by_task=by_task)

    def write(self, path: Path) -> None:
        """Writes a .parquet table that `read_external` reads back to the same numbers."""
        table: dict[str, Any] = {"path": list(self.keys)}
        for task, answers in self.by_task.items():
            table |= dict(zip(columns_of(task), answers.T, strict=True))
        if self.folds is not None:
            table[FOLD] = self.folds
        with atomic(path) as temporary:
            pd.DataFrame(table).to_parquet(temporary, index=False)


@dataclass(frozen=True, eq=False)
class ExternalRows:
    """Which rows of external tables answer for which photos.

    A row that matches several photos matches none of them, so a photo's row depends on what other photos there are. Therefore
    it is made once for all photos that belong together, before they are divided into batches or shards.

    Attributes:
        tables: the tables.
        paths: the photos.
        rows: for each table, the row of each photo, shape (N,); -1 where the table has none.
    """

    tables: tuple[ExternalTable, ...]
    paths: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]

    @staticmethod
    def of(tables: Sequence[ExternalTable], paths: Sequence[str]) -> ExternalRows:
        """The rows of some tables for all photos."""
        return ExternalRows(tuple(tables), tuple(paths), tuple(table.rows(paths) for table in tables))

    @property
    def matched(self) -> list[int]:
        """For each table, the number of photos that it answers in at least one task."""
        return [int(table.answered(rows).sum()) for table, rows in zip(self.tables, self.rows, strict=True)]

    def take(self, paths: Sequence[str | None]) -> list[NDArray[np.int64]]:
        """For each table, the row of each of n photos, shape (n,); -1 where it has none.

        Args:
            paths: some of the photos, in any order; None: a photo without a path, which no table names.

        Raises:
            ValueError: a path that is not among the photos.
        """
        unknown = [path for path in paths if path is not None and path not in self._position]
        if unknown:
            raise ValueError(
                f"{len(unknown)} photos are not among the {len(self.paths)} of these rows, {unknown[0]} first"
            )
        positions = np.array([-1 if path is None else self._position[path] for path in paths], np.int64)
        return [np.append(rows, -1)[positions] for rows in self.rows]  # the last of them, -1, for photos without a path

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {path: position for position, path in enumerate(self.paths)}


def _ends(path: str) -> list[str]:
    """A path, and its ends without the first folders: `a/b/c`, `b/c`, `c`."""
    parts = PurePosixPath(path).parts
    return [path, *("/".join(parts[start:]) for start in range(1, len(parts)))]


def read_external(path: Path) -> ExternalTable:
    """Reads a table of answers: `.parquet` or `.csv`.

    The photos' column is `path` or `ImageID`. Answers are either `ans` (labels 0 to 17), or probabilities of tasks
    (`p(mask wear)` and so on, a whole task at a time), or of labels (`0` to `17`, or `p(wear / male / <30)` and so on); `share`
    may stand for `p`, as `orch predict --probabilities` writes it. Empty cells abstain. A column `fold` says which fold's member
    answered.

    Raises:
        DataError: missing file or columns, repeated photos, numbers that are not probabilities; names all of them.
    """
    table = read_table(path)
    problems: list[Problem] = []
    key = next((name for name in KEYS if name in table), None)
    keys: list[str] = []
    if key is None:
        names = ", ".join(table.columns[:12])
        problems.append(Problem(str(path), f"has the columns {names}; one must be path or ImageID, the photo."))
    else:
        keys = [clean(cell) for cell in table.texts(key)]
        empty = [number for number, name in enumerate(keys) if not name]
        problems += [Problem(table.where(number), f"{key} is empty.", kind="empty_cell") for number in empty]
        problems += table.repeated(key, keys)
    by_task = _answers(table, problems)
    folds = None
    if FOLD in table:
        folds = np.array(
            [_fold(table, row, cell, problems) for row, cell in enumerate(table.texts(FOLD))], dtype=np.int64
        )
    if not len(table) and not problems:
        problems.append(Problem(str(path), "has no rows."))
    if len(table) and not problems and not any(answers.any() for answers in by_task.values()):
        problems.append(Problem(str(path), "answers for no photo: every cell of its answers is empty."))
    if problems:
        raise DataError(f"{path}: {quantity(len(problems), 'problem')} in this external table:", problems)
    return ExternalTable(path.name, tuple(keys), by_task, folds, absolute_text(path))


def deduplicated(tables: Sequence[ExternalTable]) -> tuple[list[ExternalTable], list[str]]:
    """The tables without duplicates, each with a unique name, and a note on each duplicate that was left out."""
    unique: dict[str, ExternalTable] = {}
    notes, times = [], Counter[str]()
    for table in tables:
        if table.digest in unique:
            first_name = unique[table.digest].name
            notes.append(f"{table.name}: gives the same answers as {first_name}, given before it: counted once.")
            continue
        times[table.name] += 1
        number = times[table.name]
        unique[table.digest] = replace(table, name=f"{table.name} ({number})") if number > 1 else table
    return list(unique.values()), notes


def _fold(table: Table, row: int, cell: str, problems: list[Problem]) -> int:
    """The fold of a row; -1 where it is empty."""
    cell = clean(cell)
    if not cell:
        return -1
    integer = cell.removesuffix(".0")
    if integer.isascii() and integer.isdigit():
        return int(integer)
    if integer == "-1":  # how `ExternalTable.write` writes an unknown fold
        return -1
    problems.append(Problem(table.where(row), f"fold is '{cell}'; allowed: 0, 1, ... or nothing."))
    return -1


def _answers(table: Table, problems: list[Problem]) -> dict[str, NDArray[np.float32]]:
    """Task -> probabilities of every row, from any supported set of columns."""
    by_task: dict[str, NDArray[np.float32]] = {}
    path = table.path
    for task in TASKS:
        columns = _columns(table, list(zip(columns_of(task), columns_of(task, SHARE), strict=True)))
        if columns and len(columns) < len(CLASSES[task]):
            problems.append(
                Problem(str(path), f"has {', '.join(columns)} of the task {task}, and not its other classes.")
            )
        elif columns:
            by_task[task] = _numbers(table, columns, problems)
    if by_task:
        return by_task
    codes = map(str, range(len(LABELS)))
    columns = _columns(table, list(zip(codes, columns_of(JOINT), columns_of(JOINT, SHARE), strict=True)))
    if columns and len(columns) < len(LABELS):
        problems.append(Problem(str(path), f"has {len(columns)} of the 18 labels' columns; all are needed."))
        return by_task
    if columns:
        joint = _numbers(table, columns, problems)
        return {task: np.asarray(part, np.float32) for task, part in marginals(joint).items()}
    if ANSWER in table:
        return _labels(table, problems)
    problems.append(
        Problem(str(path), "has no answers: ans, or p(mask wear) and so on, or 0 to 17.", "Rename its columns so.")
    )
    return by_task


def _columns(table: Table, groups: Sequence[Sequence[str]]) -> list[str]:
    """From each group of names, the one that the table has, if any."""
    return [name for names in groups for name in names if name in table]


def _numbers(table: Table, columns: Sequence[str], problems: list[Problem]) -> NDArray[np.float32]:
    """Rows that sum to 1, or to 0 where the table has no answer (empty cells)."""
    numbers = np.full((len(table), len(columns)), np.nan)
    unreadable_rows: set[int] = set()
    for index, column in enumerate(columns):
        for row, cell in enumerate(table.column(column)):
            number_text = clean(text(cell))
            try:
                numbers[row, index] = float(number_text) if number_text else np.nan
            except ValueError:
                unreadable_rows.add(row)
                problems.append(
                    Problem(table.where(row), f"{column} is '{number_text}'; allowed: a number, or nothing.")
                )
    empty = np.isnan(numbers).all(axis=1) | (np.nan_to_num(numbers) == 0).all(axis=1)
    wrong = ~empty & ~are_probabilities(numbers)
    problems += [
        Problem(
            table.where(row),
            f"{', '.join(columns[:3])} ... are not probabilities summing to 1: {[float(number) for number in numbers[row][:6]]}.",
        )
        for row in np.flatnonzero(wrong).tolist()
        if row not in unreadable_rows
    ]
    filled = np.where((empty | wrong)[:, None], 0.0, numbers)
    return np.asarray(filled / np.where(empty | wrong, 1.0, filled.sum(axis=1))[:, None], np.float32)


def _labels(table: Table, problems: list[Problem]) -> dict[str, NDArray[np.float32]]:
    """Certainty for each row's label; an empty cell abstains."""
    codes = np.full(len(table), -1, dtype=np.int64)
    for row, cell in enumerate(map(clean, table.texts(ANSWER))):
        label = read_label(cell)
        if label is not None:
            codes[row] = label
        elif cell:
            what = f"ans is '{cell}'; allowed: 0 to {len(LABELS) - 1}, or nothing."
            problems.append(Problem(table.where(row), what, kind="wrong_value"))
    has_label = codes >= 0
    digits = decompose(np.where(has_label, codes, 0))
    return {
        task: np.where(has_label[:, None], np.eye(len(CLASSES[task]))[digits[task]], 0.0).astype(np.float32)
        for task in TASKS
    }

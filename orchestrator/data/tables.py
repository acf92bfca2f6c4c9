"""Strict reader of users' tables: it returns exactly what the file contains, or an error that names the line.

A CSV file is UTF-8 with commas; every row has as many fields as the header. Nothing is guessed: no types, no index, no
missing values; an extra comma cannot shift columns, and a stray quote cannot swallow rows. Cells of a CSV file are
strings; cells of a parquet file are Python values, which `text` converts. This module knows no column's meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.errors import DataError, Problem, first_line, quantity
from orchestrator.data.lines import fields_of, misfits, span_of
from orchestrator.data.spelling import clean

__all__ = ["Table", "read_table", "text", "unreadable"]

KINDS = (
    (b"PAR1", "a parquet file; name it .parquet"),
    (b"PK\x03\x04", "a spreadsheet (.xlsx, .ods) or a zip archive; save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of an old Excel (.xls); save the sheet as CSV UTF-8"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\xff\xfe", "UTF-16 text (Excel's 'Unicode text'); save it as CSV UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as CSV UTF-8"),
    (b"\xff\xd8\xff", "a JPEG photo"),
    (b"\x89PNG", "a PNG photo"),
    (b"SQLite format 3", "an SQLite database"),
    (b"<", "a web page or XML; a download may have ended at a login page"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
"""First bytes of files that are not CSV tables, and what these files are."""


@dataclass(frozen=True)
class Table:
    """A table with its cells unchanged.

    Attributes:
        path: file of the table.
        columns: unique column names; unnamed columns are left out.
        rows: cells of each row, one for each column.
        lines: first line of each row, counted from 1 with header and blank lines (CSV), or its row number (parquet).
        notes: omissions and decisions made while reading.
        unit: unit of `lines`, `line` or `row`.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[Problem, ...] = ()
    unit: str = "line"
    _raw: tuple[str, ...] = field(default=(), repr=False)  # CSV: the text between rows, and of each row, alternating
    _fields: tuple[int, ...] = field(default=(), repr=False)  # CSV: for each column, the number of its field in a row

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def column(self, name: str) -> list[Any]:
        """The cells of a column, from the first row to the last."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def texts(self, name: str) -> list[str]:
        """The cells of a column as strings, with surrounding blanks."""
        return [text(cell) for cell in self.column(name)]

    def records(self) -> Iterator[dict[str, Any]]:
        """Each row as a mapping from column to cell."""
        for row in self.rows:
            yield dict(zip(self.columns, row, strict=True))

    def where(self, row: int) -> str:
        """A row as it is named in messages: `people.csv line 7`."""
        return f"{self.path} {self.unit} {self.lines[row]}"

    def several(self, rows: Sequence[int], most: int = 5) -> str:
        """Several rows of this table: `lines 3, 4 and 12 more`."""
        numbers = ", ".join(str(self.lines[row]) for row in rows[:most])
        more = f" and {len(rows) - most} more" if len(rows) > most else ""
        return f"{self.unit}{'' if len(rows) == 1 else 's'} {numbers}{more}"

    def repeated(self, key_name: str, keys: Sequence[str]) -> list[Problem]:
        """A problem for each key that several rows have; empty keys are left out.

        Args:
            key_name: name of the key, such as `ImageID`.
            keys: key of each row.
        """
        rows: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            rows.setdefault(key, []).append(number)
        return [
            Problem(
                f"{self.path} {self.several(numbers)}",
                f"{key_name} '{key}' appears in {len(numbers)} rows.",
                "Keep one.",
                "repeated_row",
            )
            for key, numbers in rows.items()
            if key and len(numbers) > 1
        ]

    def filled(self, column: str, cells: Sequence[str]) -> str:
        """The CSV file's text with the cells of one column replaced; every other byte is unchanged.

        Args:
            column: column to replace.
            cells: new cell of each row.
        """
        field_number = self._fields[self.columns.index(column)]
        parts = list(self._raw)
        for row, cell in enumerate(cells):
            raw = parts[2 * row + 1]
            start, end = span_of(raw, field_number)
            quoted = f'"{cell.replace(chr(34), chr(34) * 2)}"' if set(cell) & set(',"\r\n') else cell
            # A cell that does not change keeps its quotes.
            parts[2 * row + 1] = (
                raw if self.rows[row][self.columns.index(column)] == cell else raw[:start] + quoted + raw[end:]
            )
        return "".join(parts)


def read_table(path: Path) -> Table:
    """Reads a table: parquet where the name ends so, CSV otherwise.

    Raises:
        DataError: there is no such file, it is something else, or rows do not fit their header; all wrong rows at once.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)


def text(cell: Any) -> str:
    """A cell as a string: empty for a missing value; `3` for 3.0, as whole numbers in a column with gaps are stored."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def unreadable(error: OSError) -> str:
    """Why a file could not be read, as text to follow its name and a colon."""
    if isinstance(error, FileNotFoundError):
        return "no such file."
    if isinstance(error, PermissionError):
        return "no permission to read it."
    if isinstance(error, IsADirectoryError):
        return "a folder, not a file."
    return f"cannot be read ({error.strerror or error})."


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {unreadable(error)}") from None
    except ValueError:  # a NUL in the name
        raise DataError(f"{path}: no such file.") from None


def _kind(data: bytes) -> str:
    """The kind of file that these bytes are, by how they begin; empty if it is not known."""
    return next((kind for start, kind in KINDS if data.lstrip(b" \r\n\t").startswith(start)), "")


def _read_csv(path: Path) -> Table:
    data = _bytes(path)
    kind = _kind(data)
    if kind:
        raise DataError(f"{path}: cannot be read as a CSV table: by its content it is {kind}.")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise DataError(
            f"{path} line {line}: holds a NUL byte, so it is not text: it is damaged, or another kind of file."
        )
    bom = "\ufeff" if data.startswith(b"\xef\xbb\xbf") else ""
    try:
        decoded = data[3 * bool(bom) :].decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + 3 * bool(bom)
        line = data[:at].count(b"\n") + 1
        raise DataError(
            f"{path} line {line}: byte 0x{data[at]:02x} is not UTF-8. Save the table as 'CSV UTF-8', or convert it: "
            "`iconv -f CP949 -t UTF-8` for Korean text of Excel, `iconv -f LATIN1 -t UTF-8` for western text."
        ) from None
    header_line, header, rows, lines, raw = fields_of(path, decoded)
    raw[0] = bom + raw[0]
    wrong = misfits(path, header, rows, lines)
    if wrong:
        raise DataError(
            f"{path}: {quantity(len(wrong), 'problem')}; its header has {quantity(len(header), 'field')}.", wrong
        )
    names = [clean(name) for name in header]
    notes = _check_names(path, header_line, names, rows)
    named = [index for index, name in enumerate(names) if name]
    return Table(
        path,
        tuple(names[index] for index in named),
        tuple(tuple(row[index] for index in named) for row in rows),
        tuple(lines),
        tuple(notes),
        _raw=tuple(raw),
        _fields=tuple(named),
    )


def _check_names(path: Path, line: int, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Problem]:
    """Notes on columns without a name.

    Raises:
        DataError: a name appears twice, or a column with contents has no name.
    """
    problems: list[Problem] = []
    notes: list[Problem] = []
    where = f"{path} line {line}"
    for name, times in Counter(name for name in names if name).items():
        if times > 1:
            fields = " and ".join(str(index + 1) for index, other in enumerate(names) if other == name)
            what = f"column '{name}' appears {times} times (fields {fields})."
            problems.append(Problem(where, what, "Rename or remove all but one.", "repeated_column"))
    for index, name in enumerate(names):
        if name:
            continue
        cells = [clean(text(row[index])) for row in rows]
        if not any(cells):
            what = f"field {index + 1} has neither a name nor contents: ignored."
            notes.append(Problem(where, what, kind="unnamed_column", fatal=False))
        elif (
            index == 0
            and len(names) > 1
            and all(cell.isascii() and cell.isdigit() for cell in cells)
            and len(set(cells)) == len(cells)
        ):
            what = "the first column has no name and numbers the rows, as pandas writes an index: ignored."
            notes.append(Problem(where, what, kind="unnamed_column", fatal=False))
        else:
            first = next(cell for cell in cells if cell)
            what = f"column {index + 1} has no name, and holds '{first[:40]}'."
            problems.append(Problem(where, what, "Name it, or remove it.", "unnamed_column"))
    if problems:
        raise DataError(f"{path}: {quantity(len(problems), 'problem')} in its header.", problems)
    return notes


def _read_parquet(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except OSError as error:
        raise DataError(f"{path}: {unreadable(error)}") from None
    if not begin.startswith(b"PAR1"):
        kind = _kind(begin) or ("empty" if not begin else "something else")
        raise DataError(f"{path}: cannot be read as a parquet table: by its content it is {kind}.")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # opened here, since pyarrow accepts only names in UTF-8
            table = pq.read_table(file)
        columns = [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a parquet table ({first_line(error)}).") from None
    cleaned = [(clean(name), column) for name, column in zip(table.column_names, columns, strict=True)]
    # A column of that name is an index that pandas wrote.
    data_columns = [(name, column) for name, column in cleaned if not name.startswith("__index_level_")]
    rows = tuple(zip(*(column for _, column in data_columns), strict=True))
    notes = _check_names(path, 1, [name for name, _ in data_columns], rows)
    named = [index for index, (name, _) in enumerate(data_columns) if name]
    cells = tuple(tuple(row[index] for index in named) for row in rows)
    names = tuple(data_columns[index][0] for index in named)
    return Table(path, names, cells, tuple(range(1, len(rows) + 1)), tuple(notes), "row")

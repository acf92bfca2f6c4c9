"""Rows of a CSV file with their line numbers, and problems with its commas and quotes.

Python's csv module parses; errors that it accepts are caught here: rows with a wrong number of fields, and cells that
contain whole rows.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.core.errors import DataError, Problem, printable, quantity
from orchestrator.data.spelling import clean

__all__ = ["fields_of", "misfits", "span_of", "write_rows"]

SHOWN_LINES = 200
"""Largest number of wrong rows reported one by one; in a file of another shape every row is wrong."""


def fields_of(path: Path, content: str) -> tuple[int, list[str], list[list[str]], list[int], list[str]]:
    """The header's line number and fields, the rows' fields and line numbers, and the text between and in rows.

    Raises:
        DataError: the file is empty, separated by something other than commas, or has unbalanced quotes.
    """
    physical = io.StringIO(content, newline="").readlines()
    reader = csv.reader(physical, strict=True)
    header: list[str] | None = None
    header_line = 0
    rows: list[list[str]] = []
    lines: list[int] = []
    raw = [""]
    done = 0
    try:
        for row in reader:
            begin, end = done, reader.line_num
            done = end
            line = "".join(physical[begin:end])
            blank = not row or (len(row) == 1 and not clean(row[0]) and header is not None and len(header) > 1)
            if header is None or blank:
                raw[-1] += line
                if header is None and any(clean(cell) for cell in row):
                    header, header_line = row, begin + 1
                continue
            rows.append(row)
            lines.append(begin + 1)
            raw += [line, ""]
    except csv.Error as error:
        raise DataError(_stray(path, physical, done, str(error))) from None
    if header is None:
        raise DataError(f"{path}: cannot be read as a CSV table: it is empty.")
    if len(header) == 1:
        separator = next((mark for mark in (";", "\t", "|") if mark in header[0]), "")
        if separator:
            name = {"\t": "tabs"}.get(separator, f"'{separator}'")
            raise DataError(f"{path}: its fields are separated by {name}; save it as CSV with commas.")
    return header_line, header, rows, lines, raw


def _stray(path: Path, physical: Sequence[str], done: int, error: str) -> str:
    """The message for unbalanced quotes, with the line where their row begins."""
    line, begin = done + 1, physical[done].strip() if done < len(physical) else ""
    shown = printable(begin[:80])
    if "field limit" in error and '"' not in begin:
        most = csv.field_size_limit()
        return f"{path} line {line}: a cell of more than {most:,} letters: {shown}. Shorten it, or leave it out."
    if "expected after" in error:
        return (
            f"{path} line {line}: a quoted cell goes on after its closing quote: {shown}. Double the quotes that belong "
            "to the cell, or remove them."
        )
    return (
        f'{path} line {line}: a quote (") opens a cell that never ends, so all that follows would be one cell: {shown}. '
        "Remove the quote, or close it."
    )


def misfits(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]) -> list[Problem]:
    """Problems of rows that do not have the header's fields, and of cells that contain whole rows."""
    width = len(header)
    problems: list[Problem] = []
    counts = Counter(len(row) for row in rows)
    fix = "A comma inside a cell needs quotes around the cell; a missing one shifts all that follows."
    if len(rows) > 1 and width not in counts and len(counts) == 1:
        (row_width,) = counts
        what = f"all {len(rows):,} rows have {quantity(row_width, 'field')}, and the header has {width}: columns would shift."
        return [Problem(str(path), what, "Make header and rows agree.", "field_count")]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != width:
            what = f"{quantity(len(row), 'field')}, where the header has {width}."
            problems.append(Problem(f"{path} line {line}", what, fix, "field_count"))
        inner = [(cell, cell.splitlines()) for cell in row if "\n" in cell or "\r" in cell]
        for cell, parts in inner:
            if width > 1 and any(part.count(",") >= width - 1 for part in parts):
                what = f'a quoted cell goes on for {len(parts)} lines and holds whole rows: "{printable(cell[:40])}..."'
                what = what.replace("\n", " / ").replace("\r", "")
                close = 'Remove the stray quote ("), or write the cell on one line.'
                problems.append(Problem(f"{path} line {line}", what + ".", close, "stray_quote"))
    if len(problems) > SHOWN_LINES:
        omitted = Problem(str(path), f"... and {len(problems) - SHOWN_LINES:,} more lines.", kind="field_count")
        problems = [*problems[:SHOWN_LINES], omitted]
    return problems


def span_of(raw: str, number: int) -> tuple[int, int]:
    """Where a field of a row's text begins and ends."""
    start = index = 0
    while True:
        end = start
        if raw[start : start + 1] == '"':
            end += 1
            while raw[end : end + 2] == '""' or raw[end : end + 1] != '"':
                end += 2 if raw[end : end + 2] == '""' else 1
            end += 1
        while end < len(raw) and raw[end] not in ",\r\n":
            end += 1
        if index == number:
            return start, end
        index, start = index + 1, end + 1


def write_rows(path: Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV table with `\\n` as line end. Cells with any kind of line break are quoted; None and NaN are empty.

    With `\\n` as line end, Python's writer would leave a carriage return unquoted, and readers would see two rows.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in itertools.chain([header], rows):
            line = io.StringIO(newline="")
            csv.writer(line, lineterminator="\r\n").writerow("" if _is_nothing(cell) else cell for cell in row)
            file.write(line.getvalue().removesuffix("\r\n") + "\n")


def _is_nothing(cell: object) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))

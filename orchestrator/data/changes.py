"""What changed between two states of the data: people and photos that came or went, corrected labels, moved files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.data.photos import Photos

__all__ = ["DataChanges", "Relabelled", "changes_between"]

LABELS = ("age", "gender", "mask")


@dataclass(frozen=True)
class Relabelled:
    """A photo with another value in one column.

    Attributes:
        path: its path in the new table.
        person: its person in the new table.
        column: `age`, `gender`, `mask` or `person`.
        before: the value in the old table; None where that has no such column.
        after: the value in the new table; None likewise.
    """

    path: str
    person: str
    column: str
    before: str | float | None
    after: str | float | None


@dataclass(frozen=True)
class DataChanges:
    """What changed between two states of the data. Photos are recognised by their content, and by their path where that differs.

    Attributes:
        people_added: people of the new table alone.
        people_gone: people of the old table alone.
        photos_added: paths of photos of the new table alone.
        photos_gone: paths of photos of the old table alone.
        relabelled: photos in both with another value in a column; a corrected age counts once for each photo.
        moved: old path and new path of photos with the same content elsewhere.
        rewritten: paths of photos whose file has other content now.
        same: number of photos that are in both with the same path, content and values.
    """

    people_added: tuple[str, ...]
    people_gone: tuple[str, ...]
    photos_added: tuple[str, ...]
    photos_gone: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]
    moved: tuple[tuple[str, str], ...]
    rewritten: tuple[str, ...]
    same: int

    @property
    def any(self) -> bool:
        """Whether a person, photo, label or file differs between the two tables."""
        return bool(
            self.people_added or self.people_gone or self.photos_added or self.photos_gone or self.relabelled or self.moved
            or self.rewritten
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "same": self.same,
            "people": {"added": list(self.people_added), "gone": list(self.people_gone)},
            "photos": {
                "added": list(self.photos_added),
                "gone": list(self.photos_gone),
                "rewritten": list(self.rewritten),
            },
            "moved": [{"from": before, "to": after} for before, after in self.moved],
            "relabelled": [vars(change) for change in self.relabelled],
        }


def changes_between(old: Photos, new: Photos, old_content: Sequence[str], new_content: Sequence[str]) -> DataChanges:
    """Compares two states of the data.

    Args:
        old: the photos before.
        new: the photos now.
        old_content: sha256 of each old photo's file, in the table's order.
        new_content: sha256 of each new photo's file, in the table's order.
    """
    before, after = old.table.assign(content=list(old_content)), new.table.assign(content=list(new_content))
    pairs = _pairs(before, after)
    columns = [column for column in ("person", *LABELS) if column in before or column in after]
    rows_before, rows_now = before.to_dict("records"), after.to_dict("records")
    moved: list[tuple[str, str]] = []
    rewritten: list[str] = []
    relabelled: list[Relabelled] = []
    same = 0
    for first, second in pairs:
        earlier, later = rows_before[first], rows_now[second]
        corrections = [
            Relabelled(later["path"], later["person"], column, _value(earlier, column), _value(later, column))
            for column in columns
            if _value(earlier, column) != _value(later, column)
        ]
        relabelled += corrections
        if earlier["content"] != later["content"]:
            rewritten.append(later["path"])
        elif earlier["path"] != later["path"] and _file(old, earlier) != _file(new, later):
            moved.append((earlier["path"], later["path"]))
        elif not corrections:
            same += 1
    people_before, people_now = set(before["person"]), set(after["person"])
    kept_before, kept_now = {first for first, _ in pairs}, {second for _, second in pairs}
    return DataChanges(
        tuple(sorted(people_now - people_before)), tuple(sorted(people_before - people_now)),
        tuple(row["path"] for number, row in enumerate(rows_now) if number not in kept_now),
        tuple(row["path"] for number, row in enumerate(rows_before) if number not in kept_before),
        tuple(relabelled), tuple(moved), tuple(rewritten), same,
    )  # fmt: skip


def _pairs(before: pd.DataFrame, after: pd.DataFrame) -> list[tuple[int, int]]:
    """The rows of photos that are in both tables, each once: of equal path and content, of equal content, then of equal path.

    Equal files of one table are told apart by their path and then by their person.
    """
    pairs: list[tuple[int, int]] = []
    for key in (["path", "content"], ["content", "person"], ["content"], ["path"]):
        left = before[~before.index.isin([first for first, _ in pairs])]
        right = after[~after.index.isin([second for _, second in pairs])]
        left, right = (
            table.assign(row=table.index, turn=table.groupby(key).cumcount())[[*key, "turn", "row"]]
            for table in (left, right)
        )
        both = left.merge(right, on=[*key, "turn"], suffixes=("_before", "_after"))
        pairs += list(zip(both["row_before"].tolist(), both["row_after"].tolist(), strict=True))
    return sorted(pairs, key=lambda pair: pair[1])


def _file(photos: Photos, row: Mapping[Any, Any]) -> Path:
    """The file of a row; tables in different folders may name one file."""
    return (photos.root / str(row["path"])).absolute()


def _value(row: Mapping[Any, Any], column: str) -> str | float | None:
    value = row.get(column)
    return None if value is None or pd.isna(value) else value

"""The contest's layout: `train.csv` and seven photos a person in `images/<path>/`; `info.csv` for evaluation.

The traps of the real table are handled here and reported as notes: an id that occurs twice with different ages
or genders is two people; ids with suffixes (`001498-1`) are people of their own (stripping the suffix would merge
37 ids of nearly always different people); hidden files (`._mask1.jpg`) are not photos.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.core.errors import DataError, Problem, nearest, quantity
from orchestrator.data.decoding import SUFFIXES
from orchestrator.data.paths import check_contest, check_eval, find_file, is_folder, why_no_file
from orchestrator.data.photos import Photos, check_age, check_class_name
from orchestrator.data.spelling import clean, composed, near_people, odd_character, visible
from orchestrator.data.tables import Table, read_table, text, unreadable

__all__ = ["MASK_OF_STEM", "PHOTOS_PER_PERSON", "Eval", "Person", "person_keys", "read_contest", "read_eval"]

MASK_OF_STEM = {
    **{f"mask{i}": "wear" for i in range(1, 6)},
    "incorrect_mask": "incorrect",
    "normal": "not_wear",
}
PHOTOS_PER_PERSON = len(MASK_OF_STEM)
COLUMNS = ("id", "gender", "age", "path")  # the contest's table also has `race`, which is not used


def read_contest(root: Path, distinct: bool = False) -> tuple[Photos, list[Problem]]:
    """Reads a folder with `train.csv` and `images/`.

    Args:
        root: the folder, or its parent when that holds `train/`.
        distinct: whether ids that differ only in spelling are different people.

    Returns:
        The photos of all valid rows, and all problems, fatal or not.

    Raises:
        DataError: there is no table, it is damaged, or a column is missing.
    """
    root = check_contest(root).parent
    table = _read(root / "train.csv", COLUMNS)
    problems = list(table.notes)
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    people = [_person(root, cells) for cells in table.records()]
    keys, key_problems = person_keys(people, table, distinct)
    problems += key_problems
    for number, (row, person) in enumerate(zip(people, keys, strict=True)):
        where = table.where(number)
        gender, wrong_gender = check_class_name("gender", row.gender, where)
        age, wrong_age = check_age(row.age, where)
        mask_by_path, file_problems = _photos_of(root, row.folder, where)
        problems += [problem for problem in (wrong_gender, wrong_age) if problem]
        problems += file_problems
        if gender is None or age is None:
            left_out += mask_by_path
        else:
            rows += [
                {"path": path, "person": person, "age": age, "gender": gender, "mask": mask}
                for path, mask in mask_by_path.items()
            ]
    problems += _extra_folders(root, {row.folder for row in people})
    frame = pd.DataFrame(rows, columns=["path", "person", "age", "gender", "mask"])
    frame = frame.sort_values("path", key=lambda paths: paths.map(composed), ignore_index=True)
    notes = tuple(problem for problem in problems if not problem.fatal)
    rows_of_person: dict[str, list[int]] = {}
    for number, person in enumerate(keys):
        rows_of_person.setdefault(person, []).append(number)
    lines_of = {person: table.several(numbers) for person, numbers in rows_of_person.items()}
    ids = {person: row.id for person, row in zip(keys, people, strict=True) if person != row.id}
    return Photos(root, frame, "contest", notes, tuple(left_out), table.path, ids, lines_of), problems


@dataclass(frozen=True)
class Person:
    """A row of train.csv: its cells as text, and the folder below images/ as the disk spells it."""

    id: str
    gender: str
    age: str
    folder: str


def _person(root: Path, cells: Mapping[str, Any]) -> Person:
    folder = text(cells["path"])
    folder = os.path.normpath(folder) if clean(folder) else ""  # `000001_female/`, `./000001_female`
    return Person(
        clean(text(cells["id"])),
        text(cells["gender"]),
        text(cells["age"]),
        find_file(root / "images", folder) or clean(folder),
    )


def person_keys(people: Sequence[Person], table: Table, distinct: bool = False) -> tuple[list[str], list[Problem]]:
    """The key of the person in each row: the id as written, with the folder where an id means several people.

    Args:
        people: the table's rows.
        table: the table itself, for messages.
        distinct: whether ids that differ only in spelling are different people.
    """
    problems: list[Problem] = []
    keys = [row.id for row in people]
    by_folder: dict[str, list[int]] = {}
    by_id: dict[str, list[int]] = {}
    for number, row in enumerate(people):
        by_folder.setdefault(row.folder, []).append(number)
        by_id.setdefault(row.id, []).append(number)
        if not row.id:
            problems.append(Problem(table.where(number), "id is empty.", kind="empty_cell"))
        elif odd_character(row.id):
            what = f"id '{visible(row.id)}' holds the character {odd_character(row.id)}."
            problems.append(Problem(table.where(number), what, kind="wrong_value"))
    for folder, numbers in by_folder.items():
        ids = {people[number].id for number in numbers}
        if len(ids) > 1:
            what = f"the folder '{folder}' is listed under {len(ids)} ids: folds would leak."
            where = f"{table.path} {table.several(numbers)}"
            problems.append(Problem(where, what, "Keep one of the rows.", "duplicate_people"))
    for key, numbers in by_id.items():
        if len(numbers) < 2 or not key:
            continue
        where = f"{table.path} {table.several(numbers)}"
        # `Male` and `male`, 20 and 20.0 are the same, so they do not mean two people
        described = {(_gender(people[number]), _age(people[number])) for number in numbers}
        if len({people[number].folder for number in numbers}) < len(numbers):
            what = f"id '{key}' appears twice with the same folder."
            problems.append(Problem(where, what, "Keep one of the rows.", "repeated_row"))
        elif len(described) > 1:
            for number in numbers:
                keys[number] = f"{key}@{composed(people[number].folder)}"
            what = f"id '{key}' occurs {len(numbers)} times with different ages or genders: taken as {len(numbers)} people."
            problems.append(Problem(where, what, kind="id_twice", fatal=False))
        else:
            what = f"id '{key}' occurs {len(numbers)} times with equal age and gender: taken as one person."
            problems.append(Problem(where, what, kind="id_twice", fatal=False))
    lines_of = {key: table.several(numbers) for key, numbers in by_id.items() if key}
    problems += near_people(lines_of, table.path, distinct, "")
    return keys, problems


def _gender(row: Person) -> str:
    return check_class_name("gender", row.gender, "")[0] or row.gender


def _age(row: Person) -> float | str:
    """The age in years, or the cell's text if it is not a valid age."""
    number = check_age(row.age, "")[0]
    return row.age if number is None else number


def _photos_of(root: Path, folder: str, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Path -> mask class of the photos in one person's folder, and the folder's problems."""
    path = root / "images" / folder
    if not folder:
        return {}, [Problem(where, "path is empty: it names the person's folder in images/.", kind="missing_folder")]
    if not is_folder(path):
        short = folder.replace("\\", "/").removeprefix("images/")
        hint = f" There is images/{short}." if short != folder and is_folder(root / "images" / short) else ""
        what = f"no folder images/{folder}.{hint}"
        return {}, [Problem(where, what, "Restore it or remove the row.", "missing_folder")]
    problems: list[Problem] = []
    by_stem: dict[str, list[str]] = {}
    try:
        files = sorted(path.iterdir())
    except OSError as error:
        return {}, [Problem(str(path), unreadable(error), kind="unreadable")]
    for file in files:
        if file.name.startswith("."):
            continue
        if file.stem in MASK_OF_STEM and file.suffix.lower() in SUFFIXES:
            by_stem.setdefault(file.stem, []).append(file.name)
        else:
            hint = nearest(file.stem, MASK_OF_STEM)
            what = f"not one of {', '.join(MASK_OF_STEM)} with {', '.join(SUFFIXES)}: left out.{hint}"
            problems.append(Problem(str(file), what, kind="extra_file", fatal=False))
    for stem, names in by_stem.items():
        if len(names) > 1:
            what = f"{' and '.join(names)} are both {stem}."
            problems.append(Problem(str(path), what, "Keep one of them.", "two_files"))
    missing = [stem for stem in MASK_OF_STEM if stem not in by_stem]
    if not by_stem:
        problems.append(Problem(str(path), "holds no photo.", "Restore its photos or remove the row.", "missing_file"))
    elif missing:
        what = f"{len(by_stem)} photos instead of {PHOTOS_PER_PERSON}, missing {', '.join(missing)}: trained without."
        problems.append(Problem(str(path), what, kind="photo_count", fatal=False))
    photos = {f"images/{folder}/{names[0]}": MASK_OF_STEM[stem] for stem, names in by_stem.items()}
    return photos, problems


def _extra_folders(root: Path, listed: set[str]) -> list[Problem]:
    images = root / "images"
    if not is_folder(images):
        return []
    try:
        entries = sorted(images.iterdir())
    except OSError as error:
        return [Problem(str(images), unreadable(error), kind="unreadable")]
    listed = {name.split("/")[0] for name in listed}
    extra = [entry for entry in entries if entry.name not in listed and not entry.name.startswith(".")]
    return [
        Problem(str(entry), "is in no row of train.csv: left out.", kind="extra_file", fatal=False) for entry in extra
    ]


@dataclass(frozen=True)
class Eval:
    """The contest's evaluation photos.

    Attributes:
        table: contents of `info.csv`, unchanged.
        paths: photo of each row.
        answer: name of the column for the answers, `ans`.
    """

    table: Table
    paths: tuple[Path, ...]
    answer: str = "ans"

    @property
    def names(self) -> list[str]:
        """The ImageID of each row, as written."""
        return self.table.texts("ImageID")

    def submission(self, labels: Sequence[int | None]) -> str:
        """info.csv with the answers filled in and every other byte unchanged.

        Args:
            labels: label of each row; None leaves its cell empty.
        """
        return self.table.filled(self.answer, ["" if label is None else str(label) for label in labels])


def read_eval(root: Path, allow_missing: bool = False) -> Eval:
    """Reads a folder with `info.csv` (ImageID, ans) and `images/`.

    Args:
        root: the folder, or its parent when that holds `eval/`.
        allow_missing: whether photos may be missing; opening them then fails later.

    Raises:
        DataError: no table, a missing column, repeated ids or missing photos, all named.
    """
    root = check_eval(root)
    table = _read(root / "info.csv", ("ImageID", "ans"))
    images = root / "images"
    problems: list[Problem] = []
    paths: list[Path] = []
    for number, cell in enumerate(table.texts("ImageID")):
        name = clean(cell)
        on_disk = find_file(images, cell)
        paths.append(images / (on_disk or name or "."))
        if not name:
            problems.append(Problem(table.where(number), "ImageID is empty.", kind="empty_cell"))
        elif "\0" in name or (not allow_missing and why_no_file(images, on_disk or name)):
            folder, path = (Path(), name) if "\0" in name else (root, on_disk or name)
            what = why_no_file(folder, f"images/{path}")
            problems.append(Problem(table.where(number), what, kind="missing_file"))
    problems += table.repeated("ImageID", list(map(clean, table.texts("ImageID"))))
    if problems:
        raise DataError(f"{table.path}: {quantity(len(problems), 'problem')}.", problems)
    if not paths:
        raise DataError(f"{table.path}: the table has no rows, so there is nothing to predict.")
    return Eval(table, tuple(paths))


def _read(path: Path, columns: tuple[str, ...]) -> Table:
    """A CSV table with at least `columns`."""
    table = read_table(path)
    missing = [column for column in columns if column not in table]
    if missing:
        problems = [
            Problem(
                str(path),
                f"no column '{column}'.{nearest(column, table.columns)}",
                kind="missing_column",
                column=column,
            )
            for column in missing
        ]
        raise DataError(f"{path}: has the columns {', '.join(table.columns)}.", problems)
    return table

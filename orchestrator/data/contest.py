"""The contest's layout: `train.csv` and seven photos a person in `images/<path>/`; `info.csv` for evaluation.

The traps of the real table are handled here and reported as notes: an id that occurs twice with different ages
or genders is two people; ids with suffixes (`001498-1`) are people of their own (stripping the suffix would merge
37 ids of nearly always different people); hidden files (`._mask1.jpg`) are not photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from orchestrator.data.photos import Photos, check_age, check_word
from orchestrator.data.preprocessing import SUFFIXES
from orchestrator.errors import DataError, Problem, counted, nearest

__all__ = ["MASK_OF_STEM", "PHOTOS_PER_PERSON", "Eval", "person_keys", "read_contest", "read_eval"]

MASK_OF_STEM = {
    **{f"mask{i}": "wear" for i in range(1, 6)},
    "incorrect_mask": "incorrect",
    "normal": "not_wear",
}
PHOTOS_PER_PERSON = len(MASK_OF_STEM)
COLUMNS = ("id", "gender", "age", "path")  # `race` stands in the contest's table too, and nothing needs it


def read_contest(root: Path) -> tuple[Photos, list[Problem]]:
    """Reads a folder with `train.csv` and `images/`.

    Args:
        root: the folder, or its parent when that holds `train/`.

    Returns:
        The photos of all rows that are in order, and everything found on the way, fatal or not.

    Raises:
        DataError: there is no table, or a column is missing.
    """
    if not (root / "train.csv").is_file() and (root / "train" / "train.csv").is_file():
        root = root / "train"
    people = _read_csv(root / "train.csv", COLUMNS)
    table = root / "train.csv"
    problems: list[Problem] = []
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    keys, key_problems = person_keys(people, table)
    problems += key_problems
    for number, (row, person) in enumerate(zip(people.itertuples(index=False), keys, strict=True), start=2):
        where = f"{table} row {number}"
        gender, wrong_gender = check_word("gender", row.gender, where)
        age, wrong_age = check_age(row.age, where)
        found, file_problems = _photos_of(root, str(row.path), where)
        problems += [problem for problem in (wrong_gender, wrong_age) if problem]
        problems += file_problems
        if gender is None or age is None:
            left_out += found
        else:
            rows += [
                {"path": path, "person": person, "age": age, "gender": gender, "mask": mask}
                for path, mask in found.items()
            ]
    problems += _extra_folders(root, {str(path) for path in people["path"]})
    frame = pd.DataFrame(rows, columns=["path", "person", "age", "gender", "mask"])
    frame = frame.sort_values("path", ignore_index=True)
    notes = tuple(problem for problem in problems if not problem.fatal)
    return Photos(root, frame, "contest", notes, tuple(left_out)), problems


def person_keys(people: pd.DataFrame, table: Path) -> tuple[list[str], list[Problem]]:
    """The key of the person in each row: the id as written, with the folder where an id means several people.

    Args:
        people: columns `id`, `age`, `gender`, `path`, strings.
        table: the file, for messages.
    """
    problems: list[Problem] = []
    people = people.assign(
        id=people["id"].str.strip(),
        gender=[check_word("gender", value, "")[0] or value for value in people["gender"]],
        age=[str(value if (years := check_age(value, "")[0]) is None else years) for value in people["age"]],
    )  # `Male` and `male`, 20 and 20.0 are the same, so they must not make two people of one
    keys = [str(key) for key in people["id"]]
    for folder, group in people[people["path"].duplicated(keep=False)].groupby("path", sort=False):
        if group["id"].nunique() > 1:
            where = f"{table} rows {', '.join(str(int(position) + 2) for position in group.index)}"
            what = f"the folder '{folder}' stands under {group['id'].nunique()} ids: folds would leak."
            problems.append(Problem(where, what, "Keep one of the rows.", "twin_people"))
    for key, group in people.groupby("id", sort=False):
        if len(group) < 2:
            continue
        numbers = ", ".join(str(int(position) + 2) for position in group.index)
        where = f"{table} rows {numbers}"
        if group["path"].nunique() < len(group):
            problems.append(
                Problem(
                    where,
                    f"id '{key}' stands twice with the same folder.",
                    "Keep one of the rows.",
                    "repeated_row",
                )
            )
        elif group[["age", "gender"]].drop_duplicates().shape[0] > 1:
            for position in group.index:
                keys[int(position)] = f"{key}@{people['path'][position]}"
            what = f"id '{key}' occurs {len(group)} times with different ages or genders: taken as {len(group)} people."
            problems.append(Problem(where, what, kind="id_twice", fatal=False))
        else:
            what = f"id '{key}' occurs {len(group)} times with equal age and gender: taken as one person."
            problems.append(Problem(where, what, kind="id_twice", fatal=False))
    return keys, problems


def _photos_of(root: Path, folder: str, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Path -> mask word of one person's folder, and what is wrong with it."""
    place = root / "images" / folder
    if not folder or not place.is_dir():
        return {}, [Problem(where, f"no folder images/{folder}.", "Restore it or remove the row.", "missing_folder")]
    problems: list[Problem] = []
    by_stem: dict[str, list[str]] = {}
    for file in sorted(place.iterdir()):
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
            problems.append(Problem(str(place), what, "Keep one of them.", "two_files"))
    missing = [stem for stem in MASK_OF_STEM if stem not in by_stem]
    if not by_stem:
        problems.append(Problem(str(place), "holds no photo.", "Restore them or remove the row.", "missing_file"))
    elif missing:
        what = f"{len(by_stem)} photos instead of {PHOTOS_PER_PERSON}, missing {', '.join(missing)}: trained without."
        problems.append(Problem(str(place), what, kind="photo_count", fatal=False))
    found = {f"images/{folder}/{names[0]}": MASK_OF_STEM[stem] for stem, names in by_stem.items()}
    return found, problems


def _extra_folders(root: Path, known: set[str]) -> list[Problem]:
    images = root / "images"
    if not images.is_dir():
        return []
    extra = [entry for entry in sorted(images.iterdir()) if entry.name not in known and not entry.name.startswith(".")]
    return [
        Problem(str(entry), "is in no row of train.csv: left out.", kind="extra_file", fatal=False) for entry in extra
    ]


@dataclass(frozen=True)
class Eval:
    """The contest's evaluation photos.

    Attributes:
        table: `info.csv` as it stands: rows, order and columns, every cell a string.
        paths: the photo of each row.
        answer: the name of the column that holds the answers, `ans`.
    """

    table: pd.DataFrame
    paths: tuple[Path, ...]
    answer: str = "ans"


def read_eval(root: Path, missing_too: bool = False) -> Eval:
    """Reads a folder with `info.csv` (ImageID, ans) and `images/`.

    Args:
        root: the folder, or its parent when that holds `eval/`.
        missing_too: let photos pass that are not there; who opens them finds out.

    Raises:
        DataError: no table, a missing column, repeated ids or missing photos, all named.
    """
    if not (root / "info.csv").is_file() and (root / "eval" / "info.csv").is_file():
        root = root / "eval"
    table = _read_csv(root / "info.csv", ("ImageID", "ans"))
    paths = tuple(root / "images" / name for name in table["ImageID"])
    problems = [
        Problem(f"{root / 'info.csv'} row {number}", f"no file images/{path.name}.", kind="missing_file")
        for number, path in enumerate(paths, start=2)
        if not missing_too and not path.is_file()
    ]
    for name in table["ImageID"][table["ImageID"].duplicated()].unique():
        problems.append(Problem(str(root / "info.csv"), f"ImageID '{name}' stands twice.", kind="repeated_row"))
    if problems:
        raise DataError(f"{root / 'info.csv'}: {counted(len(problems), 'problem')}.", problems)
    if not paths:
        raise DataError(f"{root / 'info.csv'}: the table has no rows, so there is nothing to predict.")
    return Eval(table, paths)


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV of strings with at least `columns`."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give the folder that holds {path.name} and images/, or a manifest (.csv, .parquet)."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error}).") from None
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

"""Extra photos, which join training and are never scored: outside collections, and pseudo-labels made within each fold.

A table (.csv or .parquet) has a row per photo: `path` (relative to the table's folder, or absolute), and what is known of `age`
(years, or a band: <30, 30-59, >=60), `gender` and `mask`; a task trains on the rows whose class is known. Optional:
`person` (without it, every photo is a separate person), `fold`, for labels that only one fold's member may learn from,
and `plan`, the fold plan that such labels were made with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.commands import orch
from orchestrator.core.errors import DataError, LeakError, Problem, quantity
from orchestrator.core.files import digest_of
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.data.folds import FoldPlan
from orchestrator.data.manifest import path_on_disk
from orchestrator.data.paths import why_no_file
from orchestrator.data.photos import Photos, check_age, check_class_name
from orchestrator.data.spelling import clean, near, visible
from orchestrator.data.tables import Table, read_table, text

__all__ = ["ALONE", "EVERY_FOLD", "Extra", "exact_column", "read_extra"]

EVERY_FOLD = -1

ALONE = "extra:"
"""Key prefix of a photo without a person, which counts as a separate person."""

MIDDLES = (15.0, 45.0, 70.0)
"""Ages that represent a band if only the band is known; the loss soft_age then uses only the band."""


def exact_column(column: str) -> str:
    """The name of the column that says whether a number is exact, or stands for its class."""
    return f"{column}_exact"


@dataclass(frozen=True)
class Extra:
    """Extra photos: trained on, never scored.

    Attributes:
        sources: tables that they come from.
        table: columns `path` (absolute), `person`, `fold` (-1: every fold), `plan` (digest of the fold plan that a label for a
            single fold was made with; empty: unknown), `age` (years), `age_exact`, `gender`, `mask`; NaN or None where
            unknown. Sorted by the path as its table names it, then by fold: where tables lie does not matter.
        lines_of: person -> table and its lines that name the person.
    """

    sources: tuple[Path, ...]
    table: pd.DataFrame
    lines_of: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def paths(self) -> list[Path]:
        """The photos' files, in the table's order."""
        return [Path(path) for path in self.table["path"]]

    def fingerprint(self, content: Sequence[str]) -> str:
        """sha256 (hex) of the rows and the photos' content; where the table lies does not matter."""
        rows = self.table.drop(columns=["path", "plan"]).astype(object)
        rows["person"] = rows["person"].where(~rows["person"].str.startswith(ALONE), ALONE)
        return digest_of([rows.where(rows.notna(), None).to_numpy().tolist(), list(content)])

    def known(self, columns: Iterable[str]) -> NDArray[np.int64]:
        """Numbers of the rows in which all these columns are known, shape (n,)."""
        return np.flatnonzero(self.table[list(columns)].notna().all(axis=1).to_numpy())

    def for_fold(self, rows: NDArray[np.int64], fold: int | None, plan: FoldPlan | None) -> NDArray[np.int64]:
        """The rows that a fold's member may learn from: for all folds or for its own, not of people it holds out."""
        table = self.table.iloc[rows]
        usable = table["fold"].isin([EVERY_FOLD] if fold is None else [EVERY_FOLD, fold])
        if plan is not None and fold is not None:
            held_out = {person for person, person_fold in plan.fold_of.items() if person_fold == fold}
            usable &= ~table["person"].isin(held_out)
        return rows[usable.to_numpy()]

    def check_people(self, photos: Photos, distinct: bool = False) -> list[Problem]:
        """Notes on extra people whose names resemble names in the data, if `distinct` says they are different people.

        Raises:
            LeakError: they may be the same people, so that members would learn from people whom they hold out.
        """
        keys_by_near_name: dict[str, list[str]] = {}
        for key in photos.people.index:
            for spelling in dict.fromkeys((str(key), photos.ids.get(str(key), str(key)))):
                keys_by_near_name.setdefault(near(spelling), []).append(str(key))
        problems = []
        for person, lines in self.lines_of.items():
            keys = [key for key in keys_by_near_name.get(near(person), ()) if key != person]
            if person.startswith(ALONE) or not keys or person in photos.lines_of:
                continue
            spellings = " and ".join(f"'{visible(key)}' ({photos.lines_of.get(key, 'data')})" for key in keys)
            what = (
                f"person '{visible(person)}' ({lines}) is spelt almost as {spellings} of {photos.source or photos.root}"
            )
            problems.append(
                Problem(
                    "--extra",
                    f"{what}: taken as another person, as --distinct-people says.",
                    kind="near_people",
                    fatal=False,
                )
                if distinct
                else Problem(
                    "--extra",
                    f"{what}: if they are one person, folds would learn from people whom they hold out.",
                    "Write one person one way, as the data does; or, if they are different people, --distinct-people.",
                    "near_people",
                )
            )
        if problems and not distinct:
            raise LeakError(f"--extra: {quantity(len(problems), 'person key')} may be people of the data.", problems)
        return problems

    def check(
        self, photos: Photos, content: Sequence[str], extra_content: Sequence[str], plan: FoldPlan | None
    ) -> None:
        """Refuses extra photos that would leak.

        Args:
            photos: photos that are scored.
            content: sha256 of each scored photo.
            extra_content: sha256 of each extra photo.
            plan: fold plan of the run; None: all photos are trained on.

        Raises:
            LeakError: an extra photo is also scored, or its label was made with another plan.
        """
        scored_paths = dict(zip(content, photos.table["path"], strict=True))
        duplicates = [
            Problem(
                path,
                f"is the same file as {scored_paths[digest]} of the data that is scored.",
                "Leave its row out.",
                "duplicate",
            )
            for path, digest in zip(self.table["path"], extra_content, strict=True)
            if digest in scored_paths
        ]
        if duplicates:
            raise LeakError(
                f"--extra: {quantity(len(duplicates), 'photo')} would be trained on and scored.",
                list(dict.fromkeys(duplicates)),
            )
        single = self.table[self.table["fold"] != EVERY_FOLD]
        if single.empty:
            return
        sources = ", ".join(map(str, self.sources))
        if plan is None:
            raise LeakError(
                f"--extra {sources}: its labels are for single folds (column fold), and --folds 0 has none."
            )
        own = (plan.digest, *plan.ancestors)  # in a plan that it extends, its folds held the same people out
        other_plans = sorted(
            {digest for digest in single["plan"] if not digest or not any(known.startswith(digest) for known in own)}
        )
        if other_plans:
            again = orch("pseudo", "--help")
            made = f"by plan {other_plans[-1]}" if other_plans[-1] else "without saying by which plan (column plan)"
            raise LeakError(
                f"--extra {sources}: its labels were made {made}, and this training follows {plan.digest[:12]}: its folds hold "
                f"other people out, so the labels may come from models that have seen them. Make them again: `{again}`."
            )


def read_extra(sources: Sequence[Path]) -> Extra:
    """Reads tables of extra photos.

    Raises:
        DataError: tables or rows are wrong; names all their problems.
    """
    sources = list({source.resolve(): source for source in sources}.values())  # each table once
    problems: list[Problem] = []
    parts: list[dict[str, Any]] = []
    lines_of: dict[str, str] = {}
    for source in sources:
        try:
            table = read_table(source)
        except DataError as error:
            problems += error.problems or [
                Problem(str(source), error.message.removeprefix(f"{source}: "), kind="no_table")
            ]
            continue
        if "path" not in table or not any(task in table for task in TASKS):
            names = ", ".join(table.columns)
            what = f"has the columns {names}; needed: path, and at least one of {', '.join(TASKS)}."
            problems.append(Problem(str(source), what, kind="missing_column"))
            continue
        rows, row_problems = _rows(table)
        problems += row_problems
        problems += table.repeated("path", [_key(row) for row in rows])
        parts += [{**row, "table": str(source)} for row in rows]
        rows_of_person: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            rows_of_person.setdefault(row["person"], []).append(number)
        for person, numbers in rows_of_person.items():
            lines_of.setdefault(person, f"{source} {table.several(numbers)}")
    if problems:
        raise DataError(f"--extra: {quantity(len(problems), 'problem')}.", problems)
    columns = ["path", "person", "fold", "plan", "age", "age_exact", "gender", "mask", "table", "name"]
    frame = pd.DataFrame(parts, columns=columns).astype({"fold": int, "age": float, "age_exact": bool})
    repeated = frame.duplicated(["path", "fold"], keep=False)
    if repeated.any():
        tables, first = " and ".join(dict.fromkeys(frame[repeated]["table"])), frame[repeated].iloc[0]
        photos = quantity(len(frame[repeated].drop_duplicates(["path", "fold"])), "photo")
        name = _key({"path": first["path"], "fold": first["fold"]})
        raise DataError(f"--extra: {tables} have {photos} in common, {name} first. Give each photo in one table.")
    if not len(frame):
        raise DataError(f"--extra {', '.join(map(str, sources))}: no rows.")
    frame = frame.sort_values(["name", "fold"], kind="stable", ignore_index=True)
    return Extra(tuple(sources), frame.drop(columns=["table", "name"]), lines_of)


def _key(row: Mapping[str, Any]) -> str:
    """A row's path, plus its fold if it is for a single fold; empty without a path."""
    return row["path"] if row["fold"] == EVERY_FOLD or not row["path"] else f"{row['path']}, fold {row['fold']}"


def _rows(table: Table) -> tuple[list[dict[str, Any]], list[Problem]]:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    folder = table.path.parent
    for number, cells in enumerate(table.records()):
        where = table.where(number)
        texts = {column: clean(text(cell)) for column, cell in cells.items()}
        name = path_on_disk(text(cells["path"]), folder) if texts["path"] else ""
        path = (Path(name) if Path(name).is_absolute() else folder.absolute() / name).as_posix() if name else ""
        missing = why_no_file(folder, name) if name else "path is empty."
        if missing:
            fix = "Paths are relative to the table." if missing.startswith("no file") else ""
            problems.append(Problem(where, missing, fix, "missing_file"))
        row: dict[str, Any] = {
            "path": path, "name": Path(name).as_posix() if name else "",
            "person": texts.get("person") or f"{ALONE}{path}", "fold": EVERY_FOLD,
            "plan": texts.get("plan", ""), "age": np.nan, "age_exact": True, "gender": None, "mask": None,
        }  # fmt: skip
        for column in ("gender", "mask"):
            if texts.get(column):
                row[column], problem = check_class_name(column, texts[column], where)
                problems += [problem] if problem else []
        if texts.get("age"):
            band = texts["age"].replace(" ", "")
            if band in CLASSES["age"]:
                row["age"], row["age_exact"] = MIDDLES[CLASSES["age"].index(band)], False
            else:
                row["age"], problem = check_age(texts["age"], where)
                problems += [problem] if problem else []
        if texts.get("fold"):
            try:
                row["fold"] = int(float(texts["fold"]))
                if row["fold"] < 0 or row["fold"] != float(texts["fold"]):
                    raise ValueError
            except (ValueError, OverflowError):
                problems.append(
                    Problem(where, f"fold is '{texts['fold']}'; allowed: 0, 1, ... or empty for every fold.")
                )
        rows.append(row)
    return rows, problems

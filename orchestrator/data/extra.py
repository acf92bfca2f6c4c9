"""Photos from elsewhere that join training and are never scored: outside collections, and pseudo-labels made inside each fold.

A table (.csv or .parquet) has a row per photo: `path` (relative to the table's folder, or absolute), and what is known of `age`
(years, or a band: <30, 30-59, >=60), `gender` and `mask`; a task trains on the rows that tell its class. Optional are `person`,
without which every photo is a person of its own, and `fold`, for labels that only one fold's member may learn from, beside which
`plan` names the fold plan that they were made by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.data.files import digest_of
from orchestrator.data.folds import FoldPlan
from orchestrator.data.manifest import place_of, read_cells
from orchestrator.data.photos import Photos, check_age, check_word
from orchestrator.errors import DataError, LeakError, Problem, counted
from orchestrator.labels import CLASSES, TASKS

__all__ = ["ALONE", "EVERY_FOLD", "Extra", "exact_column", "read_extra"]

EVERY_FOLD = -1

ALONE = "extra:"
"""What the key of a photo without a person begins with: it is a person of its own."""

MIDDLES = (15.0, 45.0, 70.0)
"""Years that stand for a band of which no more is known; soft ages learn from the band alone."""


def exact_column(column: str) -> str:
    """The name of the column that says whether a number is exact, or stands for its class."""
    return f"{column}_exact"


@dataclass(frozen=True)
class Extra:
    """Photos from elsewhere.

    Attributes:
        sources: the tables that they come from.
        table: columns `path` (absolute), `person`, `fold` (-1: every fold), `plan` (digest of the fold plan that a label for a
            single fold is good for; empty where unknown), `age` (years), `age_exact`, `gender`, `mask`; NaN or None where
            unknown. Sorted by path and fold.
    """

    sources: tuple[Path, ...]
    table: pd.DataFrame

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
        """Rows of which all these columns are known."""
        return np.flatnonzero(self.table[list(columns)].notna().all(axis=1).to_numpy())

    def for_fold(self, rows: NDArray[np.int64], fold: int | None, plan: FoldPlan | None) -> NDArray[np.int64]:
        """Those of some rows that a fold's member may learn from: of every fold or its own, and of nobody whom it holds out."""
        table = self.table.iloc[rows]
        own = table["fold"].isin([EVERY_FOLD] if fold is None else [EVERY_FOLD, fold])
        if plan is not None and fold is not None:
            held_out = {person for person, its in plan.fold_of.items() if its == fold}
            own &= ~table["person"].isin(held_out)
        return rows[own.to_numpy()]

    def check(self, photos: Photos, content: Sequence[str], own: Sequence[str], plan: FoldPlan | None) -> None:
        """Refuses what would leak.

        Args:
            photos: the data that is scored.
            content: their files' hashes.
            own: the extra photos' hashes.
            plan: of the run; None: everything is trained on.

        Raises:
            LeakError: files that are among the scored ones too, and labels that were made by another plan.
        """
        known = dict(zip(content, photos.table["path"], strict=True))
        twins = [
            Problem(
                path, f"is the same file as {known[digest]} of the data that is scored.", "Leave its row out.", "twin"
            )
            for path, digest in zip(self.table["path"], own, strict=True)
            if digest in known
        ]
        if twins:
            raise LeakError(
                f"--extra: {counted(len(twins), 'photo')} would be trained on and scored.", list(dict.fromkeys(twins))
            )
        single = self.table[self.table["fold"] != EVERY_FOLD]
        if single.empty:
            return
        sources = ", ".join(map(str, self.sources))
        if plan is None:
            raise LeakError(
                f"--extra {sources}: its labels are for single folds (column fold), and --folds 0 has none."
            )
        others = sorted({digest for digest in single["plan"] if not digest or not plan.digest.startswith(digest)})
        if others:
            made = f"by plan {others[-1]}" if others[-1] else "without saying by which plan (column plan)"
            raise LeakError(
                f"--extra {sources}: its labels were made {made}, and this training follows {plan.digest[:12]}: its folds hold "
                "other people out, so the labels may come from models that have seen them. Make them anew: orch pseudo."
            )


def read_extra(sources: Sequence[Path]) -> Extra:
    """Reads tables of photos from elsewhere.

    Raises:
        DataError: everything that is wrong with all of them.
    """
    problems: list[Problem] = []
    parts: list[dict[str, Any]] = []
    for source in sources:
        frame = read_cells(source)
        if "path" not in frame or not set(TASKS) & set(frame):
            told = ", ".join(map(str, frame.columns))
            what = f"has the columns {told}; needed: path, and at least one of {', '.join(TASKS)}."
            problems.append(Problem(str(source), what, kind="missing_column"))
            continue
        rows, found = _rows(source, frame)
        problems += found
        parts += rows
    if problems:
        raise DataError(f"--extra: {counted(len(problems), 'problem')}.", problems)
    columns = ["path", "person", "fold", "plan", "age", "age_exact", "gender", "mask"]
    table = pd.DataFrame(parts, columns=columns).astype({"fold": int, "age": float, "age_exact": bool})
    twice = table.duplicated(["path", "fold"], keep=False)
    if twice.any():
        first = table[twice].iloc[0]
        raise DataError(f"--extra: {first['path']} stands in several rows of fold {first['fold']}. Keep one.")
    if not len(table):
        raise DataError(f"--extra {', '.join(map(str, sources))}: no rows.")
    return Extra(tuple(sources), table.sort_values(["path", "fold"], ignore_index=True))


def _rows(source: Path, frame: pd.DataFrame) -> tuple[list[dict[str, Any]], list[Problem]]:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, cells in enumerate(frame.to_dict("records"), start=2):
        where = f"{source} row {number}"
        path = Path(place_of(str(cells["path"]), source.parent))
        path = path if path.is_absolute() else source.parent.absolute() / path
        if not path.is_file():
            problems.append(
                Problem(where, f"no file {cells['path']}.", "Paths are relative to the table.", "missing_file")
            )
        person = cells.get("person")
        row: dict[str, Any] = {
            "path": path.as_posix(), "person": f"{ALONE}{path.as_posix()}" if _empty(person) else str(person).strip(),
            "fold": EVERY_FOLD,
            "plan": "" if _empty(cells.get("plan")) else str(cells["plan"]).strip(),
            "age": np.nan, "age_exact": True, "gender": None, "mask": None,
        }  # fmt: skip
        for column in ("gender", "mask"):
            if not _empty(cells.get(column)):
                row[column], problem = check_word(column, cells[column], where)
                problems += [problem] if problem else []
        if not _empty(cells.get("age")):
            band = str(cells["age"]).strip().replace(" ", "")
            if band in CLASSES["age"]:
                row["age"], row["age_exact"] = MIDDLES[CLASSES["age"].index(band)], False
            else:
                row["age"], problem = check_age(cells["age"], where)
                problems += [problem] if problem else []
        if not _empty(cells.get("fold")):
            try:
                row["fold"] = int(float(cells["fold"]))
                if row["fold"] < 0 or row["fold"] != float(cells["fold"]):
                    raise ValueError
            except (ValueError, OverflowError):
                problems.append(
                    Problem(where, f"fold is '{cells['fold']}'; allowed: 0, 1, ... or empty for every fold.")
                )
        rows.append(row)
    return rows, problems


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or not str(value).strip()

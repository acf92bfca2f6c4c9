"""What is in a data source: counts by class and joint class, ages, image sizes; as tables and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.core.errors import PhotoError
from orchestrator.core.labels import AGE_BORDERS, CLASSES, age_band_names
from orchestrator.data.decoding import UndecodableError, size_of
from orchestrator.data.folds import FoldPlan, stratum_names
from orchestrator.data.photos import Photos

__all__ = ["Description", "describe", "fold_table", "with_bands"]


@dataclass(frozen=True)
class Description:
    """Counts of a data source.

    Attributes:
        photos: number of photos.
        people: number of people.
        tables: title -> table, for printing.
        ages: age in years of each person; empty if unknown.
        sizes: (width, height) -> photos.
    """

    photos: int
    people: int
    tables: dict[str, pd.DataFrame]
    ages: list[float]
    sizes: dict[tuple[int, int], int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = {title: frame.to_dict("records") for title, frame in self.tables.items()}
        return {"photos": self.photos, "people": self.people, "tables": tables}


def describe(photos: Photos, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Description:
    """Counts the photos and people of a source; opens each photo's header for its size.

    Raises:
        PhotoError: a photo cannot be decoded.
    """
    table = with_bands(photos.table)
    columns = [column for column in ("mask", "gender", "age band") if column in table]
    tables: dict[str, pd.DataFrame] = {}
    for column in columns:
        counts = table.groupby(column, sort=False).agg(people=("person", "nunique"), photos=("path", "size"))
        order = [word for word in CLASSES[column.split()[0]] if word in counts.index]
        tables[f"by {column}"] = counts.loc[order].reset_index().astype({"people": int, "photos": int})
    if len(columns) > 1:
        joint = table.groupby(columns, observed=True).agg(people=("person", "nunique"), photos=("path", "size"))
        ranks = {column: list(CLASSES[column.split()[0]]).index for column in columns}
        joint = joint.sort_index(key=lambda index: index.map(ranks[str(index.name)]))
        tables[f"by {' x '.join(columns)}"] = joint.reset_index()
    ages = [float(age) for age in photos.people["age"]] if "age" in photos.people else []
    if ages:
        quantiles = np.quantile(ages, [0, 0.25, 0.5, 0.75, 1])
        near = [sum(border - 3 <= age < border + 3 for age in ages) for border in AGE_BORDERS]
        names = ["youngest", "quarter are below", "half are below", "three quarters are below", "oldest"]
        rows = [(name, f"{value:.0f}") for name, value in zip(names, quantiles, strict=True)]
        rows += [(f"people within 3 years of {b}", str(count)) for b, count in zip(AGE_BORDERS, near, strict=True)]
        tables["ages"] = pd.DataFrame(rows, columns=["years", "value"])
    sizes = _sizes(photos, progress)
    common = [
        (f"{width} x {height}", count) for (width, height), count in sorted(sizes.items(), key=lambda item: -item[1])
    ]
    tables["image sizes (width x height)"] = pd.DataFrame(common[:12], columns=["size", "photos"])
    return Description(len(photos), len(photos.people), tables, ages, sizes)


def with_bands(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column of age bands, where ages are known."""
    if "age" not in table:
        return table
    return table.assign(**{"age band": age_band_names(table["age"])})


def _sizes(photos: Photos, progress: Callable[[int, int], None]) -> dict[tuple[int, int], int]:
    def size_or_error(path: Path) -> tuple[int, int]:
        try:
            return size_of(path)
        except UndecodableError as error:
            raise PhotoError(path, str(error).rstrip("."), kind=error.kind) from None

    sizes: dict[tuple[int, int], int] = {}
    with ThreadPoolExecutor(4) as pool:
        for number, size in enumerate(pool.map(size_or_error, photos.paths), start=1):
            sizes[size] = sizes.get(size, 0) + 1
            progress(number, len(photos))
    return sizes


def fold_table(photos: Photos, plan: FoldPlan) -> pd.DataFrame:
    """People of each joint class in each fold, and the photos of each fold.

    Raises:
        PlanError: the plan was made for other data.
    """
    people = photos.people
    columns = [column for column in plan.strata if column in people]  # newer data may lack one
    stratum_of_person = stratum_names(people[columns]) if columns else pd.Series("people", index=people.index)
    folds = pd.Series({person: plan.fold_of[str(person)] for person in people.index}, name="fold")
    counts = pd.crosstab(stratum_of_person, folds)
    if columns:
        strata = [" ".join(names) for names in product(*(CLASSES[column] for column in columns))]
        counts = counts.reindex([stratum for stratum in strata if stratum in counts.index])
    photo_counts = np.bincount(plan.folds(photos.table["person"]), minlength=plan.k)
    frame = counts.rename(columns={fold: f"fold {fold}" for fold in counts.columns}).reset_index(names="class")
    people_row: dict[str, Any] = {"class": "all people"} | {f"fold {f}": int(counts[f].sum()) for f in counts.columns}
    photos_row: dict[str, Any] = {"class": "all photos"} | {
        f"fold {f}": int(photo_counts[int(str(f))]) for f in counts.columns
    }
    return pd.concat([frame, pd.DataFrame([people_row, photos_row])], ignore_index=True)

"""What is in a data source: counts by class and joint class, ages, image sizes; as tables and as a picture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from orchestrator.data.files import atomic
from orchestrator.data.folds import FoldPlan, strata_words
from orchestrator.data.photos import Photos
from orchestrator.data.preprocessing import FORMATS
from orchestrator.errors import ConfigError
from orchestrator.labels import AGE_BORDERS, CLASSES

__all__ = ["Description", "describe", "draw", "fold_table"]


@dataclass(frozen=True)
class Description:
    """What a source holds.

    Attributes:
        photos: number of photos.
        people: number of people.
        tables: title -> table, for printing.
        ages: age in years of each person; empty when unknown.
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
    """Counts a source; opens each photo's header for its size."""
    table = with_bands(photos.table)
    known = [column for column in ("mask", "gender", "age band") if column in table]
    tables: dict[str, pd.DataFrame] = {}
    for column in known:
        counts = table.groupby(column, sort=False).agg(people=("person", "nunique"), photos=("path", "size"))
        order = [word for word in CLASSES[column.split()[0]] if word in counts.index]
        tables[f"by {column}"] = counts.loc[order].reset_index().astype({"people": int, "photos": int})
    if len(known) > 1:
        joint = table.groupby(known, observed=True).agg(people=("person", "nunique"), photos=("path", "size"))
        ranks = {column: list(CLASSES[column.split()[0]]).index for column in known}
        joint = joint.sort_index(key=lambda index: index.map(ranks[str(index.name)]))
        tables[f"by {' x '.join(known)}"] = joint.reset_index()
    ages = [float(age) for age in photos.people["age"]] if "age" in photos.people else []
    if ages:
        quantiles = np.quantile(ages, [0, 0.25, 0.5, 0.75, 1])
        near = [sum(border - 3 <= age < border + 3 for age in ages) for border in AGE_BORDERS]
        row = [f"{value:.0f}" for value in quantiles] + [str(count) for count in near]
        names = ["youngest", "quarter", "median", "three quarters", "oldest"]
        names += [f"people within 3 years of {border}" for border in AGE_BORDERS]
        tables["ages"] = pd.DataFrame([row], columns=names)
    sizes = _sizes(photos, progress)
    rows = [(f"{width} x {height}", count) for (width, height), count in sorted(sizes.items(), key=lambda one: -one[1])]
    tables["image sizes (width x height)"] = pd.DataFrame(rows[:12], columns=["size", "photos"])
    return Description(len(photos), len(photos.people), tables, ages, sizes)


def with_bands(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column of age bands, where ages are known."""
    if "age" not in table:
        return table
    codes = np.digitize(table["age"].to_numpy(dtype=float), AGE_BORDERS)
    return table.assign(**{"age band": [CLASSES["age"][code] for code in codes]})


def _sizes(photos: Photos, progress: Callable[[int, int], None]) -> dict[tuple[int, int], int]:
    def size_of(path: Path) -> tuple[int, int]:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            return image.size

    sizes: dict[tuple[int, int], int] = {}
    with ThreadPoolExecutor(4) as pool:
        for number, size in enumerate(pool.map(size_of, photos.paths), start=1):
            sizes[size] = sizes.get(size, 0) + 1
            progress(number, len(photos))
    return sizes


def fold_table(photos: Photos, plan: FoldPlan) -> pd.DataFrame:
    """People of each joint class in each fold, and the photos of each fold."""
    people = photos.people
    words = strata_words(people) if plan.strata else pd.Series("people", index=people.index)
    folds = pd.Series({person: plan.fold_of[str(person)] for person in people.index}, name="fold")
    counts = pd.crosstab(words, folds)
    photo_counts = np.bincount(plan.folds(photos.table["person"]), minlength=plan.k)
    frame = counts.rename(columns={fold: f"fold {fold}" for fold in counts.columns}).reset_index(names="class")
    total: dict[str, Any] = {"class": "all people"} | {f"fold {f}": int(counts[f].sum()) for f in counts.columns}
    pictures: dict[str, Any] = {"class": "all photos"} | {
        f"fold {f}": int(photo_counts[int(str(f))]) for f in counts.columns
    }
    return pd.concat([frame, pd.DataFrame([total, pictures])], ignore_index=True)


def draw(about: Description, path: Path) -> None:
    """Draws the description: people by class, ages with the borders, joint classes.

    Raises:
        ConfigError: the name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}: a PNG is written; give a name that ends in .png.")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ink, accent, soft = "#22303c", "#2f7f86", "#bcd7d6"
    bars = {title: frame for title, frame in about.tables.items() if title.startswith("by ")}
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.4), constrained_layout=True)
    figure.suptitle(f"{about.photos:,} photos of {about.people:,} people", fontsize=15, color=ink, weight="bold")
    places = iter(axes.flat)
    if about.ages:
        axis = next(places)
        low, high = int(min(about.ages)), int(max(about.ages))
        counts, _, patches = axis.hist(about.ages, bins=np.arange(low, high + 2), color=soft, edgecolor="white")
        for border in AGE_BORDERS:
            axis.axvline(border, color=accent, linewidth=1.5)
            axis.text(border, counts.max() * 1.02, f" {border}", color=accent, ha="left", va="bottom")
        axis.set(title="age of each person, years (lines: class borders)", ylabel="people")
        del patches
    for title, frame in bars.items():
        if " x " not in title and title != "by age band":
            axis = next(places)
            names = frame.iloc[:, 0].astype(str)
            axis.barh(names[::-1], frame["photos"][::-1], color=soft)
            for place, (people, photos) in enumerate(zip(frame["people"][::-1], frame["photos"][::-1], strict=True)):
                axis.text(
                    photos,
                    place,
                    f" {photos:,} photos, {people:,} people ",
                    va="center",
                    color=ink,
                    ha="left",
                )
            axis.set(title=title, xlim=(0, frame["photos"].max() * 1.55), xticks=[])
    joint = next((frame for title, frame in bars.items() if " x " in title), None)
    if joint is not None:
        axis = next(places)
        names = joint.iloc[:, :-2].astype(str).agg(" / ".join, axis=1)
        axis.barh(names[::-1], joint["photos"][::-1], color=accent)
        axis.tick_params(axis="y", labelsize=7)
        axis.set(title="photos of each joint class")
    for axis in places:
        axis.axis("off")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)

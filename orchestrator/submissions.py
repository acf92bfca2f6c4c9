"""Two submission files side by side: how many answers differ, and from which label to which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.data.files import atomic
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.errors import DataError, PhotoError, Problem
from orchestrator.labels import LABELS, TASKS, decompose
from orchestrator.pictures import INK, WARN, pyplot

__all__ = ["Differences", "compare_submissions", "draw_differences", "read_submission"]

COLUMNS = ("ImageID", "ans")
SHEET = 35  # photos on a contact sheet: five rows of seven


@dataclass(frozen=True)
class Differences:
    """What differs between two submissions.

    Attributes:
        rows: how many photos both answer.
        table: columns `ImageID`, `one`, `other`: the photos with different answers, in the first file's order.
    """

    rows: int
    table: pd.DataFrame

    @property
    def pairs(self) -> pd.DataFrame:
        """Columns `one`, `other`, `photos`, `tasks`: each pair of labels, the most frequent first."""
        found = self.table.groupby(["one", "other"]).size().reset_index(name="photos")
        found = found.sort_values(["photos", "one", "other"], ascending=[False, True, True], ignore_index=True)
        one, other = (decompose(found[name].to_numpy(dtype=np.int64)) for name in ("one", "other"))
        words = [", ".join(task for task in TASKS if one[task][row] != other[task][row]) for row in range(len(found))]
        return found.assign(tasks=words)

    @property
    def by_task(self) -> dict[str, int]:
        """Task -> how many answers differ in it."""
        one, other = (decompose(self.table[name].to_numpy(dtype=np.int64)) for name in ("one", "other"))
        return {task: int(np.sum(one[task] != other[task])) for task in TASKS}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows, "different": len(self.table), "by_task": self.by_task,
            "pairs": self.pairs.to_dict("records"), "photos": self.table.to_dict("records"),
        }  # fmt: skip


def read_submission(path: Path) -> pd.DataFrame:
    """A submission: columns `ImageID` (str) and `ans` (int64, 0 to 17).

    Raises:
        DataError: no such file, missing columns, ids that stand twice, or answers that are no labels; all at once.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error}).") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise DataError(
            f"{path}: has the columns {', '.join(table.columns)}; a submission has {' and '.join(COLUMNS)}."
        )
    allowed = {str(code): code for code in range(len(LABELS))}
    problems = [
        Problem(f"{path} row {row}", f"ans is '{value}'; allowed: 0 to {len(LABELS) - 1}.", kind="wrong_value")
        for row, value in enumerate(table["ans"], start=2)
        if value.strip() not in allowed
    ]
    twice = table["ImageID"][table["ImageID"].duplicated()].unique()
    problems += [Problem(str(path), f"ImageID '{name}' stands twice.", kind="repeated_row") for name in twice]
    if problems:
        raise DataError(f"{path}: no submission.", problems)
    codes = [allowed[value.strip()] for value in table["ans"]]
    return pd.DataFrame({"ImageID": table["ImageID"], "ans": np.array(codes, dtype=np.int64)})


def compare_submissions(one: Path, other: Path) -> Differences:
    """Two submissions for the same photos, in any order.

    Raises:
        DataError: a file is no submission, or they answer other photos.
    """
    left, right = read_submission(one), read_submission(other)
    alone = set(left["ImageID"]) ^ set(right["ImageID"])
    if alone:
        names = ", ".join(sorted(alone)[:3])
        raise DataError(
            f"{one} and {other} do not answer the same photos: {len(alone)} stand in one of them only, {names} among them."
        )
    both = left.merge(right, on="ImageID", how="left", suffixes=("_one", "_other"))
    both = both.rename(columns={"ans_one": "one", "ans_other": "other"})
    return Differences(len(both), both[both["one"] != both["other"]].reset_index(drop=True))


def draw_differences(found: Differences, images: Path, names: tuple[str, str], path: Path) -> int:
    """Draws photos whose answers differ, at most 35, the most frequent pairs of labels first.

    Args:
        found: the differences.
        images: the folder of the photos.
        names: of the two submissions.
        path: the .png to write.

    Returns:
        How many photos are shown.
    """
    plt = pyplot()
    order = found.table.merge(found.pairs[["one", "other", "photos"]], on=["one", "other"])
    order = order.sort_values(["photos", "one", "other"], ascending=[False, True, True], kind="stable").head(SHEET)
    columns = max(1, min(7, len(order)))
    rows = max(1, -(-len(order) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(2.0 * columns, 3.0 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row) in zip(axes.flat, order.iterrows(), strict=False):
        try:
            axis.imshow(Geometry(256, 192).apply(decode(images / row["ImageID"])))
        except PhotoError:
            axis.text(0.5, 0.5, "could not\nbe read", ha="center", va="center", color=WARN)
        axis.set_title(f"{names[0]}: {LABELS[row['one']]}\n{names[1]}: {LABELS[row['other']]}", fontsize=7, color=INK)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    plt.close(figure)
    return len(order)

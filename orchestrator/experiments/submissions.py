"""Two submission files side by side: how many answers differ, and from which label to which. NumPy is not needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.errors import DataError, Problem, quantity
from orchestrator.core.labels import LABELS, TASKS, differing, read_label
from orchestrator.data.spelling import clean
from orchestrator.data.tables import read_table, text

__all__ = ["Differences", "Pair", "compare_submissions", "draw_differences", "read_submission"]

COLUMNS = ("ImageID", "ans")


@dataclass(frozen=True)
class Pair:
    """Two different labels of the same photos.

    Attributes:
        first: the label in the first submission.
        second: the label in the second one.
        photos: number of photos with these labels.
    """

    first: int
    second: int
    photos: int

    @property
    def tasks(self) -> str:
        """The tasks in which the labels differ, `gender, age`."""
        return ", ".join(differing(self.first, self.second))


@dataclass(frozen=True)
class Differences:
    """What differs between two submissions.

    Attributes:
        rows: number of photos that both name.
        answered: number of photos that both answer.
        photos: name and both labels of each photo that the two answer differently, in the first file's order.
        unanswered: number of photos with an empty answer in the first file, and in the second.
    """

    rows: int
    answered: int
    photos: tuple[tuple[str, int, int], ...]
    unanswered: tuple[int, int] = (0, 0)

    @property
    def pairs(self) -> list[Pair]:
        """Each pair of labels, the most frequent first."""
        counts = Counter((first, second) for _, first, second in self.photos)
        return [Pair(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    @property
    def by_task(self) -> dict[str, int]:
        """Task -> how many answers differ in it."""
        counts = Counter(task for _, first, second in self.photos for task in differing(first, second))
        return {task: counts[task] for task in TASKS}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rows": self.rows, "answered": self.answered, "different": len(self.photos),
            "unanswered": list(self.unanswered), "by_task": self.by_task,
            "pairs": [
                {"first": pair.first, "second": pair.second, "photos": pair.photos, "tasks": pair.tasks}
                for pair in self.pairs
            ],
            "photos": [{"ImageID": name, "first": first, "second": second} for name, first, second in self.photos],
        }  # fmt: skip


def read_submission(path: Path) -> dict[str, int | None]:
    """A submission: ImageID -> label, in the file's order; None where the answer is empty (`orch predict --on-error mark`).

    Raises:
        DataError: missing file or columns, repeated ids, or answers that are not labels; all at once.
    """
    table = read_table(path)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise DataError(
            f"{path}: has the columns {', '.join(table.columns)}; a submission has {' and '.join(COLUMNS)}."
        )
    problems: list[Problem] = []
    labels: dict[str, int | None] = {}
    for number, (key, cell) in enumerate(zip(table.texts("ImageID"), table.column("ans"), strict=True)):
        name, word = clean(key), clean(text(cell))
        labels[name] = read_label(word)
        if not name:
            problems.append(Problem(table.where(number), "ImageID is empty.", kind="empty_cell"))
        if word and labels[name] is None:
            reason = f"ans is '{word}'; allowed: 0 to {len(LABELS) - 1}, or nothing."
            problems.append(Problem(table.where(number), reason, kind="wrong_value"))
    problems += table.repeated("ImageID", list(map(clean, table.texts("ImageID"))))
    if problems:
        raise DataError(f"{path}: not a submission, {quantity(len(problems), 'problem')}.", problems)
    return labels


def compare_submissions(first: Path, second: Path) -> Differences:
    """Two submissions for the same photos, in any order.

    Raises:
        DataError: a file is not a submission, or the two do not answer the same photos.
    """
    left, right = read_submission(first), read_submission(second)
    in_one_only = left.keys() ^ right.keys()
    if in_one_only:
        names = ", ".join(sorted(in_one_only)[:3])
        raise DataError(
            f"{first} and {second} do not answer the same photos: {len(in_one_only)} are in one of them only, {names} among them."
        )
    both = [(name, label, right[name]) for name, label in left.items()]
    answered = [(name, mine, theirs) for name, mine, theirs in both if mine is not None and theirs is not None]
    photos = [(name, mine, theirs) for name, mine, theirs in answered if mine != theirs]
    unanswered = tuple(sum(label is None for label in labels.values()) for labels in (left, right))
    return Differences(len(left), len(answered), tuple(photos), (unanswered[0], unanswered[1]))


def draw_differences(differences: Differences, images: Path, names: tuple[str, str], path: Path) -> int:
    """Draws photos whose answers differ, at most 35, the most frequent pairs of labels first.

    Args:
        differences: what differs.
        images: the folder of the photos.
        names: names of the two submissions.
        path: the .png to write.

    Returns:
        How many photos are shown.
    """
    from orchestrator.core.errors import PhotoError
    from orchestrator.data.preprocessing import Geometry, decode
    from orchestrator.pictures import INK, SHEET, WARN, save, sheet

    rank = {(pair.first, pair.second): number for number, pair in enumerate(differences.pairs)}
    order = sorted(differences.photos, key=lambda photo: rank[photo[1], photo[2]])[:SHEET]
    figure, axes = sheet(len(order), len(differences.photos), 3.0)
    for axis, (name, first, second) in zip(axes.flat, order, strict=False):
        try:
            axis.imshow(Geometry(256, 192).apply(decode(images / name)))
        except PhotoError:
            axis.text(0.5, 0.5, "could not\nbe read", ha="center", va="center", color=WARN)
        axis.set_title(f"{names[0]}: {LABELS[first]}\n{names[1]}: {LABELS[second]}", fontsize=7, color=INK)
    save(figure, path)
    return len(order)

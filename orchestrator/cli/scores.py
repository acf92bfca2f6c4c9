"""Tables of scores in the terminal: of tasks with their intervals, and of the 18 labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.console import grid, print_result, score_text, stdout_console

if TYPE_CHECKING:
    from orchestrator.artifacts.ensembles import RecordedScores
    from orchestrator.ensembling.evaluation import Evaluation
    from orchestrator.ensembling.slices import Slice

__all__ = ["PEOPLE_COUNT", "print_labels", "print_scores", "print_slices"]


PEOPLE_COUNT = "Slices' intervals count each person as one draw, and so are wider than those of the bootstrap."


def print_scores(
    title: str, evaluation: Mapping[str, Evaluation], before: Mapping[str, RecordedScores] | None = None
) -> None:
    """A row for each task, and for the 18-way label where it is scored.

    Args:
        title: the line above the table.
        evaluation: scores of tasks, and of the label (key `label`).
        before: out-of-fold scores to show beside them.
    """
    from orchestrator.core.labels import CLASSES, TASKS

    earlier = ["out of fold"] if before else []
    table = grid(title, "", "accuracy", "macro F1", "95 % interval", *earlier, "per class (F1)")
    table.columns[-1].justify = "left"
    for name in (*TASKS, "label"):
        if name not in evaluation:
            continue
        scored, span = evaluation[name], evaluation[name].intervals["macro_f1"]
        classes = "below"
        if name in CLASSES:
            pairs = zip(CLASSES[name], scored.scores.f1, strict=True)
            classes = "   ".join(f"{class_name} {f1:.3f}" for class_name, f1 in pairs)
        beside = [score_text(before[name].macro_f1)] if before else []
        table.add_row(
            name if name in CLASSES else "18-way label", score_text(scored.scores.accuracy),
            score_text(scored.scores.macro_f1), f"{span.low:.4f} to {span.high:.4f}", *beside, classes,
            style=None if name in CLASSES else "bold",
        )  # fmt: skip
    stdout_console().print(table)


def print_slices(title: str, slices: Sequence[Slice], tasks: Sequence[str], most: int | None = None) -> None:
    """A table for each task, its worst slices first.

    Args:
        title: what the slices are of.
        slices: slices of all tasks, the worst first.
        tasks: the tasks to show.
        most: how many of each task to show; None: all of them.
    """
    for task in tasks:
        of_task = [part for part in slices if part.task == task]
        table = grid(
            f"{title}: {task}, the worst first", "for", "photos", "people", "accuracy", "95 % interval", "macro F1",
            keep=("accuracy", "95 % interval", "people", "photos"),
        )  # fmt: skip
        for part in of_task[:most]:
            span = f"{part.interval.low:.3f} to {part.interval.high:.3f}"
            f1 = "" if part.macro_f1 is None else score_text(part.macro_f1)
            table.add_row(part.name, f"{part.photos:,}", f"{part.people:,}", score_text(part.accuracy), span, f1)
        stdout_console().print(table)


def print_labels(evaluation: Evaluation) -> None:
    """Precision, recall and F1 of each label."""
    from orchestrator.core.labels import LABELS

    table = grid("the 18 labels", "label", "photos", "precision", "recall", "F1")
    scores = evaluation.scores
    for code, name in enumerate(LABELS):
        numbers = scores.precision[code], scores.recall[code], scores.f1[code]
        table.add_row(f"{code:>2} {name}", f"{scores.support[code]:,}", *(f"{value:.3f}" for value in numbers))
    stdout_console().print(table)
    if scores.absent:
        absent = ", ".join(LABELS[code] for code in scores.absent)
        print_result(f"absent, and counted as F1 0 in the mean: {absent}")

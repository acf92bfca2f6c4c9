"""Tables of scores in the terminal: of tasks with their intervals, and of the 18 labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.cli.console import grid, print_result, score_text, stdout_console

if TYPE_CHECKING:
    from orchestrator.artifacts.ensembles import RecordedScores
    from orchestrator.ensembling.evaluation import Evaluation

__all__ = ["print_labels", "print_scores"]


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

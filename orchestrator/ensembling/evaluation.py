"""Scores of answers, each with its interval over people, for held-out and for other people alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from orchestrator.artifacts.ensembles import ClassScores, RecordedScores, ScoreKind
from orchestrator.core.interval import Interval
from orchestrator.core.labels import CLASSES, LABELS, TASKS, compose, decompose
from orchestrator.core.metrics import Scores, score
from orchestrator.ensembling.intervals import intervals

__all__ = ["Evaluation", "evaluation_of", "evaluations"]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one task or of the 18-way label, with intervals over people.

    Attributes:
        scores: the scores, over all photos at once.
        intervals: `accuracy` and `macro_f1` -> its 95 % interval.
        people: number of people.
    """

    scores: Scores
    intervals: Mapping[str, Interval]
    people: int

    def recorded(self, names: tuple[str, ...], kind: ScoreKind = "out-of-fold") -> RecordedScores:
        """As records and JSON have it, with the classes' names."""
        scores = self.scores
        classes = {
            name: ClassScores(
                float(scores.f1[code]),
                float(scores.precision[code]),
                float(scores.recall[code]),
                int(scores.support[code]),
            )
            for code, name in enumerate(names)
        }
        return RecordedScores(
            kind, self.people, int(scores.counts.sum()), scores.accuracy, scores.macro_f1,
            tuple(names[code] for code in scores.absent), classes, tuple(map(tuple, scores.counts.tolist())),
            self.intervals,
        )  # fmt: skip


def evaluation_of(persons: pd.Series[str], truth: NDArray[Any], predicted: NDArray[Any], classes: int) -> Evaluation:
    """The scores of some answers.

    Args:
        persons: the person of each photo, shape (N,).
        truth: true class codes, shape (N,).
        predicted: predicted class codes, shape (N,).
        classes: number of classes.
    """
    return Evaluation(
        score(truth, predicted, classes), intervals(persons, truth, predicted, classes), int(persons.nunique())
    )


def evaluations(
    persons: pd.Series[str], truth: Mapping[str, NDArray[Any]], answered: NDArray[Any]
) -> dict[str, Evaluation]:
    """Scores of each task whose truth is known, and of the 18-way label (key `label`) if it is known of all tasks.

    Args:
        persons: the person of each photo, shape (N,).
        truth: task -> true class codes, shape (N,).
        answered: the answered labels, 0..17, shape (N,).
    """
    choices = decompose(answered)
    scores = {
        task: evaluation_of(persons, truth[task], choices[task], len(CLASSES[task])) for task in TASKS if task in truth
    }
    if set(truth) != set(TASKS):
        return scores
    label = compose(*(truth[task] for task in TASKS))
    return {**scores, "label": evaluation_of(persons, label, answered, len(LABELS))}

"""Predictions: the answers for photos as columns, and one photo's answer as a row of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining import PROBABILITY
from orchestrator.core.labels import CLASSES, LABELS, TASKS, class_names

if TYPE_CHECKING:
    from orchestrator.combining.combiners import Combined, Combiner
    from orchestrator.inference.predictor import Batch
    from orchestrator.inference.reader import Unreadable

__all__ = ["Prediction", "Predictions", "predictions_of"]


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo.

    Attributes:
        photo: the photo's path, or `photo N` where it was given as bytes or pixels.
        label: 0..17, or None when the photo could not be read.
        name: the label in words.
        prefixes: task -> what its shares are: `p` probabilities, `share` shares of votes.
        shares: task -> class -> its probability, or its share of the votes in a hard vote.
        agreement: the smallest share, over the tasks, of voters that chose the winning class: 1 when all agree; None when the
            photo could not be read.
        error: why the photo could not be read; empty otherwise.
        error_kind: a word for machines on that: one of `KINDS` in data/decoding.py, or `wrong_pixels`; empty otherwise.
        asked: how many members answered for it; all, unless a cascade settled the vote early.
        face_found: whether a face was found to crop around; None where no member crops around faces.
        changed_by_external: whether external tables changed its label; None without external tables.
    """

    photo: str
    label: int | None
    name: str
    prefixes: Mapping[str, str]
    shares: dict[str, dict[str, float]]
    agreement: float | None
    error: str = ""
    error_kind: str = ""
    asked: int = 0
    face_found: bool | None = None
    changed_by_external: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the class of each task by its name; `probabilities`, or `shares` of the votes of tasks that vote hard."""
        classes = dict.fromkeys(TASKS) if self.label is None else class_names(self.label)
        kinds: dict[str, dict[str, dict[str, float]]] = {
            "probabilities" if prefix == PROBABILITY else "shares": {} for prefix in self.prefixes.values()
        }
        for task, shares in self.shares.items():
            kinds["probabilities" if self.prefixes[task] == PROBABILITY else "shares"][task] = shares
        return {
            "path": self.photo, "label": self.label, "name": self.name, **classes, "agreement": self.agreement, **kinds,
            "asked": self.asked, "face_found": self.face_found, "changed_by_external": self.changed_by_external,
            "error": self.error or None, "error_kind": self.error_kind or None,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """Answers for N photos; each item is one photo's `Prediction`.

    Attributes:
        photos: each photo's path, or `photo N` where it was given as bytes or pixels.
        combiner: how the answers were combined.
        label: 0..17, -1 where the photo could not be read, shape (N,).
        shares: task -> probabilities, or shares of the votes in a hard vote, shape (N, C), float64; NaN where
            the photo could not be read.
        agreement: the smallest share, over the tasks, of voters that chose the winning class, shape (N,); NaN likewise.
        asked: how many members answered for each photo, shape (N,).
        face_found: whether a face was found in each photo to crop around; None where no member crops around faces.
        changed_by_external: whether external tables changed each label, shape (N,); None without external tables.
        errors: index of a photo -> why it could not be read.
    """

    photos: tuple[str, ...]
    combiner: Combiner
    label: NDArray[np.int64]
    shares: Mapping[str, NDArray[np.float64]]
    agreement: NDArray[np.float64]
    asked: NDArray[np.int64]
    face_found: tuple[bool | None, ...]
    changed_by_external: NDArray[np.bool_] | None
    errors: Mapping[int, Unreadable]

    def __len__(self) -> int:
        return len(self.photos)

    @overload
    def __getitem__(self, number: int) -> Prediction: ...

    @overload
    def __getitem__(self, number: slice) -> list[Prediction]: ...

    def __getitem__(self, number: int | slice) -> Prediction | list[Prediction]:
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        if number in self.errors:
            why = self.errors[number]
            return Prediction(self.photos[number], None, "", self.combiner.prefixes, {}, None, why.reason, why.kind)
        label, changed = int(self.label[number]), self.changed_by_external
        shares = {task: dict(zip(CLASSES[task], self.rounded[task][number].tolist(), strict=True)) for task in TASKS}
        return Prediction(
            self.photos[number], label, LABELS[label], self.combiner.prefixes, shares, round(float(self.agreement[number]), 4),
            asked=int(self.asked[number]), face_found=self.face_found[number],
            changed_by_external=None if changed is None else bool(changed[number]),
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predictions) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    @cached_property
    def rounded(self) -> dict[str, NDArray[np.float64]]:
        """The shares to six decimals, as they are printed and written."""
        # By round and not by NumPy, which multiplies first, and so rounds some numbers to another last digit.
        return {
            task: np.array([round(value, 6) for value in array.ravel().tolist()]).reshape(array.shape)
            for task, array in self.shares.items()
        }

    def replaced(
        self,
        rows: NDArray[np.int64],
        combined: Combined,
        agreement: NDArray[np.float64],
        changed_by_external: NDArray[np.bool_] | None,
    ) -> Predictions:
        """These predictions with other answers for some photos.

        Args:
            rows: index of each of n photos, shape (n,).
            combined: their answers.
            agreement: the attribute for these, shape (n,).
            changed_by_external: the attribute for all photos.
        """
        label, agreed = self.label.copy(), self.agreement.copy()
        label[rows], agreed[rows] = combined.label, agreement
        shares = {task: array.copy() for task, array in self.shares.items()}
        for task, array in shares.items():
            array[rows] = combined.decisions[task].shares
        return replace(
            self, label=label, shares=shares, agreement=agreed, changed_by_external=changed_by_external
        )  # fmt: skip

    @staticmethod
    def none(combiner: Combiner) -> Predictions:
        """Predictions with no row, for an empty list of photos."""
        shares = {task: np.zeros((0, len(CLASSES[task]))) for task in TASKS}
        numbers, counts = np.zeros(0), np.zeros(0, np.int64)
        return Predictions((), combiner, counts, shares, numbers, counts, (), None, {})

    @staticmethod
    def concatenated(parts: Sequence[Predictions]) -> Predictions:
        """The predictions of successive batches, at least one."""
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        changed = [part.changed_by_external for part in parts if part.changed_by_external is not None]
        return Predictions(
            photos=tuple(photo for part in parts for photo in part.photos),
            combiner=parts[0].combiner,
            label=np.concatenate([part.label for part in parts]),
            shares={task: np.concatenate([part.shares[task] for part in parts]) for task in TASKS},
            agreement=np.concatenate([part.agreement for part in parts]),
            asked=np.concatenate([part.asked for part in parts]),
            face_found=tuple(face_found for part in parts for face_found in part.face_found),
            changed_by_external=np.concatenate(changed) if changed else None,  # all parts have the same tables
            errors={
                start + number: why
                for start, part in zip(starts, parts, strict=False)
                for number, why in part.errors.items()
            },
        )


def predictions_of(batch: Batch, combiner: Combiner, names: Sequence[str]) -> Predictions:
    """A batch's answers in the order of its photos, with empty rows for those that could not be read.

    Args:
        batch: answers of a predictor.
        combiner: how they were combined.
        names: the photos of the batch, those that could not be read among them.
    """

    def spread(values: NDArray[Any] | None, empty: Any) -> NDArray[Any]:
        """A value for every photo: those of the photos that were read, and `empty` for the others."""
        if values is None:
            return np.full(len(names), empty)
        column = np.full((len(names), *values.shape[1:]), empty, np.result_type(values, type(empty)))
        column[batch.read] = values
        return column

    combined, changed = batch.combined, batch.changed_by_external
    decisions = {} if combined is None else combined.decisions
    agreement = None if combined is None or batch.answers is None else combined.agreement(batch.answers)
    nothing = {task: np.full((len(names), len(CLASSES[task])), np.nan) for task in TASKS}
    faces = dict(zip(batch.read.tolist(), batch.faces, strict=True))
    return Predictions(
        photos=tuple(names),
        combiner=combiner,
        label=spread(None if combined is None else combined.label, -1),
        shares={task: spread(decisions[task].shares, np.nan) for task in TASKS} if decisions else nothing,
        agreement=spread(agreement, np.nan),
        asked=spread(None if batch.answers is None else batch.answers.asked(), 0),
        face_found=tuple(map(faces.get, range(len(names)))),
        changed_by_external=None if changed is None else spread(changed, False),
        errors=dict(batch.failed),
    )

"""Named voters and their probabilities for the same photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answers", "Floats", "Voter"]

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Voter:
    """A source of answers for one task.

    Out of fold, a run is one voter: each photo is answered by the one member that did not see its person. In
    prediction, each of its members is a voter. A joint network is a voter in every task.

    Attributes:
        task: the task that it answers.
        source: a run's id, or the name of an external table.
        fold: the member's fold; None for a run, for a member that was trained on everything, and for a table.
        weight: weight relative to the task's other voters, above 0, any scale.
        external: whether it is an external table.
    """

    task: str
    source: str
    fold: int | None = None
    weight: float = 1.0
    external: bool = False

    @property
    def name(self) -> str:
        """Its name in messages: `age-0001/fold-2`, `age-0001`, `old.csv`."""
        return self.source if self.fold is None else f"{self.source}/fold-{self.fold}"


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of V voters for N photos.

    Attributes:
        classes: task -> C, its number of classes, in the order of the label's digits, the most significant first.
        photos: number of photos, N.
        voters: the V voters, in any order.
        probabilities: for each voter an array (N, C), floats in 0..1, rows summing to 1; a row of zeros abstains.

    Raises:
        ValueError: voters without an array, of an unknown task, or arrays of another shape.
    """

    classes: Mapping[str, int]
    photos: int
    voters: tuple[Voter, ...]
    probabilities: tuple[Floats, ...]

    def __post_init__(self) -> None:
        if len(self.voters) != len(self.probabilities):
            raise ValueError(f"got {len(self.probabilities)} arrays for {len(self.voters)} voters")
        for voter, array in zip(self.voters, self.probabilities, strict=True):
            if voter.task not in self.classes:
                raise ValueError(f"{voter.name}: answers for '{voter.task}'; the tasks are {', '.join(self.classes)}")
            shape = (self.photos, self.classes[voter.task])
            if array.shape != shape:
                raise ValueError(
                    f"{voter.name}: its answers for {voter.task} have the shape {array.shape}; needed: {shape}"
                )

    def __len__(self) -> int:
        """Number of photos, N."""
        return self.photos

    @property
    def weights(self) -> list[float]:
        """The voters' weights, in voter order."""
        return [voter.weight for voter in self.voters]

    @property
    def sources(self) -> list[str]:
        """The runs and tables that answer, each once, in voter order."""
        return list(dict.fromkeys(voter.source for voter in self.voters))

    def of(self, *tasks: str) -> Answers:
        """The answers for some tasks."""
        of_tasks = self.where(lambda voter: voter.task in tasks)
        return replace(of_tasks, classes={task: count for task, count in self.classes.items() if task in tasks})

    def where(self, condition: Callable[[Voter], bool]) -> Answers:
        """The answers of the voters for which `condition` is true."""
        indices = [index for index, voter in enumerate(self.voters) if condition(voter)]
        return self._replaced(
            [self.voters[index] for index in indices], [self.probabilities[index] for index in indices]
        )

    def without(self, source: str) -> Answers:
        """The answers of all voters except those of one run or table."""
        return self.where(lambda voter: voter.source != source)

    def take(self, rows: slice | NDArray[Any]) -> Answers:
        """The answers for some photos.

        Args:
            rows: a slice, row indices, or a boolean mask (N,).
        """
        if isinstance(rows, slice):  # counted, not listed: chunks of ten million photos are taken one after the other
            photos = len(range(*rows.indices(self.photos)))
        else:
            photos = int(np.count_nonzero(rows)) if rows.dtype == bool else len(rows)
        return replace(self, photos=photos, probabilities=tuple(array[rows] for array in self.probabilities))

    def with_voters(self, other: Answers) -> Answers:
        """These answers, followed by those of other voters for the same photos."""
        return self._replaced([*self.voters, *other.voters], [*self.probabilities, *other.probabilities])

    @staticmethod
    def stacked(parts: Sequence[Answers]) -> Answers:
        """Concatenates the same voters' answers for successive batches of photos; at least one batch.

        Raises:
            ValueError: the batches were answered by different voters, or by the same in another order.
        """
        for part in parts:
            if part.voters != parts[0].voters:
                names = [
                    ", ".join(f"{voter.task} {voter.name}" for voter in answers.voters) for answers in (part, parts[0])
                ]
                raise ValueError(f"got a batch of the voters {names[0]} after one of {names[1]}")
        arrays = zip(*(part.probabilities for part in parts), strict=True)
        photos = sum(part.photos for part in parts)
        return replace(parts[0], photos=photos, probabilities=tuple(np.concatenate(of_voter) for of_voter in arrays))

    def asked(self) -> NDArray[np.int64]:
        """Number of members that answered each photo, shape (N,); not those that abstain, nor external tables."""
        by_member: dict[tuple[str, int | None], NDArray[np.bool_]] = {}
        for voter, array in zip(self.voters, self.probabilities, strict=True):
            if not voter.external:  # a joint network answers for every task, and is one member
                key, answered = (voter.source, voter.fold), np.asarray(array.any(axis=1))
                by_member[key] = np.asarray(by_member[key] | answered) if key in by_member else answered
        return (
            np.sum(list(by_member.values()), axis=0, dtype=np.int64) if by_member else np.zeros(self.photos, np.int64)
        )

    def _replaced(self, voters: Sequence[Voter], probabilities: Sequence[Floats]) -> Answers:
        return replace(self, voters=tuple(voters), probabilities=tuple(probabilities))

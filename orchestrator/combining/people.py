"""A person's photos together: what is a person's is answered once for all of them. A value that is kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .calibration import LEAST
from .rules import Multipliers
from .votes import Decision

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["MEANS", "NOBODY", "PeoplePool"]

MEANS = ("mean", "log")
"""How a person's photos become one: the mean of their probabilities, or of the logarithms."""

NOBODY = -1
"""Code of the person on a photo of which that is not known: it answers alone."""


@dataclass(frozen=True)
class PeoplePool:
    """How a person's photos answer together for the tasks that are a person's.

    Attributes:
        means: task -> `mean` or `log`; other tasks are answered photo by photo.
        given: task whose answer says how much a photo counts.
        weights: task -> the weight of a photo for each class of `given`, positive; a task that is missing counts all alike.
        rule: which label is answered for photos that are pooled, since a rule for photos alone does not fit the surer answers of
            many; None: each task's most probable class.

    Raises:
        ValueError: other means, or weights that are not positive.
    """

    means: Mapping[str, str]
    given: str = ""
    weights: Mapping[str, tuple[float, ...]] | None = None
    rule: Multipliers | None = None

    def __post_init__(self) -> None:
        if wrong := set(self.means.values()) - set(MEANS):
            raise ValueError(f"people are pooled by {', '.join(MEANS)}, not {', '.join(sorted(wrong))}")
        for row in (self.weights or {}).values():
            if not (np.isfinite(row).all() and min(row) > 0):
                raise ValueError(f"weights of photos must be positive, got {row}")

    @property
    def how(self) -> str:
        """One sentence for users who combine exported networks by their own program."""
        return (
            "Photos that are known to show one person answer together: " + "; ".join(
                f"{task} by the {'mean' if mean == 'mean' else 'mean logarithm'} of their probabilities"
                for task, mean in self.means.items()
            ) + "."
        )  # fmt: skip

    def pool(self, decisions: Mapping[str, Decision], persons: NDArray[np.int64]) -> dict[str, Decision]:
        """The decisions of photos, where the photos of each person share those for the pooled tasks; before any rule.

        Args:
            decisions: task -> calibrated decisions for N photos.
            persons: a code for the person on each photo, shape (N,); `NOBODY` where it is not known.
        """
        pooled, known = dict(decisions), persons != NOBODY
        groups = np.unique(persons[known], return_inverse=True)[1]
        for task, mean in self.means.items():
            if task not in decisions or not known.any():
                continue
            shares = decisions[task].shares[known]
            values = np.log(np.maximum(shares, LEAST)) if mean == "log" else shares
            row = (self.weights or {}).get(task)
            weight = np.ones(len(values)) if row is None else np.array(row)[decisions[self.given].choice[known]]
            sums = np.stack([np.bincount(groups, column * weight) for column in values.T], axis=1)
            means = sums / np.bincount(groups, weight)[:, None]
            scores = np.exp(means - means.max(axis=1, keepdims=True)) if mean == "log" else means
            scores = scores / scores.sum(axis=1, keepdims=True)
            whole, choice = decisions[task].shares.copy(), decisions[task].choice.copy()
            whole[known], choice[known] = scores[groups], scores.argmax(axis=1)[groups]
            pooled[task] = Decision(choice, whole)
        return pooled

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        weights = None if self.weights is None else {task: list(row) for task, row in self.weights.items()}
        rule = None if self.rule is None else self.rule.as_dict()
        return {"means": dict(self.means), "given": self.given, "weights": weights, "rule": rule}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the value does not describe it.
        """
        weights = value["weights"]
        return cls(
            {str(task): str(mean) for task, mean in value["means"].items()},
            str(value["given"]),
            None if weights is None else {str(task): tuple(map(float, row)) for task, row in weights.items()},
            None if value["rule"] is None else Multipliers.from_dict(value["rule"]),
        )

"""Decision rules: which label is answered, given the probabilities. A value that is kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .answers import Floats

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["Multipliers"]


@dataclass(frozen=True)
class Multipliers:
    """Each class's probability is multiplied by a number before the highest wins.

    The highest probability makes the fewest mistakes. Macro F1 counts a rare class as much as a frequent one: it gains
    where a rare class is answered sooner.

    Attributes:
        factors: task -> a positive number for each class, (C,).
    """

    factors: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if not all(np.isfinite(row).all() and (np.array(row) > 0).all() for row in self.factors.values()):
            raise ValueError(f"multipliers must be positive, got {dict(self.factors)}")

    @property
    def how(self) -> str:
        """One sentence for users who combine exported networks by their own program."""
        numbers = "; ".join(
            f"{task} {', '.join(f'{value:.4g}' for value in row)}" for task, row in self.factors.items()
        )
        return f"Then multiply each class's probability by its number ({numbers}); the highest product wins."

    def choose(self, task: str, probabilities: Floats) -> NDArray[np.int64]:
        """The class of each photo, shape (N,), from probabilities (N, C) of a task; a tie goes to the lower class."""
        return np.asarray((probabilities * np.array(self.factors[task])).argmax(axis=1))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"factors": {task: list(row) for task, row in self.factors.items()}}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: the value does not describe multipliers.
        """
        return cls({str(task): tuple(map(float, row)) for task, row in value["factors"].items()})

"""Calibration: probabilities that are as often right as they say, after the vote. A value that is kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .answers import Floats

if TYPE_CHECKING:
    from typing import Self  # copied into exports, which older Pythons run too

__all__ = ["LARGEST_LOG", "LEAST", "Calibration"]

LEAST = 1e-7
"""Lower bound of probabilities in logarithms."""

LARGEST_LOG = 300.0
"""Largest logarithm of a factor: more is no finite number once it is multiplied."""


@dataclass(frozen=True)
class Calibration:
    """Probabilities p of a task become softmax(scale * log(p) + bias): temperature and vector scaling (Guo et al. 2017).

    Attributes:
        scale: a factor for each group and class, (G, C), positive; equal for all classes: a temperature of 1 / scale.
        bias: what is added for each group and class, (G, C).
        given: task whose class is a photo's group, so that G is its number of classes; empty: one group.
    """

    scale: tuple[tuple[float, ...], ...]
    bias: tuple[tuple[float, ...], ...]
    given: str = ""

    def __post_init__(self) -> None:
        numbers = np.array([self.scale, self.bias], np.float64)
        if numbers.ndim != 3 or not np.isfinite(numbers).all() or not (numbers[0] > 0).all():
            raise ValueError(f"a calibration of scale {self.scale} and bias {self.bias}")
        if not self.given and len(self.scale) != 1:
            raise ValueError(f"a calibration of {len(self.scale)} groups, of no task")

    @property
    def keeps_order(self) -> bool:
        """Whether the classes of each photo stay in their order: a temperature."""
        return all(len(set(row)) == 1 for row in self.scale) and not any(map(any, self.bias))

    def factors(self) -> tuple[float, ...] | None:
        """Numbers by which the uncalibrated probabilities may be multiplied instead, if only the order of the classes counts.

        None where there are none: several groups, or classes that are scaled differently.
        """
        if self.given or len(set(self.scale[0])) > 1:
            return None
        logs = np.clip(np.array(self.bias[0]) / self.scale[0][0], -LARGEST_LOG, LARGEST_LOG)
        return tuple(np.exp(logs).tolist())

    def apply(self, probabilities: Floats, groups: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (N, C).

        Args:
            probabilities: shape (N, C), rows summing to 1.
            groups: each photo's class of the task `given`, shape (N,); None without one.
        """
        rows = np.zeros(len(probabilities), np.int64) if groups is None else np.asarray(groups).astype(np.int64)
        scores = np.array(self.scale)[rows] * np.log(np.maximum(probabilities.astype(np.float64), LEAST))
        scores += np.array(self.bias)[rows]
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"scale": list(map(list, self.scale)), "bias": list(map(list, self.bias)), "given": self.given}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: the value does not describe a calibration.
        """
        scale, bias = (tuple(tuple(map(float, row)) for row in value[name]) for name in ("scale", "bias"))
        return cls(scale, bias, str(value["given"]))

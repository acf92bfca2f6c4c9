"""What a network's outputs mean: the loss they are trained by, and the class probabilities they stand for.

A head is described by plain values in the member's card, so prediction never needs the recipe or the specialist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.data.extra import exact_column
from orchestrator.data.sampling import class_factors
from orchestrator.networks import losses
from orchestrator.recipes.schema import Recipe, loss_terms
from orchestrator.specialist import Specialist

__all__ = ["ClassHead", "CornHead", "Head", "JointHead", "SoftAgeHead", "head_from_dict", "head_of", "photo_weights"]


class Head(Protocol):
    """The meaning of outputs, shape (N, outputs)."""

    @property
    def outputs(self) -> int:
        """Number of outputs that the network needs."""

    def targets(self, specialist: Specialist, table: pd.DataFrame, recipe: Recipe) -> NDArray[Any]:
        """What to train on: one number per row of the table."""

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of a batch, a scalar; `weights` (N,) say how much each photo counts."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities, shape (N, C), float32, rows summing to 1."""

    def as_dict(self) -> dict[str, Any]:
        """For the card."""


@dataclass(frozen=True)
class ClassHead:
    """A head of one output per class, whose softmax gives the probabilities.

    Attributes:
        classes: C.
        label_smoothing: share of the target spread evenly over all classes, for the terms that have it.
        terms: names and weights of the loss's terms: `cross_entropy`, `focal`, `f1`.
        focal_gamma: the exponent of `focal`.
    """

    classes: int
    label_smoothing: float = 0.0
    terms: tuple[tuple[str, float], ...] = (("cross_entropy", 1.0),)
    focal_gamma: float = 2.0

    @property
    def outputs(self) -> int:
        """One output per class: C."""
        return self.classes

    def targets(self, specialist: Specialist, table: pd.DataFrame, recipe: Recipe) -> NDArray[Any]:
        """Class codes to train on, int64."""
        return specialist.training_label(table, recipe)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the terms, with codes (N,)."""
        outputs = outputs.float()
        terms: dict[str, Callable[[], Tensor]] = {
            "cross_entropy": lambda: losses.cross_entropy(outputs, targets, weights, self.label_smoothing),
            "focal": lambda: losses.focal(outputs, targets, weights, self.focal_gamma, self.label_smoothing),
            "f1": lambda: losses.soft_f1(outputs, targets, weights),
        }
        return torch.stack([weight * terms[name]() for name, weight in self.terms]).sum()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The softmax of the outputs, in float32."""
        return outputs.float().softmax(dim=1)

    def as_dict(self) -> dict[str, Any]:
        """For the card."""
        return {"kind": "classes", "classes": self.classes}


@dataclass(frozen=True)
class JointHead:
    """Several heads on one backbone: the combined code has one digit per head, and the tasks share the features.

    Hard parameter sharing (Caruana 1997, "Multitask Learning"), the heads' losses added up.

    Attributes:
        heads: one for each digit of the codes, the first digit first.
    """

    heads: tuple[ClassHead, ...]

    @property
    def outputs(self) -> int:
        """The heads' outputs side by side."""
        return sum(head.outputs for head in self.heads)

    def targets(self, specialist: Specialist, table: pd.DataFrame, recipe: Recipe) -> NDArray[Any]:
        """Combined codes to train on, int64."""
        return specialist.training_label(table, recipe)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The sum of the heads' losses, with combined codes (N,)."""
        digits, total = targets, outputs.new_zeros((), dtype=torch.float32)
        parts = torch.split(outputs, [head.outputs for head in self.heads], dim=1)
        for head, part in zip(reversed(self.heads), reversed(parts), strict=True):  # least significant digit first
            total = total + head.loss(part, digits % head.classes, weights)
            digits = digits // head.classes
        return total

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probability of each combination of classes: the product of the heads' probabilities."""
        parts = torch.split(outputs, [head.outputs for head in self.heads], dim=1)
        joint = torch.ones_like(outputs[:, :1], dtype=torch.float32)
        for head, part in zip(self.heads, parts, strict=True):
            joint = (joint[:, :, None] * head.probabilities(part)[:, None, :]).flatten(1)
        return joint

    def as_dict(self) -> dict[str, Any]:
        """For the card."""
        return {"kind": "joint", "parts": [head.classes for head in self.heads]}


@dataclass(frozen=True)
class CornHead:
    """Ordered classes: one output fewer than classes, each the answer to "beyond this class?" (`losses.corn`).

    Attributes:
        classes: C.
    """

    classes: int

    @property
    def outputs(self) -> int:
        """One output per border between classes that follow each other: C - 1."""
        return self.classes - 1

    def targets(self, specialist: Specialist, table: pd.DataFrame, recipe: Recipe) -> NDArray[Any]:
        """Class codes to train on, int64."""
        return specialist.training_label(table, recipe)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """CORN's loss with codes (N,)."""
        return losses.corn(outputs.float(), targets, weights)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """P(class k) = P(at least k) - P(at least k + 1); P(at least k) is the product of the first k answers."""
        reached = outputs.float().sigmoid().cumprod(dim=1)
        first, last = torch.ones_like(reached[:, :1]), torch.zeros_like(reached[:, :1])
        return torch.cat([first, reached], dim=1) - torch.cat([reached, last], dim=1)

    def as_dict(self) -> dict[str, Any]:
        """For the card."""
        return {"kind": "corn", "classes": self.classes}


@dataclass(frozen=True)
class SoftAgeHead:
    """One output per year; trained on a Gaussian around the exact value, answers with sums over the classes' years.

    It learns from years and answers in bands: 31 and 58 are one class, but not one face. Label distribution learning
    after Gao et al. 2017, "Deep Label Distribution Learning With Label Ambiguity" (arXiv 1611.01731).

    Attributes:
        low: the value of the first output.
        high: the value of the last output.
        borders: first value of each class but the lowest, half-open.
        sigma: standard deviation of the target, in the scale's unit.
    """

    low: int
    high: int
    borders: tuple[int, ...]
    sigma: float = 3.0

    @property
    def outputs(self) -> int:
        """One per whole value of the scale."""
        return self.high - self.low + 1

    def targets(self, specialist: Specialist, table: pd.DataFrame, recipe: Recipe) -> NDArray[Any]:  # noqa: ARG002  # a Head takes it
        """Exact values to train on, float32; -1 - code if only the class is known."""
        assert specialist.scale is not None  # recipes/lint.py refuses soft_age without a scale
        column = specialist.scale.column
        values = table[column].to_numpy(dtype=np.float32)
        if exact_column(column) not in table:
            return values
        return np.where(table[exact_column(column)], values, -1 - specialist.label(table)).astype(np.float32)

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Cross-entropy with the discretised Gaussian around each target, or with its class if only that is known."""
        years = torch.arange(self.low, self.high + 1, device=outputs.device, dtype=torch.float32)
        target = F.softmax(-0.5 * ((years - targets[:, None]) / self.sigma) ** 2, dim=1)
        logs = outputs.float().log_softmax(dim=1)
        by_year = -(target * logs).sum(dim=1)
        codes = (-1 - targets).clamp_min(0).long()[:, None]
        by_class = -torch.stack([logs[:, a:b].logsumexp(dim=1) for a, b in self._years()], dim=1).gather(1, codes)[:, 0]
        return (torch.where(targets >= 0, by_year, by_class) * weights).mean()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Sums of the softmax over each class's years."""
        years = outputs.float().softmax(dim=1)
        return torch.stack([years[:, a:b].sum(dim=1) for a, b in self._years()], dim=1)

    def _years(self) -> Iterator[tuple[int, int]]:
        """First output of each class, and the output after its last."""
        return pairwise([0, *(border - self.low for border in self.borders), self.outputs])

    def as_dict(self) -> dict[str, Any]:
        """For the card."""
        return {"kind": "soft_age", "low": self.low, "high": self.high, "borders": list(self.borders)}


def photo_weights(
    classes: NDArray[np.int64], balance: float, draws: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """The weight of each training photo in the loss, with mean 1 over what an epoch draws.

    A class of share s weighs s ** -balance (Kang et al. 2020, arXiv 1910.09217, call it tau-normalisation when applied to a
    classifier). Macro F1 counts a rare class as much as a common one, and cross-entropy does not.

    Args:
        classes: codes of the rows that an epoch draws from, shape (n,).
        balance: 0 weighs photos alike, 1 classes alike.
        draws: how often an epoch draws each row, shape (n,): a class's share is its share of the draws, not of the photos, for
            one person may have many. None: all rows alike.

    Returns:
        Shape (n,), float32.
    """
    draws = np.ones(len(classes)) if draws is None else draws
    factors = np.ones(int(classes.max(initial=0)) + 1)
    return np.asarray(class_factors(classes, draws, balance, factors), dtype=np.float32)


def head_of(specialist: Specialist, recipe: Recipe) -> Head:
    """The head that a recipe asks for."""
    if recipe.loss == "soft_age":
        scale = specialist.scale
        assert scale is not None  # recipes/lint.py refuses soft_age without a scale
        return SoftAgeHead(scale.low, scale.high, scale.borders, recipe.soft_age_sigma)
    if recipe.loss == "corn":
        return CornHead(len(specialist.classes))
    terms = tuple(loss_terms(recipe.loss).items())
    if specialist.parts:
        return JointHead(
            tuple(ClassHead(part, recipe.label_smoothing, terms, recipe.focal_gamma) for part in specialist.parts)
        )
    return ClassHead(len(specialist.classes), recipe.label_smoothing, terms, recipe.focal_gamma)


def head_from_dict(value: Mapping[str, Any]) -> Head:
    """A head from a member's card, for prediction.

    Raises:
        KeyError: a setting is missing.
        ValueError: an unknown kind.
    """
    match value["kind"]:
        case "soft_age":
            return SoftAgeHead(value["low"], value["high"], tuple(value["borders"]))
        case "corn":
            return CornHead(value["classes"])
        case "joint":
            return JointHead(tuple(map(ClassHead, value["parts"])))
        case "classes":
            return ClassHead(value["classes"])
        case kind:
            raise ValueError(f"a head of the kind {kind!r}, which this version does not know")

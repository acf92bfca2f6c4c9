"""Trained epochs as values: what a member's history, its card and the events of training say of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

__all__ = ["NUMBERS", "History", "MemberScores", "TrainedEpoch"]

NUMBERS = ("loss", "lr", "macro_f1", "accuracy", "log_loss", "photos_per_second")
"""Keys of an epoch's numbers, in the order of a tracker's columns."""


@dataclass(frozen=True)
class MemberScores:
    """A member's scores on the photos of its held-out people.

    Attributes:
        macro_f1: 0..1.
        accuracy: 0..1.
        log_loss: mean negative log probability of the true class, nats.
    """

    macro_f1: float
    accuracy: float
    log_loss: float


@dataclass(frozen=True)
class TrainedEpoch:
    """One trained epoch of a member.

    Attributes:
        number: its number, counted from 1.
        loss: mean training loss of its steps.
        lr: learning rate of the last step.
        photos_per_second: training rate.
        seconds: wall-clock seconds, scoring included.
        scores: scores after it; None where it was not scored.
        stages: stage -> seconds; empty without --profile.
    """

    number: int
    loss: float
    lr: float
    photos_per_second: float
    seconds: float = 0.0
    scores: MemberScores | None = None
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """Key of `NUMBERS` -> its number, for those that it has."""
        value = self.as_dict()
        return {key: value[key] for key in NUMBERS if key in value}

    def as_dict(self) -> dict[str, Any]:
        """For JSON: one flat object, as `history.json` holds it."""
        return {
            "epoch": self.number, "loss": self.loss, "lr": self.lr, "photos_per_second": self.photos_per_second,
            **({"stages": dict(self.stages)} if self.stages else {}), **(asdict(self.scores) if self.scores else {}),
            "seconds": self.seconds,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainedEpoch:
        """An epoch from JSON values.

        Raises:
            KeyError: a number is missing.
        """
        scores = None
        if "macro_f1" in value:
            scores = MemberScores(value["macro_f1"], value["accuracy"], value["log_loss"])
        rate, stages = value["photos_per_second"], value.get("stages", {})
        return cls(value["epoch"], value["loss"], value["lr"], rate, value["seconds"], scores, stages)


History: TypeAlias = Sequence[TrainedEpoch]
"""A member's trained epochs, in order."""

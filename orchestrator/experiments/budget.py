"""How much a search may take."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.arguments import check_range
from orchestrator.core.errors import Mistakes

__all__ = ["MOST_TRIALS", "Budget"]

MOST_TRIALS = 10_000


@dataclass(frozen=True)
class Budget:
    """How much a search may take.

    Attributes:
        trials: total number of trials, those of earlier commands among them; 1 to `MOST_TRIALS`.
        minutes: time after which no trial starts; None: no limit.
        prune: whether trials are stopped that stay below the median of the complete ones.

    Raises:
        ConfigError: numbers out of range, all of them at once.
    """

    trials: int = 20
    minutes: float | None = None
    prune: bool = True

    def __post_init__(self) -> None:
        mistakes = Mistakes()
        with mistakes.collect():
            check_range("--trials", self.trials, 1, MOST_TRIALS)
        with mistakes.collect():
            check_range("--minutes", self.minutes, 0, fraction=True)
        mistakes.raise_if_any()

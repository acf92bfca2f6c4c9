"""What trains members: a list of jobs in, a stream of events and a result for each out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.events import Listener, Outcome
from orchestrator.training.member import MemberJob

__all__ = ["Executor", "JobResult"]


@dataclass(frozen=True)
class JobResult:
    """How one job ended.

    Attributes:
        number: the job's position in the list.
        outcome: `done` when the member is complete.
        why: a sentence where it is not.
    """

    number: int
    outcome: Outcome = "done"
    why: str = ""


class Executor(Protocol):
    """Trains members somewhere. A job carries all that it needs, paths among them, and how it may be asked to stop."""

    def places(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        """How many of some jobs run at once, and the CPU threads for each.

        Args:
            jobs: how many there are in all.
            device: that each is trained on.
            threads: of each, where they are settled; 0 chooses.
        """

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        """Trains members, several at once; one that fails never sinks the others.

        Args:
            jobs: what to train.
            at_once: how many at once.
            listen: told of epochs, and of each member's end after its last epoch.

        Returns:
            One result per job, in order.
        """

"""The executor's interface: takes a list of jobs, sends events, and returns a result for each job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.events import Listener, Outcome
from orchestrator.training.member import MemberJob

__all__ = ["Executor", "JobResult"]


@dataclass(frozen=True)
class JobResult:
    """How the job of one member ended.

    Attributes:
        run: id of its run.
        fold: held-out fold; None: no fold.
        outcome: `done` when the member is complete.
        why: the reason if it is not.
    """

    run: str
    fold: int | None
    outcome: Outcome = "done"
    why: str = ""

    @property
    def key(self) -> tuple[str, int | None]:
        """The member's run and fold, the same as `MemberJob.key`."""
        return self.run, self.fold


class Executor(Protocol):
    """Trains members somewhere.

    A job carries everything that it needs, including paths and stop requests. Its folder must be visible both where the job
    runs and to the caller, who reads cards and histories there.
    """

    def parallelism(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        """The number of jobs that run at once, and the CPU threads of each.

        Args:
            jobs: total number of jobs.
            device: device of every job.
            threads: fixed number of threads per job; 0: automatic.
        """

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        """Trains members, several at once; one that fails never stops the others.

        Args:
            jobs: the members to train, all different.
            at_once: number of jobs at once.
            listen: receives an event for each epoch and, after a member's last epoch, for its end.

        Returns:
            One result per job, in any order.
        """

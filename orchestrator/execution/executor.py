"""The executor's interface, a list of jobs in, events and a result for each out; and how any executor runs one of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator.core.commands import display_path
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.events import Listener, Outcome
from orchestrator.core.files import write_json
from orchestrator.training.cancelling import CancelledError, raise_if_cancelled
from orchestrator.training.job import MemberJob
from orchestrator.training.loop import Pruned, train_fold

__all__ = ["Executor", "JobResult", "run_job"]

FAILURE = "failure.json"


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
    """Trains members somewhere, each by `run_job`.

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


def run_job(
    job: MemberJob, listen: Listener, claim: Callable[[str], AbstractContextManager[str]] = nullcontext
) -> JobResult:
    """Trains one member, in the process that calls it, and turns any error into the job's result.

    Args:
        job: the member.
        listen: receives progress within epochs, and each epoch that is trained here; what it raises is the job's failure. That
            the member has ended is for the executor to send, since only it learns of a process that was killed.
        claim: from the job's device to the device to train on, which is claimed until training ends; by default the same.
    """
    failure = job.folder / FAILURE
    try:
        failure.unlink(missing_ok=True)
        raise_if_cancelled(job.cancel)
        with claim(job.device) as device:
            train_fold(replace(job, device=device), listen)
        return JobResult(*job.key)
    except Pruned as stop:
        why = f"below {stop.threshold:.4f} after epoch {stop.epoch} of {job.recipe.epochs}"
        return JobResult(*job.key, "pruned", why)
    except CancelledError:
        return JobResult(*job.key, "cancelled", "it was asked to stop; the same command goes on from there.")
    except OrchestratorError as error:
        return JobResult(*job.key, "failed", str(error))
    except Exception as error:  # a bug here or in a library must not stop the other jobs either
        sentence = f"{job.title}: {type(error).__name__}: {error}"
        with suppress(OSError, StoreError):  # most likely a full disk, which the message says already
            write_json(failure, {"reason": sentence, "traceback": traceback.format_exc()})
            sentence += f" (traceback: {display_path(failure)})"
        return JobResult(*job.key, "failed", sentence)

"""Many members at once: joblib workers, threads shared out, one GPU a job, and no failure that sinks the others."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
from filelock import FileLock, Timeout
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import BrokenProcessPool

from orchestrator.data.files import write_json
from orchestrator.data.sharing import check_jobs, why_alone
from orchestrator.errors import OrchestratorError, StoreError
from orchestrator.training.devices import gpu_count
from orchestrator.training.loop import GivenUp, train_fold
from orchestrator.training.member import MemberJob

__all__ = ["JobResult", "claim_gpu", "run_jobs", "share_out"]

FAILURE = "failure.json"


@dataclass(frozen=True)
class JobResult:
    """How one job ended.

    Attributes:
        number: the job's position in the list.
        failure: why it failed, in a sentence; empty when the member is complete.
        given_up: why it was stopped early as asked for; empty when it was not.
    """

    number: int
    failure: str = ""
    given_up: str = ""


def share_out(wanted: int, tasks: int, device: str) -> tuple[int, int]:
    """Jobs at once, and threads for each.

    One thread a job beats several threads on one: two jobs with one thread each train 1.4 times as many photos a second
    as one job with two (EfficientNet-Lite0 at 128 x 96 on 2 cores: 97 against 70 photos/s).

    Args:
        wanted: `--jobs`; 0 chooses.
        tasks: how many jobs there are in all.
        device: on a GPU the choice is one job per GPU.

    Raises:
        ConfigError: a negative number, or several where processes cannot work together.
    """
    check_jobs(wanted)
    cores = joblib.cpu_count()
    jobs = wanted or (cores if device == "cpu" else max(1, gpu_count() if device == "cuda" else 1))
    if not wanted and jobs > 1 and why_alone():
        jobs = 1
    jobs = max(1, min(jobs, tasks))
    return jobs, max(1, cores // jobs)


def run_jobs(jobs: Sequence[MemberJob], at_once: int, done: Callable[[JobResult], None]) -> list[JobResult]:
    """Trains members, several at once.

    A job that raises is reported and the others go on. A worker that dies (killed for its memory, say) takes its pool
    along; the unfinished jobs are then run again one by one, so only the one that dies alone is a failure.

    Args:
        jobs: what to train.
        at_once: how many at once; 1 trains in this process.
        done: called as each job ends.

    Returns:
        One result per job, in order.
    """
    results: dict[int, JobResult] = {}

    def keep(result: JobResult) -> None:
        results[result.number] = result
        done(result)

    if at_once == 1:
        for number, job in enumerate(jobs):
            keep(_run(number, job))
        return [results[number] for number in range(len(jobs))]
    jobs = [replace(job, parent=os.getpid()) for job in jobs]
    try:
        try:
            for result in _pool(at_once, list(enumerate(jobs))):
                keep(result)
        except BrokenProcessPool:
            for number, job in enumerate(jobs):
                if number in results:
                    continue
                try:
                    for result in _pool(2, [(number, job)]):  # 1 would train in this process
                        keep(result)
                except BrokenProcessPool:
                    reason = (
                        f"{job.task} fold {job.fold}: its process was killed, most likely for want of memory. Lower "
                        f"--set {job.task}.batch_size={max(2, job.recipe.batch_size // 2)} (now {job.recipe.batch_size}) "
                        "or --jobs."
                    )
                    keep(JobResult(number, reason))
    except KeyboardInterrupt:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise
    return [results[number] for number in range(len(jobs))]


def _pool(at_once: int, jobs: Sequence[tuple[int, MemberJob]]) -> Iterator[JobResult]:
    with joblib.parallel_config(backend="loky", inner_max_num_threads=jobs[0][1].threads), warnings.catch_warnings():
        # loky replaces a worker whose memory grew by 300 MB, as any that has trained has: nothing is lost, nothing is to be done.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        parallel = joblib.Parallel(
            n_jobs=at_once,
            return_as="generator_unordered",
            pre_dispatch=at_once,
            batch_size=1,
            max_nbytes=None,
        )
        yield from parallel(joblib.delayed(_run)(number, job) for number, job in jobs)


def _run(number: int, job: MemberJob) -> JobResult:
    """Trains one member and turns what goes wrong into a sentence; runs in a worker."""
    if job.parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the command, which ends its workers
    failure = job.folder / FAILURE
    failure.unlink(missing_ok=True)
    try:
        with claim_gpu(job.folder.parent.parent / "cache", job.device) as device:
            train_fold(replace(job, device=device))
        return JobResult(number)
    except GivenUp as stop:
        why = f"below {stop.bar:.4f} after epoch {stop.epoch} of {job.recipe.epochs}"
        return JobResult(number, given_up=why)
    except OrchestratorError as error:
        sentence, detail = str(error), ""
    except Exception as error:  # a fault of ours or of a library must not sink the other jobs either
        sentence = f"{job.task} fold {job.fold}: {type(error).__name__}: {error}"
        detail = traceback.format_exc()
    with suppress(OSError, StoreError):  # a full disk, most likely, which the sentence tells already
        write_json(failure, {"reason": sentence, "traceback": detail})
    return JobResult(number, sentence)


@contextmanager
def claim_gpu(folder: Path, device: str) -> Iterator[str]:
    """One GPU of several for one job: `cuda` becomes the first `cuda:N` that no other job holds."""
    count = gpu_count() if device == "cuda" else 0
    if count < 2:
        yield device
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        lock = FileLock(folder / f"gpu-{number}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        try:
            yield f"cuda:{number}"
        finally:
            lock.release()
        return
    yield f"cuda:{os.getpid() % count}"  # more jobs than GPUs were asked for: share them

"""Trains members on this machine: joblib workers share the threads, one GPU per job; no failure stops the others."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
from filelock import FileLock, Timeout
from joblib.externals.loky.process_executor import BrokenProcessPool

from orchestrator.core.cores import cores
from orchestrator.core.events import Listener
from orchestrator.data.sharing import check_jobs, signals_blocked, start_trackers, why_no_parallelism
from orchestrator.execution.executor import JobResult, run_job
from orchestrator.execution.progress_files import Watcher, progress_file
from orchestrator.networks.devices import gpu_count
from orchestrator.training.job import MemberJob

__all__ = ["LocalExecutor", "WhileParentLives", "claim_gpu"]


@dataclass(frozen=True)
class WhileParentLives:
    """Ends a worker whose command was killed: two trainings of one member must never run at once.

    Attributes:
        parent: process id of the command.
    """

    parent: int

    def check(self) -> None:
        """Ends this process if its parent is gone; no process is left to receive an error.

        In the command's own process, where joblib trains if it cannot start another, there is nothing to notice.
        """
        if os.getpid() != self.parent and os.getppid() != self.parent:
            os._exit(1)


@dataclass(frozen=True)
class LocalExecutor:
    """Trains members in this process, or in others of this machine.

    Attributes:
        jobs: number of jobs at once; 0: automatic.
    """

    jobs: int = 0

    def parallelism(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        """The number of jobs that run at once, and the CPU threads of each.

        Several jobs of one thread beat one job of several threads: two jobs with one thread each train 1.4 times as
        many photos a second as one job with two (EfficientNet-Lite0 at 128 x 96 on 2 cores: 97 against 70 photos/s).

        Args:
            jobs: total number of jobs.
            device: device of every job; on GPUs, automatic means one job per GPU.
            threads: fixed number of threads per job, which limits the automatic choice to the cores; 0: automatic.

        Raises:
            ConfigError: a negative number of jobs, or several where processes cannot work together.
        """
        check_jobs(self.jobs)
        available = cores()
        at_once = self.jobs or (available if device == "cpu" else max(1, gpu_count() if device == "cuda" else 1))
        if not self.jobs and at_once > 1 and why_no_parallelism():
            at_once = 1
        if not self.jobs and device == "cpu" and threads:
            at_once = min(at_once, available // threads)
        at_once = max(1, min(at_once, jobs))
        return at_once, threads or max(1, available // at_once)

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        """Trains members, several at once.

        A job that raises is reported and the others continue. A worker that dies (for example, killed for its memory)
        breaks its pool; the unfinished jobs are then rerun one by one, so that only a job that dies alone has failed.

        Args:
            jobs: the members to train.
            at_once: number of jobs at once; 1 trains in this process.
            listen: receives an event for each epoch and, after a member's last epoch, for its end.

        Returns:
            One result per job, in order.
        """
        results: dict[tuple[str, int | None], JobResult] = {}
        with Watcher(jobs, listen) as watcher, closing(_results(jobs, at_once, results)) as arriving:
            for result in arriving:
                results[result.key] = result
                watcher.ended(result)
        return [results[job.key] for job in jobs]


def _results(
    jobs: Sequence[MemberJob], at_once: int, ended: Mapping[tuple[str, int | None], JobResult]
) -> Generator[JobResult, None, None]:
    """Yields results as they arrive; the caller puts each into `ended`, by its key. Closing it kills the workers."""
    if at_once == 1:
        yield from map(_run, jobs)
        return
    jobs = [replace(job, cancel=(*job.cancel, WhileParentLives(os.getpid()))) for job in jobs]
    try:
        yield from _pool(at_once, jobs)
    except BrokenProcessPool:
        for job in jobs:
            if job.key in ended:
                continue
            try:
                yield from _pool(2, [job])  # 1 would train in this process
            except BrokenProcessPool:
                why = f"{job.title}: its process was killed, most likely because memory ran out. {job.memory_advice}"
                yield JobResult(*job.key, "failed", why)


def _pool(at_once: int, jobs: Sequence[MemberJob]) -> Generator[JobResult, None, None]:
    start_trackers()
    with joblib.parallel_config(backend="loky", inner_max_num_threads=jobs[0].threads), warnings.catch_warnings():
        # loky replaces a worker whose memory grew by 300 MB, as training always does: harmless.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
        warnings.filterwarnings("ignore", message=".*adjusting the input task iterator")  # closed early: on purpose
        parallel = joblib.Parallel(
            n_jobs=at_once,
            return_as="generator_unordered",
            pre_dispatch=at_once,
            batch_size=1,
            max_nbytes=None,
        )
        with signals_blocked(signal.SIGINT):  # Ctrl-C reaches the command, which ends its workers
            results = parallel(map(joblib.delayed(_run), jobs))
        yield from results


def _run(job: MemberJob) -> JobResult:
    """Trains one member, with its progress in a file; runs in a worker."""
    with progress_file(job.folder) as listen:
        return run_job(job, listen, claim_gpu)


@contextmanager
def claim_gpu(device: str) -> Iterator[str]:
    """Claims one of several GPUs for a job: `cuda` becomes the first `cuda:N` that no other job on this machine holds.

    Args:
        device: the requested device.
    """
    count = gpu_count() if device == "cuda" else 0
    if count < 2:
        yield device
        return
    folder = Path(tempfile.gettempdir()) / f"orch-gpus-{os.getuid()}"  # of this machine and user, not of a shared disk
    folder.mkdir(exist_ok=True)
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

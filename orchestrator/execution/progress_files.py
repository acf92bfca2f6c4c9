"""How events of members that train in other processes reach a listener: through small files in the members' folders.

A worker writes how far it is into `progress.json`, and training itself writes `history.json`; the command reads both, so a worker
that is killed takes no queue with it, and a listener that is slow (a tracker on the network) delays no training.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.artifacts.cards import PROGRESS, history_of
from orchestrator.core.epochs import History
from orchestrator.core.errors import DamagedError
from orchestrator.core.events import EpochEnded, EpochProgress, Event, Listener, MemberEnded
from orchestrator.execution.executor import JobResult
from orchestrator.training.job import MemberJob

__all__ = ["Watcher", "progress_file"]

POLL_SECONDS = 0.5


@contextmanager
def progress_file(folder: Path) -> Iterator[Listener]:
    """A listener for a training that writes its latest progress into the member's folder, until the block ends."""
    _remove(folder)
    try:
        yield lambda event: _write(folder, event)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Removes a member's progress; a folder in which that fails is reported by its training."""
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)


def _write(folder: Path, event: Event) -> None:
    """Writes progress within an epoch: without flushing, and skipped if the disk is full or a value is not finite."""
    if not isinstance(event, EpochProgress):
        return  # a trained epoch is in the history already
    temporary = folder / f".{PROGRESS}"
    with suppress(OSError, ValueError):
        value = {"epochs": event.epochs, "photos_per_second": event.photos_per_second}
        temporary.write_text(json.dumps(value, allow_nan=False))
        temporary.replace(folder / PROGRESS)


class Watcher:
    """Sends members' progress to a listener, from a thread of its own.

    Args:
        jobs: the jobs to watch.
        listen: receives the events.
    """

    def __init__(self, jobs: Sequence[MemberJob], listen: Listener) -> None:
        self._jobs, self._listen = {job.key: job for job in jobs}, listen
        self._sent_epochs = {job.key: len(_history(job)) for job in jobs}
        self._open, self._lock, self._stop = set(self._sent_epochs), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def ended(self, result: JobResult) -> None:
        """Sends the last epochs of a job that has ended, then its end; raises what the listener raised meanwhile."""
        if self._error is not None:
            raise self._error
        with self._lock:
            self._send_epochs(self._jobs[result.key])
            self._open.discard(result.key)
        self._listen(MemberEnded(result.run, result.fold, result.outcome, result.why))

    def _watch(self) -> None:
        try:
            while not self._stop.wait(POLL_SECONDS):
                for key, job in self._jobs.items():
                    with self._lock:
                        if key in self._open:
                            self._send_progress(job)
        except BaseException as error:  # the listener's: re-raised in the caller's thread
            self._error = error

    def _send_progress(self, job: MemberJob) -> None:
        self._send_epochs(job)
        progress = _read(job)
        if progress is not None:
            epochs = max(float(self._sent_epochs[job.key]), progress.epochs)
            self._listen(EpochProgress(job.run, job.fold, epochs, progress.photos_per_second))

    def _send_epochs(self, job: MemberJob) -> None:
        history, sent = _history(job), self._sent_epochs
        if len(history) < sent[job.key]:  # its checkpoint was lost, or it keeps none: it started over
            sent[job.key] = 0
        for epoch in history[sent[job.key] :]:
            sent[job.key] += 1
            self._listen(EpochEnded(job.run, job.fold, epoch))


def _history(job: MemberJob) -> History:
    try:
        return history_of(job.folder)
    except DamagedError:  # reported where the card is needed
        return ()


def _read(job: MemberJob) -> EpochProgress | None:
    """The progress that a job's worker wrote; None if there is none to read."""
    try:
        progress = json.loads((job.folder / PROGRESS).read_text(encoding="utf-8"))
        return EpochProgress(job.run, job.fold, float(progress["epochs"]), float(progress["photos_per_second"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""What trackers are told: live while members train, or afterwards. Local files stay the truth.

A tracker is told what lies in a run's folder (recipe, histories, cards). How far is noted there, in `tracking.json`, so a
training that goes on after a kill, or a run that is sent later, tells what was not told: an epoch twice only when the kill came
between telling it and noting that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.commands import orch
from orchestrator.data.sealed import read_sealed, without, write_sealed
from orchestrator.errors import OrchestratorError, first_line
from orchestrator.experiments.trackers import Tracker, check_words, disabled, open_trackers
from orchestrator.records.run import RunRecord, member_folder
from orchestrator.records.summary import score_of
from orchestrator.training.cards import history_of

if TYPE_CHECKING:
    from orchestrator.preparation import Observer
    from orchestrator.training.jobs import JobResult
    from orchestrator.training.member import MemberJob

__all__ = ["Tracked", "send"]

SENT = "tracking.json"
TRACKING_FORMAT = 2
POLL_SECONDS = 2.0


def send(tracker: Tracker, run: RunRecord) -> int:
    """Tells a tracker what it has not been told of a run; safe to repeat.

    Returns:
        Epochs sent.
    """
    path = run.folder / SENT
    notes: dict[str, Any] = {"trackers": {}}
    if os.path.lexists(path):
        way_out = without(path, "run the same command again: everything is sent once more.")
        notes = read_sealed(path, "tracking", run.id, TRACKING_FORMAT, way_out)
    place = notes["trackers"].get(tracker.name)
    if place is None or (place["id"] is not None and not tracker.knows(run, place["id"])):
        place = {"id": None, "epochs": {}, "ended": False}  # never told, or deleted there
    notes["trackers"][tracker.name] = place
    histories = {member_folder(fold): history_of(run.member(fold)) for fold in run.folds}
    new = {member: history[place["epochs"].get(member, 0) :] for member, history in histories.items()}
    count = sum(map(len, new.values()))
    ends = run.complete and not place["ended"]
    if not count and not ends:
        return 0
    place["id"] = tracker.begin(run, place["id"])
    for member, entries in new.items():
        for entry in entries:
            tracker.epoch(run, member, entry)
        place["epochs"][member] = len(histories[member])
    if ends:
        tracker.end(run, score_of(run))
        place["ended"] = True
    write_sealed(path, "tracking", run.id, TRACKING_FORMAT, notes)
    return count


class Tracked:
    """An `Observer` that also tells trackers, while another one shows.

    A tracker that fails is left out from then on, with a word: it must never cost a training.

    Args:
        observer: who shows.
        words: of `--track`; their places are opened when training begins, since a workspace may not be there before.
        workspace: as in `open_trackers`.

    Raises:
        ConfigError: a word names no tracker, or one that is not installed; when training begins: a place out of reach.
    """

    def __init__(self, observer: Observer, words: Sequence[str], workspace: Path) -> None:
        check_words(words)
        self._observer, self._words, self._workspace = observer, words, workspace
        self._trackers: list[Tracker] = []
        self._runs: dict[str, RunRecord] = {}
        self._stop, self._thread = threading.Event(), threading.Thread()

    def say(self, text: str) -> None:
        """A line on what was decided or found."""
        self._observer.say(text)

    def decoding(self, done: int, photos: int) -> None:
        """Photos decoded into the store so far."""
        self._observer.decoding(done, photos)

    def looking(self, done: int, photos: int) -> None:
        """Photos in which a face was looked for so far."""
        self._observer.looking(done, photos)

    def features(self, done: int, photos: int) -> None:
        """Photos that have gone through a frozen backbone so far."""
        self._observer.features(done, photos)

    def training(self, jobs: Sequence[tuple[RunRecord, MemberJob]], at_once: int) -> None:
        """Training of these members begins."""
        if not self._runs:
            words = [word for word in self._words if not disabled(word)]
            for why in map(disabled, {*self._words} - {*words}):
                self.say(f"note: {why}")
            self._trackers = open_trackers(words, self._workspace)
            for tracker in self._trackers:
                self.say(f"told of every epoch: {tracker.name}. To look: {tracker.look}")
        self._observer.training(jobs, at_once)
        self._runs |= {run.id: run for run, _ in jobs}
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def ended(self, run: RunRecord, job: MemberJob, result: JobResult) -> None:
        """One member is complete, failed, or was given up."""
        self._observer.ended(run, job, result)

    def finished(self) -> None:
        """All jobs ended; what is left is told."""
        self._observer.finished()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._tell()

    def close(self) -> None:
        """The command ends: runs are told as they are on disk now, complete ones as complete."""
        for name, run in self._runs.items():
            with suppress(OrchestratorError):
                self._runs[name] = RunRecord.load(run.folder)
        self._tell()
        for tracker in list(self._trackers):
            self._try(tracker, tracker.close)

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._tell()

    def _tell(self) -> None:
        for tracker in list(self._trackers):
            for run in self._runs.values():
                if tracker in self._trackers:
                    self._try(tracker, send, tracker, run)

    def _try(self, tracker: Tracker, act: Callable[..., Any], *words: Any) -> None:
        try:
            act(*words)
        except Exception as error:  # a tracker's own, of any kind
            self._trackers.remove(tracker)
            kind = tracker.name.partition("=")[0]
            later = orch("runs", "track", *self._runs, "--to", self._word(kind), workspace=self._workspace)
            self._observer.say(
                f"note: {kind} is told nothing more ({first_line(error)}). Training goes on; later: {later}"
            )

    def _word(self, kind: str) -> str:
        return next((word for word in self._words if word.partition("=")[0] == kind), kind)

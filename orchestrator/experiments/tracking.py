"""Sending runs to trackers, during training or afterwards. Local files stay the source of truth.

A tracker receives what is in a run's folder (recipe, histories, cards). What was sent is recorded there, in
`tracking.json`, so a training that is resumed, or a run that is sent later, sends only the rest. An epoch is sent
twice only if a kill came between sending and recording it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.run import TRACKING, RunRecord, member_folder
from orchestrator.artifacts.summary import score_of
from orchestrator.core.commands import orch
from orchestrator.core.errors import OrchestratorError, first_line
from orchestrator.core.events import EpochEnded, Event, InputsRead, TrainingEnded, TrainingStarted
from orchestrator.core.sealed import after_setting_aside, read_sealed, write_sealed
from orchestrator.experiments.trackers import Tracker, check_words, open_trackers, why_disabled

__all__ = ["Tracked", "send"]

log = logging.getLogger(__name__)

TRACKING_FORMAT = 2


def send(tracker: Tracker, run: RunRecord) -> int:
    """Sends a tracker what it has not received of a run; safe to repeat.

    Returns:
        Epochs sent.
    """
    path = run.folder / TRACKING
    notes: dict[str, Any] = {"trackers": {}}
    if os.path.lexists(path):
        way_out = after_setting_aside(path, "run the same command again: everything is sent once more.")
        notes = read_sealed(path, "tracking", run.id, TRACKING_FORMAT, way_out)
    sent = notes["trackers"].get(tracker.name)
    if sent is None or (sent["id"] is not None and not tracker.knows(run, sent["id"])):
        sent = {"id": None, "epochs": {}, "ended": False}  # never sent, or deleted there
    notes["trackers"][tracker.name] = sent
    histories = {member_folder(fold): history_of(run.member(fold)) for fold in run.folds}
    new = {member: history[sent["epochs"].get(member, 0) :] for member, history in histories.items()}
    count = sum(map(len, new.values()))
    ends = run.complete and not sent["ended"]
    if not count and not ends:
        return 0
    sent["id"] = tracker.begin(run, sent["id"])
    for member, epochs in new.items():
        for epoch in epochs:
            tracker.epoch(run, member, epoch.number, epoch.numbers)
        sent["epochs"][member] = len(histories[member])
    if ends:
        tracker.end(run, score_of(run))
        sent["ended"] = True
    write_sealed(path, "tracking", run.id, TRACKING_FORMAT, notes)
    return count


class Tracked:
    """Listens to a training and sends it to trackers.

    A tracker that fails is dropped with a warning: it must never stop a training. Trackers have their own thread, so
    that a slow one delays nothing.

    Args:
        words: values of `--track`. Trackers are opened when inputs are read, since the workspace may not exist before.
        workspace: as in `open_trackers`.

    Raises:
        ConfigError: an unknown tracker, or one that is not installed; when inputs are read: one that cannot be
            reached.
    """

    def __init__(self, words: Sequence[str], workspace: Path) -> None:
        check_words(words)
        self._words, self._workspace = words, workspace
        self._trackers: list[Tracker] = []
        self._opened = False
        self._runs: dict[str, RunRecord] = {}
        self._news, self._stop, self._thread = threading.Event(), threading.Event(), threading.Thread()

    def __call__(self, event: Event) -> None:
        """Notes that there is something to send."""
        if isinstance(event, InputsRead):
            self._open()
        elif isinstance(event, TrainingStarted):
            self._begin(event)
        elif isinstance(event, EpochEnded):
            self._news.set()
        elif isinstance(event, TrainingEnded):
            self._end()

    def close(self) -> None:
        """Sends the final state of the runs on disk when the command ends."""
        self._end()
        for name, run in self._runs.items():
            with suppress(OrchestratorError):
                self._runs[name] = RunRecord.load(run.folder)
        self._send_finished()
        for tracker in list(self._trackers):
            self._try(tracker, tracker.close)

    def _open(self) -> None:
        """Opens the trackers, once: one that cannot be reached is reported before any run is written."""
        if self._opened:
            return
        self._opened = True
        words = [word for word in self._words if not why_disabled(word)]
        for why in map(why_disabled, {*self._words} - {*words}):
            log.warning(why)
        self._trackers = open_trackers(words, self._workspace)
        for tracker in self._trackers:
            log.info(f"every epoch goes to {tracker.name}. To view: {tracker.look}")

    def _begin(self, event: TrainingStarted) -> None:
        self._open()
        for run in dict.fromkeys(member.run for member in event.members):
            self._runs[run] = RunRecord.load(event.workspace / run)
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _end(self) -> None:
        """Sends the rest when all members have ended."""
        self._stop.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        self._send_finished()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            self._send_finished()

    def _send_finished(self) -> None:
        for tracker in list(self._trackers):
            for run in self._runs.values():
                if tracker in self._trackers:
                    self._try(tracker, send, tracker, run)

    def _try(self, tracker: Tracker, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:  # a tracker's own, of any kind
            self._trackers.remove(tracker)
            kind = tracker.name.partition("=")[0]
            later = orch("runs", "track", *self._runs, "--to", self._word(kind), workspace=self._workspace)
            log.warning(f"{kind} gets nothing more ({first_line(error)}). Training goes on; to send it later: {later}")

    def _word(self, kind: str) -> str:
        return next((word for word in self._words if word.partition("=")[0] == kind), kind)

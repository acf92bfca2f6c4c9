"""Sending runs to trackers, during training or afterwards. Local files stay the source of truth.

During training, a tracker receives each epoch that its event holds; epochs that ended before, and runs that are sent later,
are read from the run's folder (recipe, histories, cards). What was sent is recorded there, in `tracking.json`, so a
training that is resumed, or a run that is sent later, sends only the rest. An epoch is sent twice only if a kill came
between sending and recording it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from orchestrator.artifacts.cards import history_of
from orchestrator.artifacts.run import TRACKING, RunRecord, member_folder
from orchestrator.artifacts.summary import score_of
from orchestrator.core.commands import orch
from orchestrator.core.epochs import History
from orchestrator.core.errors import OrchestratorError, first_line
from orchestrator.core.events import EpochEnded, Event, InputsRead, TrainingEnded, TrainingStarted
from orchestrator.core.sealed import after_setting_aside, read_sealed, write_sealed
from orchestrator.experiments.trackers import Tracker, check_words, open_trackers, why_disabled

__all__ = ["Tracked", "send"]

log = logging.getLogger(__name__)

TRACKING_FORMAT = 2


def send(tracker: Tracker, run: RunRecord, ended: Mapping[str, History] | None = None) -> int:
    """Sends a tracker what it has not received of a run; safe to repeat.

    Args:
        tracker: the tracker.
        run: the run.
        ended: name of a member's folder -> epochs of it that have just ended, in order; the histories on disk are read only
            if the tracker lacks earlier ones too. None: they are read.

    Returns:
        Epochs sent.
    """
    path = run.folder / TRACKING
    notes: dict[str, Any] = {"trackers": {}}
    if os.path.lexists(path):
        way_out = after_setting_aside(path, "run the same command again: everything is sent once more.")
        notes = read_sealed(path, "tracking", run.id, TRACKING_FORMAT, way_out)
    sent = notes["trackers"].get(tracker.name)
    forgotten = sent is not None and sent["id"] is not None and not tracker.knows(run, sent["id"])
    if sent is None or forgotten:
        sent = {"id": None, "epochs": {}, "ended": False}  # never sent, or deleted there
    notes["trackers"][tracker.name] = sent
    new = {} if ended is None else _not_sent(ended, sent["epochs"])
    gap = any(epochs[0].number > sent["epochs"].get(member, 0) + 1 for member, epochs in new.items())
    if ended is None or forgotten or gap:
        new = _not_sent({member_folder(fold): history_of(run.member(fold)) for fold in run.folds}, sent["epochs"])
    ends = run.complete and not sent["ended"]
    if not new and not ends:
        return 0
    sent["id"] = tracker.begin(run, sent["id"])
    for member, epochs in new.items():
        for epoch in epochs:
            tracker.epoch(run, member, epoch.number, epoch.numbers)
        sent["epochs"][member] = epochs[-1].number
    if ends:
        tracker.end(run, score_of(run))
        sent["ended"] = True
    write_sealed(path, "tracking", run.id, TRACKING_FORMAT, notes)
    return sum(map(len, new.values()))


def _not_sent(histories: Mapping[str, History], sent: Mapping[str, int]) -> dict[str, History]:
    """The epochs of each member after the last one that was sent; only members that have some."""
    new = {
        member: [epoch for epoch in history if epoch.number > sent.get(member, 0)]
        for member, history in histories.items()
    }
    return {member: epochs for member, epochs in new.items() if epochs}


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
        self._ended, self._thread = SimpleQueue[EpochEnded | None](), threading.Thread()

    def __call__(self, event: Event) -> None:
        """Hands an epoch that has ended to the thread that sends."""
        if isinstance(event, InputsRead):
            self._open()
        elif isinstance(event, TrainingStarted):
            self._begin(event)
        elif isinstance(event, EpochEnded):
            self._ended.put(event)
        elif isinstance(event, TrainingEnded):
            self._end()

    def close(self) -> None:
        """Sends the final state of the runs on disk when the command ends."""
        self._end()
        for name, run in self._runs.items():
            with suppress(OrchestratorError):
                self._runs[name] = RunRecord.load(run.folder)
        for run in self._runs.values():
            self._send(run, {})
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
        runs = [RunRecord.load(event.workspace / run) for run in dict.fromkeys(member.run for member in event.members)]
        self._runs |= {run.id: run for run in runs}
        self._thread = threading.Thread(target=self._send_epochs, args=(runs,), daemon=True)
        self._thread.start()

    def _end(self) -> None:
        """Waits until all epochs are sent."""
        if self._thread.is_alive():
            self._ended.put(None)
            self._thread.join()

    def _send_epochs(self, runs: Sequence[RunRecord]) -> None:
        """Sends what ended before, then each epoch that ends, until there is None instead."""
        for run in runs:
            self._send(run, None)
        while (event := self._ended.get()) is not None:
            self._send(self._runs[event.run], {member_folder(event.fold): [event.epoch]})

    def _send(self, run: RunRecord, ended: Mapping[str, History] | None) -> None:
        for tracker in list(self._trackers):
            self._try(tracker, send, tracker, run, ended)

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

"""Progress bars on stderr, one for each stage of long work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from orchestrator.cli.console import print_message, progress_bar
from orchestrator.core.events import Event, Listener, Stage, StageProgress

__all__ = ["Bars", "bars"]

WORDS: dict[Stage, tuple[str, str]] = {
    "open photos": ("opening photos", ""),
    "read sizes": ("reading sizes", ""),
    "hash photos": ("hashing photos", ""),
    "read files": ("reading files", ""),
    "draw people": ("drawing people", ""),
    "list faces": ("looking for faces", ""),
    "decode": ("decoding photos once", "decoded {} photos into the pixel store."),
    "find faces": ("looking for faces once", "looked for faces in {} photos."),
    "compute features": ("computing features once", "computed the features of {} photos."),
    "load members": ("loading members", ""),
    "write exports": ("writing exports", ""),
    "export members": ("exporting members", ""),
    "predict": ("predicting", ""),
    "answer": ("answering", ""),
    "label": ("labelling", ""),
    "ask": ("asking all members", ""),
    "measure": ("measuring", ""),
}
"""Stage -> the text of its bar, and the message at its end."""


class Bars:
    """Listens to counted stages, and shows one bar at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # events come from several threads
        self._stage: Stage | None = None
        self._bar: AbstractContextManager[Callable[[int, int], None]] | None = None
        self._update: Callable[[int, int], None] = lambda _done, _total: None

    def __call__(self, event: Event) -> None:
        """Shows the progress of a stage; ignores other events."""
        if not isinstance(event, StageProgress):
            return
        doing, sentence = WORDS[event.stage]
        with self._lock:
            if event.stage != self._stage:
                self.close()
                self._bar, self._stage = progress_bar(doing), event.stage
                self._update = self._bar.__enter__()
            self._update(event.done, event.total)
            if event.done == event.total:
                self.close()
                if sentence:
                    print_message(sentence.format(f"{event.total:,}"))

    def close(self) -> None:
        """Takes the bar away; safe to call again."""
        with self._lock:
            bar, self._bar, self._stage = self._bar, None, None
        if bar is not None:
            bar.__exit__(None, None, None)


@contextmanager
def bars() -> Iterator[Listener]:
    """A listener that shows how far each stage is, until the block ends."""
    shown = Bars()
    try:
        yield shown
    finally:
        shown.close()

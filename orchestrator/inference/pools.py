"""The threads of a predictor: they read photos and make calls, until they are closed after the predictions in progress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from orchestrator.core.cores import one_thread
from orchestrator.core.errors import ClosedError

__all__ = ["Pools"]


class Pools:
    """Threads, and how many predictions use them.

    On a CPU one pool does all the work, one core per call; on a GPU calls have a single thread of their own, so that they do not
    wait for photos to be read. Threads start with the first call.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        threads: threads that read photos, and on a CPU make calls.

    Attributes:
        readers: the threads that read photos.
        calls: the threads that make calls.
    """

    def __init__(self, device: str, threads: int) -> None:
        # OpenMP's thread count is per calling thread: the caller's setting stays.
        self.readers = ThreadPoolExecutor(threads, initializer=one_thread)
        self.calls = self.readers if device == "cpu" else ThreadPoolExecutor(1)
        self._changed = threading.Condition()
        self._in_progress: list[int] = []  # for each prediction, the thread that has begun it
        self._closing = self._closed = False

    @contextmanager
    def prediction(self) -> Iterator[None]:
        """Counts a prediction while the block runs.

        Raises:
            ClosedError: these threads were closed.
        """
        thread = threading.get_ident()
        with self._changed:
            if self._closing:
                raise _closed()
            self._in_progress.append(thread)
        try:
            yield
        finally:
            with self._changed:
                self._in_progress.remove(thread)
                self._changed.notify_all()

    def raise_if_closed(self) -> None:
        """Stops a prediction that its own thread has closed.

        Raises:
            ClosedError: these threads were closed.
        """
        if self._closed:
            raise _closed()

    def close(self) -> None:
        """Takes no more predictions, waits for those of other threads, and ends the threads.

        The calling thread cannot finish its own predictions while it waits; they end with a ClosedError.
        """
        caller = threading.get_ident()
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: all(thread == caller for thread in self._in_progress))
            self._closed = True
        self.readers.shutdown()
        self.calls.shutdown()


def _closed() -> ClosedError:
    return ClosedError("this predictor was closed. Load another one, or close it after its last prediction.")

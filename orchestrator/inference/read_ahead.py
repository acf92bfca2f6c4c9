"""Photos read batch by batch, ahead of whoever asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from orchestrator.inference.reader import Photo, ReadResult, Unreadable

__all__ = ["ReadAhead"]

BATCHES_BEGUN = 2
"""How many batches are being read at most, the one that is waited for included."""


class ReadAhead:
    """Reads photos in a pool's threads: the next batch while the one before is in use.

    Args:
        read: reads one photo.
        pool: its threads do so.
        photos: all photos, in order.
        batch: photos per batch.
        known: results of the first photos, which are not read again.
    """

    def __init__(
        self,
        read: Callable[[Photo], ReadResult],
        pool: ThreadPoolExecutor,
        photos: Sequence[Photo],
        batch: int,
        known: Sequence[ReadResult] = (),
    ) -> None:
        self._read, self._pool, self._photos, self._known = read, pool, photos, known
        self._starts = deque(range(0, len(photos), batch))
        self._batch = batch
        self._begun: deque[tuple[int, list[Future[ReadResult]]]] = deque()

    def batches(self) -> Generator[tuple[int, list[ReadResult]]]:
        """The number of each batch's first photo, and the results of its photos.

        Close it (`contextlib.closing`) to cancel what is no longer needed.
        """
        try:
            while self._starts or self._begun:
                while self._starts and len(self._begun) < BATCHES_BEGUN:
                    start = self._starts.popleft()
                    numbers = range(start, min(start + self._batch, len(self._photos)))
                    self._begun.append((start, [self._begin(number) for number in numbers]))
                start, futures = self._begun.popleft()
                yield start, [future.result() for future in futures]
        finally:
            for future in (future for _, futures in self._begun for future in futures):
                future.cancel()

    def reasons(self, start: int, results: Sequence[ReadResult]) -> dict[int, Unreadable]:
        """Why photos cannot be read, by their numbers: those of the last batch, and all after it.

        Args:
            start: number of the batch's first photo.
            results: its results.
        """
        results = [*results, *(future.result() for _, futures in self._begun for future in futures)]
        # The others are read only for their errors: a large folder's pixels would fill the memory.
        others = self._pool.map(lambda photo: _reason(self._read(photo)), self._photos[start + len(results) :])
        found = [*map(_reason, results), *others]
        return {start + row: reason for row, reason in enumerate(found) if reason is not None}

    def _begin(self, number: int) -> Future[ReadResult]:
        """Starts reading a photo; of a known one, a finished future."""
        if number >= len(self._known):
            return self._pool.submit(self._read, self._photos[number])
        done: Future[ReadResult] = Future()
        done.set_result(self._known[number])
        return done


def _reason(result: ReadResult) -> Unreadable | None:
    return result if isinstance(result, Unreadable) else None

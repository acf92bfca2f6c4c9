"""Profiling: seconds by stage, summed over threads; free of cost when it is off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["UNTIMED", "Stages"]

Item = TypeVar("Item")


class Stages:
    """Seconds of work by stage, summed over threads.

    Args:
        on: whether to measure.
        synchronize: callback before and after each stage that waits for pending GPU work; slow, so called only if `on`.
    """

    def __init__(self, on: bool = False, synchronize: Callable[[], None] = lambda: None) -> None:
        self._on, self._synchronize = on, synchronize
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the seconds that the block of a `with` takes to a stage."""
        if not self._on:
            yield
            return
        self._synchronize()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Iterates, timing how long each item takes to come."""
        iterator = iter(items)
        while True:
            with self(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


UNTIMED = Stages()
"""Stages that are not measured."""

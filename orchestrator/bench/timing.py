"""Measuring in turn: rounds of A, B, A, B, medians, and the memory that each took."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from orchestrator.networks.devices import give_back_freed_memory

__all__ = ["Timing", "in_turn", "ratio"]

IDLE_SECONDS = 0.05  # of a core: what a worker that waits may use meanwhile
SAMPLE_SECONDS = 0.1  # ten looks a second: more would show in what is measured


@dataclass
class Timing:
    """What one thing took.

    Attributes:
        seconds: wall-clock of each round.
        peak_mb: most private memory in any round, MB: of this process beyond what it held before, and of those of its children
            that worked.
        work: units of work a round, for a rate.
    """

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    work: float = 1.0

    @property
    def median(self) -> float:
        """Of the rounds' seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.work / self.median

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seconds": self.seconds,
            "median": self.median,
            "per_second": self.rate,
            "peak_mb": round(self.peak_mb, 1),
        }


def in_turn(
    things: Mapping[str, Callable[[], object]],
    rounds: int,
    work: Mapping[str, float] | float = 1.0,
    done: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Timing]:
    """Runs several things in turn, round after round, so that whatever disturbs the machine disturbs all of them alike.

    Args:
        things: name -> what to run.
        rounds: how often.
        work: units of work of each thing a round, for rates.
        done: called with (runs done, runs in all).
    """
    timings = {name: Timing(work=work if isinstance(work, int | float) else work[name]) for name in things}
    for number in range(rounds):
        for place, (name, thing) in enumerate(things.items()):
            gc.collect()
            give_back_freed_memory()
            with _Memory() as memory:
                started = time.perf_counter()
                thing()
                timings[name].seconds.append(time.perf_counter() - started)
            timings[name].peak_mb = max(timings[name].peak_mb, memory.peak_mb)
            done(number * len(things) + place + 1, rounds * len(things))
    return timings


def ratio(one: Timing, other: Timing) -> float:
    """The median over rounds of one's seconds over the other's in the same round."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


class _Memory:
    """Samples the private memory of this process and of its children at work while a block runs."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._before = _private_mb(self._own)
        # Workers of an earlier block stay for the next one: idle ones are no part of this block, busy ones are, whole.
        self._used = {child.pid: _cpu_seconds(child) for child in self._own.children(recursive=True)}
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(SAMPLE_SECONDS)  # the last look is at the very end: short blocks are seen too
            children = self._own.children(recursive=True)
            busy = [child for child in children if _cpu_seconds(child) > self._used.get(child.pid, 0.0) + IDLE_SECONDS]
            found = _private_mb(self._own) - self._before + sum(map(_private_mb, busy))
            self.peak_mb = max(self.peak_mb, found)


def _private_mb(process: psutil.Process) -> float:
    """What a process holds for itself alone; 0 of one that has ended. Files that are mapped, weights say, are not counted."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - getattr(memory, "shared", 0)) / 1e6  # macOS does not tell what is shared


def _cpu_seconds(process: psutil.Process) -> float:
    """Seconds of a core that a process has used; 0 of one that has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)

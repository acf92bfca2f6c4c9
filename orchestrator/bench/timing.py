"""Alternating measurements: rounds of A, B, A, B, with medians and peak memory."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from orchestrator.networks.devices import give_back_freed_memory

__all__ = ["Timing", "in_turn", "ratio"]

IDLE_SECONDS = 0.05  # of one core, that an idle worker may use meanwhile
SAMPLE_SECONDS = 0.1  # ten samples a second: more would disturb the measurement

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """The cost of one measured function.

    Attributes:
        seconds: wall-clock seconds of each round.
        peak_mb: peak private memory of any round, MB: what this process added, plus all of its busy child processes.
        work: units of work per round, for a rate.
    """

    seconds: Sequence[float]
    peak_mb: float = 0.0
    work: float = 1.0

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Units of work a second."""
        return self.work / self.median

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seconds": list(self.seconds),
            "median": self.median,
            "per_second": self.rate,
            "peak_mb": round(self.peak_mb, 1),
        }


def in_turn(
    functions: Mapping[Key, Callable[[], object]],
    rounds: int,
    work: Mapping[Key, float] | float = 1.0,
    done: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[Key, Timing]:
    """Runs several functions in turn, round after round, so that whatever disturbs the machine disturbs all of them alike.

    Args:
        functions: name -> function to run.
        rounds: number of rounds.
        work: units of work per round of each function, for rates.
        done: called with (runs done, runs in all).
    """
    seconds: dict[Key, list[float]] = {name: [] for name in functions}
    peaks = dict.fromkeys(functions, 0.0)
    for number in range(rounds):
        for position, (name, function) in enumerate(functions.items()):
            gc.collect()
            give_back_freed_memory()
            with _Memory() as memory:
                started = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - started)
            peaks[name] = max(peaks[name], memory.peak_mb)
            done(number * len(functions) + position + 1, rounds * len(functions))
    works = work if isinstance(work, Mapping) else dict.fromkeys(functions, work)
    return {name: Timing(tuple(seconds[name]), peaks[name], works[name]) for name in functions}


def ratio(numerator: Timing, denominator: Timing) -> float:
    """Median over rounds of the seconds of `numerator` divided by those of `denominator` in the same round."""
    return statistics.median(a / b for a, b in zip(numerator.seconds, denominator.seconds, strict=True))


class _Memory:
    """Samples the private memory of this process and of its children at work while a block runs."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._before = _private_mb(self._own)
        # Workers of an earlier block may still exist: idle ones do not count, busy ones count in full.
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
            ended = self._stop.wait(SAMPLE_SECONDS)  # the last sample is at the end: short blocks count too
            children = self._own.children(recursive=True)
            busy = [child for child in children if _cpu_seconds(child) > self._used.get(child.pid, 0.0) + IDLE_SECONDS]
            used_mb = _private_mb(self._own) - self._before + sum(map(_private_mb, busy))
            self.peak_mb = max(self.peak_mb, used_mb)


def _private_mb(process: psutil.Process) -> float:
    """Private memory of a process, 0 if it has ended. Mapped files, such as weights, are not counted."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0.0
    return float(memory.rss - getattr(memory, "shared", 0)) / 1e6  # macOS does not report shared memory


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds that a process has used; 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)

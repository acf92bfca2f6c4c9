"""Measuring in turn: rounds of A, B, A, B, medians, and the memory that each took."""

from __future__ import annotations

import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.networks.devices import give_back_freed_memory

__all__ = ["Timing", "in_turn", "ratio"]

IDLE_TICKS = 5  # hundredths of a second of a core: what a worker that waits may use meanwhile
SAMPLE_SECONDS = 0.1  # ten looks a second: more would show in what is measured


@dataclass
class Timing:
    """What one thing took.

    Attributes:
        seconds: wall-clock of each round.
        peak_mb: most anonymous memory in any round, MB: of this process beside what stood before it, and of those of its
            children that worked; 0 where the system does not tell (it is read from /proc).
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
    """Samples the anonymous memory of this process and of its children at work while a block runs."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._before = _anonymous_mb(self._own)
        # Workers of an earlier block stay for the next one: idle ones are no part of this block, busy ones are, whole.
        self._ticks = {child: _ticks(child) for child in _family(self._own)[1:]}
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
            busy = [
                process
                for process in _family(self._own)[1:]
                if _ticks(process) > self._ticks.get(process, -1) + IDLE_TICKS
            ]
            found = _anonymous_mb(self._own) - self._before + sum(map(_anonymous_mb, busy))
            self.peak_mb = max(self.peak_mb, found)


def _family(parent: int) -> list[int]:
    """A process and all below it."""
    found = [parent]
    for place in found:  # grows while it is walked
        try:
            for task in Path(f"/proc/{place}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _anonymous_mb(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


def _ticks(process: int) -> int:
    """Hundredths of a second of a core that a process has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime and stime of proc(5)

"""Voting against its floor: combining photos x 3 tasks x 5 folds from memory maps, and reading the same bytes once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.bench.timing import Timing, in_turn, ratio
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combiner
from orchestrator.core.files import require_free_space
from orchestrator.core.labels import CLASS_COUNTS
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.learning import plain_combiner

__all__ = ["VotingSpeed", "bench_voting"]

FOLDS = 5
TIMED = ("soft", "hard", "geometric")
"""Votes that are timed, as words of `--strategy`."""

CHUNK = 65536
"""Photos per chunk. Ten million photos took 0.25 s with 8,192, 0.17 s with this many, and no less with 131,072."""

THREADS = 2
"""Chunks at once: 0.12 s instead of 0.17 s for ten million photos on 2 cores, where one core reads them in 0.07 s and
two in 0.05 s. More would wait for the memory."""


@dataclass(frozen=True)
class VotingSpeed:
    """How fast answers are combined, beside reading them once.

    Attributes:
        photos: number of photos.
        gigabytes: size of their answers, 1e9 bytes.
        read_once: cost of reading the answers.
        combiners: combiner -> its cost.
    """

    photos: int
    gigabytes: float
    read_once: Timing
    combiners: Mapping[str, Timing]

    @property
    def efficiency(self) -> dict[str, float]:
        """Combiner -> its speed as a share of reading's, the median of all rounds."""
        return {name: ratio(self.read_once, timing) for name, timing in self.combiners.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos, "gigabytes": self.gigabytes, "read once": self.read_once.as_dict(),
            **{name: timing.as_dict() for name, timing in self.combiners.items()}, "efficiency": self.efficiency,
        }  # fmt: skip


def bench_voting(photos: int, rounds: int, done: Callable[[int, int], None]) -> list[VotingSpeed]:
    """Seconds, share of the memory's speed, and peak memory, for a tenth of the photos and all: memory must not grow.

    Args:
        photos: number of photos to combine.
        rounds: number of times that each vote is timed.
        done: called with (runs done, runs in all).
    """
    speeds: list[VotingSpeed] = []
    for number in (photos // 10, photos):
        with tempfile.TemporaryDirectory() as folder:
            bytes_a_photo = 4 * FOLDS * sum(CLASS_COUNTS.values())
            require_free_space(
                Path(folder),
                number * bytes_a_photo,
                f"{number:,} photos' probabilities",
                "Lower --votes, or set TMPDIR.",
            )
            answers = _answers(Path(folder), number)
            _read(answers)  # from the disk into the page cache
            functions: dict[str, Callable[[], None]] = {"read once": partial(_read, answers)}
            functions |= {name: partial(_combine, answers, plain_combiner(Strategy.parse(name))) for name in TIMED}
            timings = in_turn(functions, rounds, number, done)
            size = sum(array.nbytes for array in answers.probabilities)
        read_once = timings.pop("read once")
        speeds.append(VotingSpeed(number, size / 1e9, read_once, timings))
    return speeds


def _read(answers: Answers) -> None:
    for array in answers.probabilities:
        for start in range(0, len(array), CHUNK):
            array[start : start + CHUNK].max()


def _combine(answers: Answers, combiner: Combiner) -> None:
    """Votes chunk by chunk, so that memory does not grow with the number of photos."""

    def combined(start: int) -> None:
        combiner.combine(answers.take(slice(start, start + CHUNK)))

    with ThreadPoolExecutor(THREADS) as pool:  # NumPy releases the interpreter's lock in each of its loops
        for _ in pool.map(combined, range(0, len(answers), CHUNK)):
            pass


def _answers(folder: Path, photos: int) -> Answers:
    """Memory maps of random probabilities, float32."""
    rng = np.random.default_rng(0)
    voters: list[Voter] = []
    arrays: list[NDArray[np.float32]] = []
    for task, classes in CLASS_COUNTS.items():
        for fold in range(FOLDS):
            path = folder / f"{task}-{fold}.npy"
            array: Any = np.lib.format.open_memmap(path, "w+", np.float32, (photos, classes))
            for start in range(0, photos, 1 << 18):
                part = rng.random((min(1 << 18, photos - start), classes), np.float32) + np.float32(0.01)
                array[start : start + len(part)] = part / part.sum(axis=1, keepdims=True)
            array.flush()
            voters.append(Voter(task, f"{task}-0001", fold))
            arrays.append(np.asarray(np.load(path, mmap_mode="r")))  # slices of maps are slow
    return Answers(CLASS_COUNTS, photos, tuple(voters), tuple(arrays))

"""Voting against its floor: fusing photos x 3 tasks x 5 folds from memory maps, and reading the same bytes once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from orchestrator.bench.timing import in_turn, ratio
from orchestrator.data.files import free_room
from orchestrator.ensemble.voting import CHUNK, STRATEGIES, Strategy, fuse
from orchestrator.labels import CLASSES, TASKS

__all__ = ["bench_voting"]

FOLDS = 5
Tables = dict[str, list[NDArray[np.float32]]]


def bench_voting(photos: int, rounds: int, done: Callable[[int, int], None]) -> dict[str, Any]:
    """Seconds, share of the memory's pace, and memory, for a tenth of the photos and all of them: memory must stay the same.

    Args:
        photos: how many to fuse.
        rounds: how often each is timed.
        done: called with (runs done, runs in all).
    """
    found: dict[str, Any] = {}
    for number in (photos // 10, photos):
        with tempfile.TemporaryDirectory() as folder:
            bytes_a_photo = 4 * FOLDS * sum(len(CLASSES[task]) for task in TASKS)
            free_room(
                Path(folder),
                number * bytes_a_photo,
                f"{number:,} photos' probabilities",
                "Lower --votes, or set TMPDIR.",
            )
            by_task = _tables(Path(folder), number)
            _read(by_task)  # from the disk into the page cache
            things: dict[str, Callable[[], None]] = {"read once": partial(_read, by_task)}
            things |= {name: partial(_vote, by_task, name) for name in get_args(Strategy)}
            timings = in_turn(things, rounds, number, done)
            size = sum(member.nbytes for members in by_task.values() for member in members)
        found[str(number)] = {
            "photos": number, "gigabytes": size / 1e9,
            **{name: timing.as_dict() for name, timing in timings.items()},
            "efficiency": {name: ratio(timings["read once"], timings[name]) for name in STRATEGIES},
        }  # fmt: skip
    return found


def _read(by_task: Tables) -> None:
    for members in by_task.values():
        for member in members:
            for start in range(0, len(member), CHUNK):
                member[start : start + CHUNK].max()


def _vote(by_task: Tables, strategy: Strategy) -> None:
    for _ in fuse(by_task, strategy):
        pass


def _tables(folder: Path, photos: int) -> Tables:
    """Memory maps of random probabilities, float32."""
    rng = np.random.default_rng(0)
    found: Tables = {}
    for task in TASKS:
        for fold in range(FOLDS):
            path = folder / f"{task}-{fold}.npy"
            shape = (photos, len(CLASSES[task]))
            array: Any = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            for start in range(0, photos, 1 << 18):
                part = rng.random((min(1 << 18, photos - start), shape[1]), np.float32) + np.float32(0.01)
                array[start : start + len(part)] = part / part.sum(axis=1, keepdims=True)
            array.flush()
            found.setdefault(task, []).append(np.load(path, mmap_mode="r"))
    return found

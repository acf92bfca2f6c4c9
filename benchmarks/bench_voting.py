"""Decision: votes are summed on a grid of 2^-40 in float64 (order-free to the bit), a chunk at a time.

Fuses photos x 3 tasks x 5 folds from memory maps, and compares with the time to read the same bytes once. Prints seconds,
the ratio, and the peak of memory that NumPy allocated, for growing numbers of photos: it must stay the same.

    python benchmarks/bench_voting.py --photos 1000000 10000000
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from orchestrator.ensemble.voting import fuse
from orchestrator.labels import CLASSES, TASKS

FOLDS = 5


def tables(folder: Path, photos: int) -> dict[str, list[np.ndarray]]:
    """Memory maps of random probabilities, float32."""
    rng = np.random.default_rng(0)
    found: dict[str, list[np.ndarray]] = {}
    for task in TASKS:
        for fold in range(FOLDS):
            path = folder / f"{task}-{fold}.npy"
            shape = (photos, len(CLASSES[task]))
            array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            for start in range(0, photos, 1 << 18):
                part = rng.random((min(1 << 18, photos - start), shape[1]), np.float32) + 0.01
                array[start : start + len(part)] = part / part.sum(axis=1, keepdims=True)
            array.flush()
            found.setdefault(task, []).append(np.load(path, mmap_mode="r"))
    return found


def read_once(by_task: dict[str, list[np.ndarray]]) -> float:
    """Seconds to read every byte once, in the same chunks."""
    started = time.perf_counter()
    for members in by_task.values():
        for member in members:
            for start in range(0, len(member), 16_384):
                member[start : start + 16_384].max()
    return time.perf_counter() - started


def main() -> None:
    """Prints a line per number of photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--strategy", choices=["soft", "hard"], default="soft")
    options = parser.parse_args()
    for photos in options.photos:
        with tempfile.TemporaryDirectory() as folder:
            by_task = tables(Path(folder), photos)
            read_once(by_task)  # from the disk into the page cache
            reading = read_once(by_task)
            started = time.perf_counter()
            for _ in fuse(by_task, options.strategy):
                pass
            fusing = time.perf_counter() - started
            tracemalloc.start()
            for _ in fuse(by_task, options.strategy):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            size = sum(member.nbytes for members in by_task.values() for member in members)
            print(
                f"{photos:>12,} photos  {size / 1e9:5.2f} GB  fuse {fusing:6.2f} s  read once {reading:6.2f} s  "
                f"ratio {fusing / reading:5.1f}  peak {peak / 1e6:5.1f} MB"
            )


if __name__ == "__main__":
    main()

"""Photos of different people that look the same: one person under two names, or a copy that was saved again, leaks across folds.

Files with the same bytes are found by `check`; these differ in their bytes, by another size or compression. They are found by
perceptual hashes of 64 bits (pHash, package imagehash). Measured on 12,600 real photos of 1,800 people, all cropped alike: of 600
copies saved again, down to half the size and to quality 30, 599 differ in none or two bits and one in four; of 79 million
pairs of different people one differs in four bits, 61 in six, 488 in eight. So more than `MOST_BITS` finds strangers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.core.extras import import_optional
from orchestrator.data.geometry import Geometry
from orchestrator.data.preprocessing import decode

__all__ = ["MOST_BITS", "AlikePair", "alike_pairs", "perceptual_hashes"]

MOST_BITS = 2
BLOCK = 512
"""Photos that are held against all others at a time: 512 x 12,600 distances are 6 MB."""

SMALL = Geometry(128, 128, crop=1.0)
"""The middle of a photo, at a size that is quick to hash: the hash has 8 x 8 frequencies."""


@dataclass(frozen=True)
class AlikePair:
    """Two photos of different people that look the same.

    Attributes:
        first: number of a photo.
        second: number of another, higher.
        bits: number of bits in which their hashes differ, 0..64.
    """

    first: int
    second: int
    bits: int


def perceptual_hashes(
    paths: Sequence[Path], threads: int, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> NDArray[np.uint64]:
    """The perceptual hash of each photo, shape (N,).

    Args:
        paths: the photos.
        threads: number of threads that read.
        progress: callback that takes (photos done, photos in all).

    Raises:
        PhotoError: a photo cannot be read.
        ConfigError: the extra `alike` is not installed.
    """
    imagehash = import_optional("imagehash", "finding photos that look the same", "alike")
    from PIL import Image

    def hash_of(path: Path) -> int:
        bits = imagehash.phash(Image.fromarray(SMALL.apply(decode(path)))).hash
        return int("".join("1" if bit else "0" for bit in bits.ravel()), 2)

    hashes = np.zeros(len(paths), np.uint64)
    with ThreadPoolExecutor(threads) as pool:
        for number, value in enumerate(pool.map(hash_of, paths)):
            hashes[number] = value
            progress(number + 1, len(paths))
    return hashes


def alike_pairs(hashes: NDArray[np.uint64], persons: Sequence[object], most_bits: int = MOST_BITS) -> list[AlikePair]:
    """Pairs of photos of different people whose hashes differ in few bits, the most alike first.

    Args:
        hashes: the hash of each photo, shape (N,).
        persons: the person of each photo, shape (N,); photos of one are no pair.
        most_bits: in how many bits hashes may differ, 0..64.
    """
    people: NDArray[Any] = pd.factorize(np.array(persons, object))[0]
    numbers = np.arange(len(hashes))
    pairs = []
    for start in range(0, len(hashes), BLOCK):
        rows = numbers[start : start + BLOCK]
        bits = np.bitwise_count(hashes[rows, None] ^ hashes[None, start:])
        is_pair = (
            (bits <= most_bits) & (people[rows, None] != people[None, start:]) & (rows[:, None] < numbers[None, start:])
        )
        for row, column in zip(*np.nonzero(is_pair), strict=True):
            pairs.append(AlikePair(int(rows[row]), int(start + column), int(bits[row, column])))
    return sorted(pairs, key=lambda pair: (pair.bits, pair.first, pair.second))

"""Decode once: every photo at one geometry, uint8, memory-mapped, shared by all specialists, folds and epochs.

A store's name is the digest of its photos' paths, their content hashes and the geometry, so it can never be stale:
other photos or another geometry are another store. It is built under a temporary name and renamed when complete; a lock
file makes a second command wait for the first instead of building it again. Its pixels are checked against their hash
when a command opens it (about a second per gigabyte), and a damaged store is rebuilt.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orchestrator.core.errors import DamagedError, DataError, PhotoError, Problem, StoreError
from orchestrator.core.files import digest_of, remove_own_file, require_free_space, sha256_of
from orchestrator.core.sealed import check_file, read_sealed, write_sealed
from orchestrator.data.preprocessing import Box, Geometry, decode

__all__ = [
    "DirectPixels",
    "JoinedRows",
    "PixelSource",
    "PixelStore",
    "Rows",
    "build_stores",
    "intact_stores",
    "store_key",
]

log = logging.getLogger(__name__)

STORE_FORMAT, KIND = 2, "pixels"
ABOUT, PIXELS = "store.json", "pixels.npy"
Progress = Callable[[int, int], None]


class PixelSource(Protocol):
    """Pixels by row number of the table of photos."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of some rows, shape (n, H, W, 3), uint8."""


class Rows(Protocol):
    """Whatever a network is fed with, by row number of the table of photos."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The inputs of some rows, shape (n, ...)."""


class PixelStore:
    """A memory-mapped store, opened for reading.

    Args:
        path: the store's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pixels: NDArray[np.uint8] | None = None

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of some rows, shape (n, H, W, 3), uint8; opened at first use, so it travels between processes."""
        if self._pixels is None:
            self._pixels = np.load(self.path / PIXELS, mmap_mode="r")
        return self._pixels[rows]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_pixels": None}


class DirectPixels:
    """The same pixels without a store: each photo is decoded whenever it is asked for (`--no-store`).

    Args:
        paths: the photos, in the table's order.
        geometry: crop and size.
        faces: the box of each photo's face, or None; needed if the geometry crops around faces.
    """

    def __init__(self, paths: Sequence[Path], geometry: Geometry, faces: Sequence[Box | None] | None = None) -> None:
        self.paths = list(paths)
        self.geometry = geometry
        self.faces = _boxes([geometry], faces, len(self.paths))

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pixels of some rows, shape (n, H, W, 3), uint8.

        Raises:
            PhotoError: a photo cannot be decoded.
        """
        return np.stack([self.geometry.apply(decode(self.paths[row]), self.faces[row]) for row in rows])


class JoinedRows:
    """Two sources joined under one row numbering.

    Args:
        first: source of rows 0 to count - 1.
        count: number of rows of the first source.
        second: source of the rows from `count` on.
        second_rows: for each row from `count` on, its row number in the second source, shape (n,).
    """

    def __init__(self, first: Rows, count: int, second: Rows, second_rows: NDArray[np.int64]) -> None:
        self._first, self._count, self._second, self._second_rows = first, count, second, second_rows

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The inputs of some rows, shape (n, ...)."""
        in_first = rows < self._count
        if in_first.all():
            return self._first.take(rows)
        from_second = self._second.take(self._second_rows[rows[~in_first] - self._count])
        if not in_first.any():
            return from_second
        joined = np.empty((len(rows), *from_second.shape[1:]), from_second.dtype)
        joined[in_first], joined[~in_first] = self._first.take(rows[in_first]), from_second
        return joined


def store_key(relative: Sequence[str], content: Sequence[str], geometry: Geometry) -> str:
    """The name of a store: a digest of what is in it."""
    parts = {
        "format": STORE_FORMAT,
        "geometry": asdict(geometry),
        "photos": list(zip(relative, content, strict=True)),
    }
    return digest_of(parts)[:20]


def build_stores(
    folder: Path,
    paths: Sequence[Path],
    keys: dict[Geometry, str],
    threads: int,
    progress: Progress | None = None,
    faces: Sequence[Box | None] | None = None,
) -> dict[Geometry, PixelStore]:
    """Opens the stores of several geometries, and builds missing ones, decoding each photo once for all of them.

    Args:
        folder: folder of the stores, in the workspace.
        paths: the photos, in the table's order.
        keys: the name of each geometry's store, from `store_key`.
        threads: decoding threads (Pillow and OpenCV release the interpreter's lock).
        progress: called with (photos done, photos in all).
        faces: the box of each photo's face, or None; needed if a geometry crops around faces.

    Raises:
        StoreError: the disk has no room.
        DataError: photos that cannot be decoded, all named.
    """
    boxes = _boxes(keys, faces, len(paths))
    folder.mkdir(parents=True, exist_ok=True)
    stores = {geometry: PixelStore(folder / key) for geometry, key in keys.items()}
    with FileLock(folder / "build.lock"):
        missing = {
            geometry: keys[geometry]
            for geometry in stores
            if not _is_intact(stores[geometry].path, geometry, len(paths))
        }
        if missing:
            _build(folder, paths, boxes, missing, threads, progress or (lambda _done, _all: None))
    return stores


def _is_intact(path: Path, geometry: Geometry, photos: int) -> bool:
    """Whether an intact store exists; a damaged one is removed, since it can be rebuilt."""
    if not os.path.lexists(path):
        return False
    try:
        about = _about(path)
        if about["photos"] != photos or about["geometry"] != asdict(geometry):
            raise DamagedError(path / ABOUT, "of other photos or another geometry than its name says")
    except DamagedError as error:
        log.warning(f"{error.fact}: the photos are decoded again.")
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            remove_own_file(path)
        return False
    return True


def _about(path: Path) -> dict[str, Any]:
    """The contents of a store's record, after checking its pixels against their hash."""
    about = read_sealed(path / ABOUT, KIND, path.name, STORE_FORMAT, "")
    check_file(path / PIXELS, about["sha256"], "")
    return about


def intact_stores(folder: Path, geometries: Collection[Geometry]) -> dict[Geometry, tuple[PixelStore, int]]:
    """Intact stores in a folder, the largest of each geometry: geometry -> store and number of photos.

    The largest, since stores of extra photos may hold a single one.
    """
    stores: dict[Geometry, tuple[PixelStore, int]] = {}
    for path in sorted(folder.glob(f"*/{ABOUT}")):
        with suppress(DamagedError):
            geometry = Geometry(**read_sealed(path, KIND, path.parent.name, STORE_FORMAT, "")["geometry"])
            if geometry in geometries:
                photos = int(_about(path.parent)["photos"])
                if geometry not in stores or photos > stores[geometry][1]:
                    stores[geometry] = PixelStore(path.parent), photos
    return stores


def _boxes(geometries: Iterable[Geometry], faces: Sequence[Box | None] | None, photos: int) -> list[Box | None]:
    """Face boxes, one per photo; geometries around faces need them, or their crops would be wrong."""
    if faces is None and any(geometry.face for geometry in geometries):
        raise ValueError("a geometry around faces needs their boxes: find_boxes")
    return list(faces) if faces is not None else [None] * photos


def _build(
    folder: Path,
    paths: Sequence[Path],
    faces: Sequence[Box | None],
    keys: dict[Geometry, str],
    threads: int,
    progress: Progress,
) -> None:
    sizes = {geometry: len(paths) * geometry.height * geometry.width * 3 for geometry in keys}
    for left_over in folder.glob("*.building"):  # of a killed command: nobody else writes while we hold the lock
        shutil.rmtree(left_over, ignore_errors=True)
    require_free_space(
        folder, sum(sizes.values()), f"the pixel store of {len(paths):,} photos",
        "Free some room, choose another disk with --workspace, train smaller photos "
        "(--set TASK.height=... TASK.width=...), or train without a store (--no-store).",
    )  # fmt: skip
    problems: list[Problem] = []

    def pixels_of(row: int) -> list[NDArray[np.uint8]] | None:
        try:
            photo = decode(paths[row])
        except PhotoError as error:
            problems.append(error.problem("unreadable"))
            return None
        return [geometry.apply(photo, faces[row]) for geometry in keys]

    with _arrays(folder, keys, len(paths)) as arrays, ThreadPoolExecutor(threads) as pool:
        done = 0
        for start in range(0, len(paths), 256):  # limits how many decoded photos wait in memory
            part = range(start, min(start + 256, len(paths)))
            for row, pixels in zip(part, pool.map(pixels_of, part), strict=True):
                if pixels is not None:
                    for array, photo in zip(arrays, pixels, strict=True):
                        array[row] = photo
            done += len(part)
            progress(done, len(paths))
        if problems:
            raise DataError(f"{len(problems)} of {len(paths)} photos cannot be read.", problems)


@contextmanager
def _arrays(folder: Path, keys: dict[Geometry, str], photos: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Writable memory maps of new stores, which get their final names only if the block succeeds."""
    unfinished = {geometry: folder / f"{key}.building" for geometry, key in keys.items()}
    try:
        arrays: list[NDArray[np.uint8]] = []
        for geometry, path in unfinished.items():
            path.mkdir()
            shape = (photos, geometry.height, geometry.width, 3)
            array: Any = np.lib.format.open_memmap(path / PIXELS, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):
                # A write to a map on a full disk kills the process (SIGBUS); reserving the bytes first makes it an error.
                with (path / PIXELS).open("rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            arrays.append(array)
        yield arrays
        for array in arrays:
            array.flush()
        for geometry, path in unfinished.items():
            about = {"photos": photos, "geometry": asdict(geometry), "sha256": sha256_of(path / PIXELS)}
            write_sealed(path / ABOUT, KIND, keys[geometry], STORE_FORMAT, about)
            path.rename(folder / keys[geometry])
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(
                f"{folder}: the disk filled up while the pixel store was built. Free some room and run the same command "
                "again, or train without a store (--no-store)."
            ) from None
        raise
    finally:
        for path in unfinished.values():
            shutil.rmtree(path, ignore_errors=True)

"""Content hashes of photos: each file is read once, then recognised by path, size and times. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.core.errors import DamagedError, DataError, Problem
from orchestrator.core.files import remove_own_file, sha256_of
from orchestrator.core.sealed import read_sealed, write_sealed
from orchestrator.data.tables import unreadable

__all__ = ["HashCache"]

HASHES, HASHES_FORMAT = "hashes", 2


class HashCache:
    """Content hashes, remembered by (path, size, times of modification and of change) so that each file is read once.

    Photos are known by content, never by date: a copied folder is the same data, a replaced file is new data.
    The cache only saves reading; deleting it loses nothing.

    Args:
        path: JSON file of the cache; None: no cache.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def hashes(self, paths: Sequence[Path]) -> list[str]:
        """sha256 (hex) of each file.

        Raises:
            DataError: files that cannot be read, all at once.
        """
        digests = self._load()
        keys: list[str] = []
        problems: list[Problem] = []
        for path in paths:
            try:
                stat = path.stat()
                keys.append(f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}")
            except OSError as error:
                problems.append(Problem(str(path), unreadable(error), kind="missing_file"))
        if problems:
            raise DataError(f"{len(problems)} of {len(paths)} photos cannot be read.", problems)
        new = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in digests]
        if new:
            with ThreadPoolExecutor(8) as pool:  # hashing and reading release the interpreter's lock
                results = list(pool.map(_hash, [path for _, path in new]))
            failures = [result for result in results if isinstance(result, Problem)]
            if failures:
                raise DataError(f"{len(failures)} of {len(paths)} photos cannot be read.", failures)
            digests.update({key: str(digest) for (key, _), digest in zip(new, results, strict=True)})
            if self.path is not None:
                if self.path.is_dir():
                    remove_own_file(self.path)
                write_sealed(self.path, HASHES, HASHES, HASHES_FORMAT, {"hashes": digests})
        return [digests[key] for key in keys]

    def _load(self) -> dict[str, str]:
        if self.path is None:
            return {}
        try:
            return dict(read_sealed(self.path, HASHES, HASHES, HASHES_FORMAT, "")["hashes"])
        except DamagedError:
            return {}  # a damaged cache is an empty cache


def _hash(path: Path) -> str | Problem:
    try:
        return sha256_of(path)
    except OSError as error:
        return Problem(str(path), unreadable(error), kind="unreadable")

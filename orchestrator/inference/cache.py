"""The engines' cache: exports, results of checks and trials, and OpenVINO's compiled networks.

Each file is verified by its sha256 or its own digest. A file that is damaged or does not belong is deleted with a
warning and made again. The cache may be deleted at any time. Several processes may use it at once: a file is written and
its hash noted under one lock, and a file without a note is deleted under that lock only.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator.core.errors import DamagedError, first_line
from orchestrator.core.files import sha256_of
from orchestrator.core.sealed import read_sealed, write_sealed

__all__ = ["LOCK", "CacheFiles", "locked"]

log = logging.getLogger(__name__)

CACHE_FORMAT = 1
LOCK = "engines.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes and threads from changing the cache; a block may be within another of the same thread.

    Where this process may not write nothing is locked, and nothing is changed either.

    Args:
        folder: the cache folder, which is made.

    Raises:
        OSError: the folder cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        yield
        return
    with FileLock(folder / LOCK, is_singleton=True):  # one object for each folder counts the blocks of each thread
        yield


class CacheFiles:
    """The files of one folder of the cache.

    Args:
        folder: the cache folder, which need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hashes: dict[tuple[Path, int, int], str] = {}  # (path, size, mtime) -> hash: members share some files

    def notes(self, path: Path, kind: str) -> dict[str, Any]:
        """Contents of a sealed file of the cache; empty if it is missing, or damaged and so deleted."""
        if not os.path.lexists(path):
            return {}
        try:
            return read_sealed(path, kind, path.stem, CACHE_FORMAT, "")
        except DamagedError as error:
            why = error.what
        except OSError as error:
            why = first_line(error)
        self._drop(path, why)
        return {}

    def write_notes(self, path: Path, kind: str, body: Mapping[str, Any]) -> None:
        """Writes a sealed file of the cache."""
        write_sealed(path, kind, path.stem, CACHE_FORMAT, body)

    def is_whole(self, path: Path, sha256: str | None) -> bool:
        """Whether a file exists and is the one that was written; a changed one is deleted.

        Args:
            path: the file.
            sha256: the recorded hash; None if there is none, or the record was damaged.
        """
        if not os.path.lexists(path):
            return False
        if path.is_file() and sha256 is not None and self.sha256(path) == sha256:
            return True
        self._drop(path, "not the file that was written" if sha256 is not None else "its hash was not recorded")
        return False

    def sha256(self, path: Path) -> str:
        """The hash of a file, computed once while its size and time stay."""
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = sha256_of(path)
        return self._hashes[key]

    def _drop(self, path: Path, why: str) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        log.warning(f"{path}: {why}; it will be rebuilt.")

"""Atomic file writes, and hashes of file contents.

A crash, a kill or a full disk during a write leaves the old file (or none), never half of a new one.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from orchestrator.core.errors import StoreError, escape_non_utf8

__all__ = [
    "absolute_text",
    "aside_path",
    "atomic",
    "digest_of",
    "remove_own_file",
    "remove_temporaries",
    "require_free_space",
    "set_aside",
    "sha256_of",
    "share_file",
    "unsearchable_folder",
    "why_no_folder",
    "write_json",
]  # fmt: skip

DISK_MARGIN = 64 * 1024**2  # bytes left free for histories, cards and tables beside a big file


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; on success it is flushed to the disk and replaces `path`.

    Raises:
        StoreError: the disk filled up during the write; an existing file at `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
    # Not by tempfile, whose files only their owner can read: here the umask applies.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        temporary.chmod(permissions)  # safetensors replaces the file by one that only its owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))  # an existing file keeps its permissions
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        # For a full disk, safetensors and arrow raise their own errors, which contain the system's message.
        if (
            getattr(error, "errno", None) == errno.ENOSPC
            or "No space left" in str(error)
            or "os error 28" in str(error)
        ):
            raise StoreError(
                f"{path}: the disk is full; the file was not written and nothing was damaged. "
                "Free some room and run the same command again: it goes on from here."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def share_file(source: Path, path: Path) -> None:
    """Puts a hard link to `source` at `path`, or a copy where links are not possible; atomically."""
    temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.tmp"
    try:
        os.link(source, temporary)
    except OSError:
        with atomic(path) as copy:
            shutil.copyfile(source, copy)
        return
    try:
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:  # a rename between two links to one file does nothing
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def absolute_text(path: Path) -> str:
    """A path as stored in records: absolute, without `..`, so that it does not depend on the current folder."""
    return os.path.normpath(path.absolute())


def remove_temporaries(folder: Path) -> None:
    """Removes temporary files that killed commands left in a folder; the caller holds the folder's lock."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_own_file(path: Path) -> None:
    """Removes a file or link that orch wrote; a folder at this path is not orch's, and is set aside instead."""
    if path.is_dir() and not path.is_symlink():
        set_aside(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Sets a damaged file, link or folder aside under another name, so that nothing is lost.

    Returns:
        The new path, by `aside_path`; None if nothing exists at `path`.
    """
    if not os.path.lexists(path):
        return None
    aside = aside_path(path)
    path.rename(aside)
    return aside


def aside_path(path: Path) -> Path:
    """The path that a damaged file or folder is renamed to: its own plus `.damaged`, and a number if that exists."""
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, keys in the order given.

    Raises:
        ValueError: a number is not finite: JSON cannot express it, and other programs refuse the file.
    """
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    if escape_non_utf8(text) != text:  # a path that is not UTF-8
        text = json.dumps(value, indent=1, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def digest_of(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON: the same for equal values, whatever the order of keys."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's content.

    Raises:
        OSError: the file cannot be read, or is a pipe or a device, where reading may block forever.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder has its own error when it is opened
        raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_free_space(folder: Path, needed: int, subject: str, way_out: str) -> None:
    """Refuses a big write that cannot fit, before the first byte.

    Args:
        folder: an existing folder on the disk in question.
        needed: bytes.
        subject: what would be written, as the subject of the message.
        way_out: what the user can do besides freeing room.

    Raises:
        StoreError: less than `needed` bytes and a margin of 64 MB are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + DISK_MARGIN:
        raise StoreError(
            f"{folder}: {subject} needs {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free on this disk. {way_out}"
        )


def why_no_folder(path: Path) -> str:
    """What stands where a folder must be: a file, or a link to one or to nothing; empty if a folder is there, or nothing."""
    try:
        if not os.path.lexists(path) or path.is_dir():
            return ""
    except PermissionError:  # what is there may be a folder
        return ""
    reason = "not a folder"
    if path.is_symlink():
        reason = f"a link that leads {'to a file' if path.exists() else 'nowhere'} ({path.readlink()})"
    return f"{reason}, where a folder must be"


def unsearchable_folder(path: Path) -> Path | None:
    """The first folder on the way to a path that this user may not enter; None if there is none."""
    return next(
        (folder for folder in reversed(path.parents) if folder.exists() and not os.access(folder, os.X_OK)), None
    )

"""Sealed files: JSON with its kind, owner's id and format number, ending with a digest of all of it.

A workspace file that was truncated, edited, changed in one bit, or swapped with another of its kind is detected. Files
that belong to a sealed file (weights, tables) are checked by the sha256 stored in it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.commands import set_aside_command, shell_join
from orchestrator.core.errors import DamagedError
from orchestrator.core.files import digest_of, sha256_of, unsearchable_folder, write_json

__all__ = [
    "after_setting_aside", "check_file", "check_sealed", "damaged_error", "is_there", "read_sealed", "unreadable_error",
    "write_sealed",
]  # fmt: skip

NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Error numbers that mean that nothing is at a path; all others mean that it cannot be looked at."""

HEAD = ("format", "kind", "id")
NEVER_OVERWRITTEN = ("workspace", "run", "member")
"""Kinds whose older formats are never overwritten: only the version that wrote them can read the files around them."""

THAT_VERSION = "Use that version of orchestrator"


def write_sealed(path: Path, kind: str, name: str, version: int, body: Mapping[str, Any]) -> None:
    """Writes a sealed file atomically.

    Args:
        path: file to write.
        kind: kind of record, such as `run` or `plan`.
        name: id of its owner, unique among the files of this kind in the workspace.
        version: format number of the kind.
        body: JSON values by key; all numbers finite.
    """
    value = json.loads(json.dumps({"format": version, "kind": kind, "id": name, **body}, allow_nan=False))
    write_json(path, {**value, "digest": digest_of(value)})


def read_sealed(path: Path, kind: str, name: str | None, version: int, way_out: str) -> dict[str, Any]:
    """The body of a sealed file.

    Args:
        path: file to read.
        kind: expected kind.
        name: expected id; None accepts any id, and returns it in the body under the key `id`.
        version: expected format number.
        way_out: how to go on without the file, to complete a sentence after "Restore it; or".

    Raises:
        DamagedError: the file is missing, not a file, not JSON, changed, of another kind or id, or of another format.
    """
    value = _parsed(path, way_out)
    if value["format"] != version and not _is_sealed(
        {**value, "format": version}
    ):  # otherwise only the number is damaged
        age = "a newer" if value["format"] > version else "an older"
        what = f"written in format {value['format']} by {age} version; this one reads {version}"
        if age == "a newer" or kind in NEVER_OVERWRITTEN:  # a command that goes on without it must not overwrite it
            way_out = f"{THAT_VERSION}, or choose another workspace (--workspace)."
            raise DamagedError(path, what, way_out, replaceable=False)
        raise DamagedError(path, what, f"{THAT_VERSION}; or {way_out}" if way_out else "")
    _check_digest(path, value, way_out)
    if value.get("kind") != kind or name not in (None, value.get("id")):
        expected = f"the {kind} '{name}'" if name else f"a {kind}"
        raise damaged_error(
            path, f"holds the {value.get('kind')} '{value.get('id')}', and must hold {expected}", way_out
        )
    return {key: item for key, item in value.items() if key not in HEAD or (key == "id" and name is None)}


def check_sealed(path: Path, name: str, way_out: str) -> None:
    """Checks that a sealed file is unchanged, whatever its kind and format.

    Raises:
        DamagedError: the file was changed, or has another id.
    """
    value = _parsed(path, way_out)
    _check_digest(path, value, way_out)
    if value.get("id") != name:
        raise damaged_error(path, f"of '{value.get('id')}', and must be of '{name}'", way_out)


def _parsed(path: Path, way_out: str) -> dict[str, Any]:
    """A sealed file's JSON: an object with a format number and a digest."""
    text = _text(path, way_out)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise damaged_error(path, f"not readable as JSON ({error}): it was damaged or edited", way_out) from None
    if not isinstance(value, dict) or not isinstance(value.get("format"), int) or "digest" not in value:
        raise damaged_error(path, "not written by this version of orch: it has no format number or no digest", way_out)
    return value


def _check_digest(path: Path, value: dict[str, Any], way_out: str) -> None:
    """Removes the digest from a file's values and checks them against it."""
    if not _is_sealed(value):
        raise damaged_error(path, "its contents do not match the digest in it: it was damaged or edited", way_out)
    del value["digest"]


def _is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether a file's values match the digest among them."""
    body = {key: item for key, item in value.items() if key != "digest"}
    try:
        return bool(digest_of(body) == value["digest"])
    except ValueError:  # a number too large for JSON, which was written as 1e999
        return False


def check_file(path: Path, sha256: str, way_out: str) -> None:
    """Checks a file against its recorded hash.

    Raises:
        DamagedError: the file is missing, not a file, or another one.
    """
    try:
        problem = _why_no_file(path)
        digest = "" if problem else sha256_of(path)
    except OSError as error:
        raise unreadable_error(path, error) from None
    if problem:
        raise damaged_error(path, problem, way_out)
    if digest != sha256:
        raise damaged_error(
            path, f"not the file that was written (sha256 {digest[:12]}, on record {sha256[:12]})", way_out
        )


def damaged_error(path: Path, what: str, way_out: str) -> DamagedError:
    """The error for a file that is not the one that was written, with the way out.

    Args:
        path: damaged file.
        what: description of the fault, without a full stop.
        way_out: how to go on without it, to complete a sentence after "Restore it; or".
    """
    return DamagedError(path, what, f"Restore it; or {way_out}" if way_out else "")


def after_setting_aside(path: Path, next_step: str) -> str:
    """A way out that first sets a file aside, if it exists.

    Args:
        path: file to set aside.
        next_step: what to do then, to complete the sentence.
    """
    return f"`{set_aside_command(path)}`, then {next_step}" if os.path.lexists(path) else next_step


def _text(path: Path, way_out: str) -> str:
    try:
        problem = _why_no_file(path)
        if not problem:
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise damaged_error(path, "not a text file: it was damaged", way_out) from None
    except OSError as error:
        raise unreadable_error(path, error) from None
    raise damaged_error(path, problem, way_out)


def is_there(path: Path) -> bool:
    """Whether a regular file exists at a path.

    Raises:
        DamagedError: its folder may not be entered.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)  # Path.is_file hides a closed folder from Python 3.14 on
    except OSError as error:
        if error.errno in NOTHING_THERE:
            return False
        raise unreadable_error(path, error) from None


def unreadable_error(path: Path, error: OSError) -> DamagedError:
    """The error for a file that cannot be read: it may be intact, so it must not be replaced."""
    closed_folder = unsearchable_folder(path)
    allow = shell_join(["chmod", "u+rw", path] if closed_folder is None else ["chmod", "u+rwx", closed_folder])
    return DamagedError(
        path, f"cannot be read ({error.strerror})", f"Allow it (`{allow}`), or restore it.", replaceable=False
    )


def _why_no_file(path: Path) -> str:
    """Why no file can be read at a path; empty if one can."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in NOTHING_THERE:
            raise
        return f"a link that leads nowhere ({path.readlink()})" if path.is_symlink() else "missing"
    if stat.S_ISDIR(mode):
        return "a folder, where a file must be"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")

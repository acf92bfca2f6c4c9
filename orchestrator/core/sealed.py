"""Sealed files: JSON that says what it is, whose it is and of which format, and ends with a digest of all of it.

A file of the workspace that was truncated, edited, flipped in one bit, or put in the place of its like is told from the one that
was written. What lies beside a sealed file (weights, tables) is known by the sha256 that the sealed file holds.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.commands import set_aside
from orchestrator.core.errors import DamagedError
from orchestrator.core.files import digest_of, sha256_of, write_json

__all__ = ["check_file", "check_sealed", "closed", "damaged", "is_there", "read_sealed", "without", "write_sealed"]

HEAD = ("format", "kind", "id")
KEPT = ("workspace", "run", "member")
"""Kinds of which a record of an older format is kept as it is: only the version that wrote it reads what lies around it."""

THAT_VERSION = "Use that version of orchestrator"


def write_sealed(path: Path, kind: str, name: str, version: int, body: Mapping[str, Any]) -> None:
    """Writes a sealed file atomically.

    Args:
        path: the file.
        kind: what it is, `run` or `plan`.
        name: whose it is: unlike that of any other file of the kind in the workspace.
        version: of the kind's format.
        body: JSON values by key; numbers are finite.
    """
    value = json.loads(json.dumps({"format": version, "kind": kind, "id": name, **body}, allow_nan=False))
    write_json(path, {**value, "digest": digest_of(value)})


def read_sealed(path: Path, kind: str, name: str | None, version: int, way_out: str) -> dict[str, Any]:
    """The body of a sealed file.

    Args:
        path: the file.
        kind: what it must be.
        name: whose it must be; None takes anybody's, and the body then tells whose, by the key `id`.
        version: the format that is read.
        way_out: how to do without the file: the rest of a sentence that begins with "Restore it; or".

    Raises:
        DamagedError: it is missing, no file, no JSON, not as it was written, something else's, or of another format.
    """
    value = _parsed(path, way_out)
    if value["format"] != version:
        age = "a newer" if value["format"] > version else "an older"
        what = f"written in format {value['format']} by {age} version; this one reads {version}"
        if age == "a newer" or kind in KEPT:  # not to be written over by whoever does without it
            way_out = f"{THAT_VERSION}, or choose another workspace (--workspace)."
            raise DamagedError(path, what, way_out, replaceable=False)
        raise DamagedError(path, what, f"{THAT_VERSION}; or {way_out}" if way_out else "")
    _check_digest(path, value, way_out)
    if value.get("kind") != kind or name not in (None, value.get("id")):
        wanted = f"the {kind} '{name}'" if name else f"a {kind}"
        raise damaged(path, f"holds the {value.get('kind')} '{value.get('id')}', and must hold {wanted}", way_out)
    return {key: item for key, item in value.items() if key not in HEAD or (key == "id" and name is None)}


def check_sealed(path: Path, name: str, way_out: str) -> None:
    """Looks whether a sealed file is as it was written, whatever its kind and format.

    Raises:
        DamagedError: it is not, or somebody else's.
    """
    value = _parsed(path, way_out)
    _check_digest(path, value, way_out)
    if value.get("id") != name:
        raise damaged(path, f"of '{value.get('id')}', and must be of '{name}'", way_out)


def _parsed(path: Path, way_out: str) -> dict[str, Any]:
    """A sealed file's JSON: an object with a format number and a digest."""
    text = _text(path, way_out)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise damaged(path, f"not readable as JSON ({error}): it was damaged or edited", way_out) from None
    if not isinstance(value, dict) or not isinstance(value.get("format"), int) or "digest" not in value:
        raise damaged(path, "not written by this version of orch: it has no format number or no digest", way_out)
    return value


def _check_digest(path: Path, value: dict[str, Any], way_out: str) -> None:
    """Takes the digest out of a file's values, which must match it."""
    digest = value.pop("digest")
    if digest_of(value) != digest:
        raise damaged(path, "its contents do not match the digest in it: it was damaged or edited", way_out)


def check_file(path: Path, sha256: str, way_out: str) -> None:
    """Holds a file to the hash that was written down for it.

    Raises:
        DamagedError: it is missing, no file, or another one.
    """
    try:
        problem = _no_file(path)
        found = "" if problem else sha256_of(path)
    except OSError as error:
        raise closed(path, error) from None
    if problem:
        raise damaged(path, problem, way_out)
    if found != sha256:
        raise damaged(path, f"not the file that was written (sha256 {found[:12]}, on record {sha256[:12]})", way_out)


def damaged(path: Path, what: str, way_out: str) -> DamagedError:
    """The error for a file that is not what was written: it names the file, and a way out that works as it stands.

    Args:
        path: the file.
        what: is wrong with it, without a full stop.
        way_out: how to do without it: the rest of a sentence that begins with "Restore it; or".
    """
    return DamagedError(path, what, f"Restore it; or {way_out}" if way_out else "")


def without(path: Path, what: str) -> str:
    """A way out that takes a file out of the way first.

    Args:
        path: the file, there or not.
        what: comes then, as the rest of a sentence.
    """
    return f"`{set_aside(path)}`, then {what}" if os.path.lexists(path) else what


def _text(path: Path, way_out: str) -> str:
    try:
        problem = _no_file(path)
        if not problem:
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise damaged(path, "no text: it was damaged", way_out) from None
    except OSError as error:
        raise closed(path, error) from None
    raise damaged(path, problem, way_out)


def is_there(path: Path) -> bool:
    """Whether a file is there.

    Raises:
        DamagedError: its folder may not be looked into.
    """
    try:
        return path.is_file()
    except PermissionError as error:
        raise closed(path, error) from None


def closed(path: Path, error: OSError) -> DamagedError:
    """The error for a file that cannot be read: it may be whole, so nothing takes its place."""
    shut = next((place for place in reversed(path.parents) if not os.access(place, os.X_OK)), None)
    allow = shlex.join(["chmod", "u+rw", str(path)] if shut is None else ["chmod", "u+rwx", str(shut)])
    return DamagedError(
        path, f"cannot be read ({error.strerror})", f"Allow it (`{allow}`), or restore it.", replaceable=False
    )


def _no_file(path: Path) -> str:
    """Why there is no file to read; empty where there is one."""
    if path.is_symlink() and not path.exists():
        return f"a link that leads nowhere ({path.readlink()})"
    if not path.exists():
        return "missing"
    if path.is_dir():
        return "a folder, where a file must be"
    return "" if path.is_file() else "no plain file"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")

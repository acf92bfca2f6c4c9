"""Finds the files that tables name, in whatever Unicode form the disk spells them, or says why a file cannot be found.

A name typed on one machine is composed (NFC), and the same file's name on another decomposed (NFD). Asking about a path
never raises here: a name that is too long, or in a folder without permission, is a file that cannot be opened.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from orchestrator.core.errors import DataError
from orchestrator.data.spelling import clean

__all__ = ["check_contest", "check_eval", "contest_table", "find_file", "is_file", "is_folder", "why_no_file"]


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False also if that cannot be determined."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also if that cannot be determined."""
    try:
        return path.is_dir()
    except OSError:
        return False


def contest_table(folder: Path) -> Path:
    """The table of a folder in the contest's layout: `train.csv`, here or in the folder's `train/`; it need not exist."""
    below = folder / "train" / "train.csv"
    return below if is_file(below) and not is_file(folder / "train.csv") else folder / "train.csv"


def find_file(folder: Path, name: str) -> str | None:
    """The name of a file or folder as the disk spells it: composed, decomposed, or mixed; None if it does not exist.

    Spaces around the name are ignored, unless the name on disk has them.

    Args:
        folder: folder to search.
        name: a relative path with `/`, or an absolute one.
    """
    cleaned = clean(name)
    if not cleaned:
        return None
    forms = [] if name.isascii() else [unicodedata.normalize(form, cleaned) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys((name, cleaned, *forms)):
        if os.path.lexists(folder / spelling):
            return spelling
    if name.isascii():
        return None
    path = Path()
    for part in Path(cleaned).parts:
        parent = folder / path
        on_disk = (
            part
            if os.path.lexists(parent / part)
            else _spellings(parent, _changed(parent)).get(unicodedata.normalize("NFC", part))
        )
        if on_disk is None:
            return None
        path /= on_disk
    return str(path)


def why_no_file(folder: Path, name: str) -> str:
    """Why there is no file to open, as a sentence with a hint; empty if there is one."""
    path = folder / name
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return ""
        return f"{name} is {'a folder' if is_folder(path) else 'not a regular file'}."
    except PermissionError:
        return f"no permission to look for {name}."
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            return f"no file can have a name this long: {name[:60]}..."
    if path.is_symlink():
        return f"{name} is a link that leads nowhere ({path.readlink()})."
    slashes = name.replace("\\", "/")
    if slashes != name and is_file(folder / slashes):
        return f"no file {name}; there is {slashes}: write / between folders."
    spellings = _spellings(path.parent, _changed(path.parent)).values()
    other_case = next((name for name in spellings if name.lower() == path.name.lower()), "")
    return f"no file {name}." + (f" There is '{other_case}', which differs in case." if other_case else "")


@lru_cache(maxsize=64)
def _spellings(folder: Path, _when: int) -> Mapping[str, str]:
    """Composed name -> name on disk, for all entries of a folder; its change time (ns) is part of the cache key."""
    try:
        return {unicodedata.normalize("NFC", entry.name): entry.name for entry in os.scandir(folder)}
    except OSError:
        return {}


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def check_contest(folder: Path) -> Path:
    """The table of a folder in the contest's layout, as `contest_table` finds it; no file is read.

    Raises:
        DataError: it does not exist.
    """
    table = contest_table(folder)
    if not os.path.lexists(table):
        raise DataError(
            f"{table}: no such file. Give the folder that holds {table.name} and images/, or a manifest (.csv, .parquet)."
        )
    return table


def check_eval(folder: Path) -> Path:
    """The folder that holds info.csv and images/: `folder`, its eval/, or its parent if it is images/; no file is read.

    Raises:
        DataError: none of them holds info.csv.
    """
    if folder.is_file():
        raise DataError(f"{folder}: is a file. Give the folder that holds info.csv and images/.")
    candidates = [folder, folder / "eval", *([folder.parent] if folder.name == "images" else [])]
    for candidate in candidates:
        if os.path.lexists(candidate / "info.csv"):
            return candidate
    raise DataError(f"{folder / 'info.csv'}: no such file. Give the folder that holds info.csv and images/.")

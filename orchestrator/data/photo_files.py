"""Finds photos among files and folders, by their endings; opens none."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from orchestrator.core.errors import DataError, Problem, printable, quantity
from orchestrator.core.files import unsearchable_folder
from orchestrator.data.places import is_file, is_folder

__all__ = ["find_photos"]

log = logging.getLogger(__name__)

SHOWN_KINDS = 6  # of files that are no photos


def find_photos(places: Iterable[Path]) -> list[Path]:
    """The photos of files and folders, in order, each once.

    Files given by name are photos whatever their suffix. Folders are searched recursively, without following links to
    folders; hidden files are skipped, and so are files without a photo's suffix, which is logged.

    Args:
        places: paths of files and folders.

    Raises:
        DataError: a path is missing or not readable, or there is no photo at all.
    """
    found: dict[Path, None] = {}
    problems: list[Problem] = []
    for place in places:
        if is_folder(place):
            inside, left_out, linked = _search(place, problems)
            found |= dict.fromkeys(inside)
            if left_out:
                shown = left_out.most_common(SHOWN_KINDS)
                rest = left_out.total() - sum(number for _, number in shown)
                suffixes = ", ".join(
                    f"{number:,} {kind}" for kind, number in [*shown, *([("of other kinds", rest)] if rest else [])]
                )
                log.info(f"{place}: {quantity(left_out.total(), 'file')} skipped, not photos: {suffixes}.")
            if linked:
                log.info(f"{place}: {quantity(linked, 'linked folder')} left out: links to folders are not followed.")
        elif os.path.lexists(place) or unsearchable_folder(place) is not None:
            found[place] = None  # of any kind: decoding reports what is wrong with it
        else:
            problems.append(Problem(str(place), "no such file or folder."))
    if problems:
        raise DataError(f"{quantity(len(problems), 'place')} of those given cannot be read.", problems)
    if not found:
        from orchestrator.data.decoding import SUFFIXES  # with numpy and Pillow, which a mistyped path does not need

        raise DataError(
            f"no photos found in {', '.join(map(str, places)) or 'nothing'}; looked for files ending in "
            f"{', '.join(SUFFIXES)}. A file given by name is read whatever its ending."
        )
    return list(found)


def _search(folder: Path, problems: list[Problem]) -> tuple[list[Path], Counter[str], int]:
    """The photos below a folder, sorted; numbers of other files, by ending; number of linked folders.

    Folders that cannot be read are added to `problems`.
    """
    from orchestrator.data.decoding import SUFFIXES

    found: list[Path] = []
    left_out: Counter[str] = Counter()
    linked = 0

    def closed(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"cannot be searched ({error.strerror})."))

    for root, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += sum(Path(root, name).is_symlink() for name in folders)
        for name in files:
            path = Path(root, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                left_out[printable(path.suffix.lower()) or "without an ending"] += 1
            elif is_file(path) or path.is_symlink():
                found.append(path)  # a link that leads nowhere is reported when it is opened
            else:
                left_out["not a regular file"] += 1
    return sorted(found), left_out, linked

"""Finds photos among files and folders by their suffixes, without opening them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from orchestrator.core.errors import DataError, Problem, printable, quantity
from orchestrator.core.files import unsearchable_folder
from orchestrator.data.paths import is_file, is_folder

__all__ = ["check_some_photo", "find_photos"]

log = logging.getLogger(__name__)

SHOWN_KINDS = 6  # kinds of other files that a message names


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """The photos of files and folders, in order, each once.

    Files given by name are photos whatever their suffix. Folders are searched recursively, without following links to
    folders; hidden files are skipped, and so are files without a photo's suffix, whose number is logged.

    Args:
        paths: paths of files and folders.

    Raises:
        DataError: a path is missing or not readable, or there is no photo at all.
    """
    photos: dict[Path, None] = {}
    problems: list[Problem] = []
    for path in paths:
        if is_folder(path):
            inside, left_out, linked = _search(path, problems)
            photos |= dict.fromkeys(inside)
            if left_out:
                shown = left_out.most_common(SHOWN_KINDS)
                rest = left_out.total() - sum(number for _, number in shown)
                suffixes = ", ".join(
                    f"{number:,} {kind}" for kind, number in [*shown, *([("of other kinds", rest)] if rest else [])]
                )
                log.info(f"{path}: {quantity(left_out.total(), 'file')} skipped, not photos: {suffixes}.")
            if linked:
                log.info(f"{path}: {quantity(linked, 'linked folder')} left out: links to folders are not followed.")
        elif os.path.lexists(path) or unsearchable_folder(path) is not None:
            photos[path] = None  # of any kind: decoding reports what is wrong with it
        else:
            problems.append(Problem(str(path), "no such file or folder."))
    if problems:
        raise DataError(f"{quantity(len(problems), 'path')} of those given cannot be read.", problems)
    if not photos:
        from orchestrator.data.decoding import SUFFIXES  # with numpy and Pillow, which a mistyped path does not need

        raise DataError(
            f"no photos found in {', '.join(map(str, paths)) or 'nothing'}; looked for files ending in "
            f"{', '.join(SUFFIXES)}. A file given by name is read whatever its ending."
        )
    return list(photos)


def check_some_photo(paths: Iterable[Path]) -> None:
    """Refuses files of which none is a photo, such as a table or a recipe given for photos; the first photo ends the look.

    Raises:
        DataError: none is; says what each of them is.
    """
    from orchestrator.data.decoding import FORMATS, UndecodableError, size_of

    problems: list[Problem] = []
    for path in paths:
        try:
            size_of(path)
            return
        except UndecodableError as error:
            problems.append(Problem(str(path), str(error), kind=error.kind))
    raise DataError(
        f"nothing to read: no photo ({', '.join(FORMATS)}) among the {quantity(len(problems), 'file')} given.", problems
    )


def _search(folder: Path, problems: list[Problem]) -> tuple[list[Path], Counter[str], int]:
    """The photos below a folder, sorted; the number of other files by suffix; the number of linked folders.

    Folders that cannot be read are added to `problems`.
    """
    from orchestrator.data.decoding import SUFFIXES

    photos: list[Path] = []
    left_out: Counter[str] = Counter()
    linked = 0

    def report_unreadable(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"cannot be searched ({error.strerror})."))

    for root, folders, files in os.walk(folder, onerror=report_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += sum(Path(root, name).is_symlink() for name in folders)
        for name in files:
            path = Path(root, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                left_out[printable(path.suffix.lower()) or "without an ending"] += 1
            elif is_file(path) or path.is_symlink():
                photos.append(path)  # a link that leads nowhere is reported when it is opened
            else:
                left_out["not a regular file"] += 1
    return sorted(photos), left_out, linked

"""Face boxes, one per photo: detected once, cached by content and detector, shared by all folds and specialists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from orchestrator.core.cores import one_thread
from orchestrator.core.errors import DamagedError, DataError, PhotoError, Problem
from orchestrator.core.files import remove_own_file
from orchestrator.core.sealed import read_sealed, write_sealed
from orchestrator.data.preprocessing import DETECTOR, Box, decode

__all__ = ["find_boxes"]

SAVED_EVERY = 2000  # photos; a kill loses at most half a minute of work
BOXES_FORMAT, KIND = 2, "boxes"


def find_boxes(
    folder: Path,
    paths: Sequence[Path],
    content: Sequence[str],
    threads: int,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Box | None]:
    """The face's box in every photo, from the cache if it is there.

    Args:
        folder: folder in the workspace's cache.
        paths: photo files.
        content: sha256 of each photo.
        threads: number of photos at once.
        progress: callback that takes (photos done, photos to search).

    Returns:
        For each photo its box, or None where no face was found.

    Raises:
        ConfigError: the detector is not installed.
        DataError: photos that cannot be decoded, all named.
    """
    cache = folder / f"{DETECTOR}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "boxes.lock"):
        boxes = _read(cache)
        missing = {digest: path for digest, path in zip(content, paths, strict=True) if digest not in boxes}
        if missing:
            _find(cache, boxes, missing, threads, progress)
    return [boxes[digest] for digest in content]


def _find(
    cache: Path,
    boxes: dict[str, Box | None],
    missing: dict[str, Path],
    threads: int,
    progress: Callable[[int, int], None],
) -> None:
    from orchestrator.faces.detection import detector

    finder, problems = detector(), list[Problem]()

    def look(path: Path) -> Box | None:
        try:
            return finder.find(decode(path))
        except PhotoError as error:
            problems.append(error.problem("unreadable"))
            return None

    items = list(missing.items())
    with ThreadPoolExecutor(threads, initializer=one_thread) as pool:
        for start in range(0, len(items), 64):
            part = items[start : start + 64]
            part_boxes = pool.map(look, [path for _, path in part])
            boxes.update(zip((digest for digest, _ in part), part_boxes, strict=True))
            done = start + len(part)
            progress(done, len(items))
            if not problems and (done % SAVED_EVERY < 64 or done == len(items)):
                _write(cache, boxes)
    if problems:
        raise DataError(f"{len(problems)} of {len(items)} photos cannot be read.", problems)


def _read(path: Path) -> dict[str, Box | None]:
    try:
        boxes = read_sealed(path, KIND, DETECTOR, BOXES_FORMAT, "")["boxes"]
    except DamagedError:
        return {}  # a damaged cache is an empty cache
    return {content: tuple(box) if box else None for content, box in boxes.items()}


def _write(path: Path, boxes: dict[str, Box | None]) -> None:
    """Writes the cache; a photo without a face gets null."""
    if path.is_dir():
        remove_own_file(path)
    write_sealed(path, KIND, DETECTOR, BOXES_FORMAT, {"boxes": boxes})

"""From photos to answers: finding photos, choosing engines, asking the members. Tables of answers are written by answers.py."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.combining import COLUMN
from orchestrator.core.errors import DataError, Problem, StoreError, counted, printable
from orchestrator.core.labels import CLASSES, LABELS, TASKS
from orchestrator.data.decoding import SUFFIXES
from orchestrator.data.places import is_file, is_folder
from orchestrator.inference.options import FEW_PHOTOS

if TYPE_CHECKING:
    from orchestrator.inference.cascade import Cascade
    from orchestrator.inference.choice import Chosen
    from orchestrator.inference.predictor import Batch, Predictor
    from orchestrator.inference.reader import Photo, Prepared

__all__ = ["OnEngines", "Prediction", "choose_engines", "find_photos", "predict_photos"]

log = logging.getLogger(__name__)


SHOWN_KINDS = 6  # of files that are no photos


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo.

    Attributes:
        path: the photo.
        label: 0..17, or None when the photo could not be read.
        name: the label in words.
        strategy: how the answers were combined.
        shares: task -> class -> mean probability of a soft vote, or share of the votes in a hard one.
        agreement: the smallest share, over the tasks, of voters that chose the winning class: 1 when all agree.
        error: why the photo could not be read; empty otherwise.
        asked: how many members answered for it; all, unless a cascade settled the vote early.
        face_found: whether a face was found to crop around; None where no member crops around faces.
        changed_by_external: whether tables from elsewhere gave it another label than the members alone would; None without such
            tables.
    """

    path: Path
    label: int | None
    name: str
    strategy: str
    shares: dict[str, dict[str, float]]
    agreement: float
    error: str = ""
    asked: int = 0
    face_found: bool | None = None
    changed_by_external: bool | None = None

    @property
    def classes(self) -> dict[str, str]:
        """Task -> the class in words; empty when the photo could not be read."""
        return {} if self.label is None else dict(zip(TASKS, self.name.split(" / "), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `probabilities` of a soft vote, `shares` of a hard one, which are no probabilities."""
        return {
            "path": str(self.path), "label": self.label, "name": self.name, "agreement": self.agreement,
            "probabilities" if COLUMN[self.strategy] == "p" else "shares": self.shares,
            "asked": self.asked, "face_found": self.face_found, "changed_by_external": self.changed_by_external,
            "error": self.error or None,
        }  # fmt: skip


def find_photos(places: Iterable[Path]) -> list[Path]:
    """The photos of files and folders, in order, each once.

    Files that are named are photos whatever they are called. Folders are searched deeply, links to folders not followed; hidden
    files are left out, and so are files that are not called like photos, which is told.

    Args:
        places: files and folders.

    Raises:
        DataError: a place is not there or may not be read, or there is no photo at all.
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
                told = ", ".join(
                    f"{number:,} {kind}" for kind, number in [*shown, *([("of other kinds", rest)] if rest else [])]
                )
                log.info(f"{place}: {counted(left_out.total(), 'file')} left out as no photos: {told}.")
            if linked:
                log.info(f"{place}: {counted(linked, 'linked folder')} left out: links to folders are not followed.")
        elif os.path.lexists(place):
            found[place] = None  # whatever it is: who decodes it has the sentence
        else:
            problems.append(Problem(str(place), "no such file or folder."))
    if problems:
        raise DataError(f"{counted(len(problems), 'place')} of those given cannot be read.", problems)
    if not found:
        raise DataError(
            f"no photos found in {', '.join(map(str, places)) or 'nothing'}; looked for files ending in "
            f"{', '.join(SUFFIXES)}. A file that is named itself is read whatever its ending."
        )
    return list(found)


def _search(folder: Path, problems: list[Problem]) -> tuple[list[Path], Counter[str], int]:
    """The photos below a folder, sorted; how many files of each ending are none; how many folders are links.

    Folders that are closed are problems.
    """
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
                found.append(path)  # a link that leads nowhere is told by who opens it
            else:
                left_out["no plain file"] += 1
    return sorted(found), left_out, linked


@dataclass(frozen=True)
class OnEngines:
    """A predictor on the engines that were chosen.

    Attributes:
        predictor: of the same members.
        chosen: for each kind of network; empty where they stay on torch as they were loaded.
        known: what reading the first photos gave, for whoever reads them next.
    """

    predictor: Predictor
    chosen: Sequence[Chosen] = ()
    known: Sequence[Prepared | str] = ()


def choose_engines(
    predictor: Predictor,
    photos: Sequence[Photo],
    engine: str,
    exact: bool,
    cache: Path,
    exporting: Callable[[int, int], None] = lambda _done, _all: None,
    more: bool = False,
) -> OnEngines:
    """Puts the members on an engine for these photos; the first readable ones serve to check and to try.

    Args:
        predictor: the members.
        photos: the photos to come.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        exact: leave out precisions below fp32.
        cache: folder for exports and trials.
        exporting: called with (exports written, exports to write).
        more: there will be others, nobody knows how many: the engine with the best rate is worth its exports.

    Raises:
        EngineError: the engine asked for cannot run a member or gives other answers than torch.
    """
    few = not more and len(photos) <= FEW_PHOTOS
    if not exact and (engine == "torch" or (engine == "auto" and few)):
        return OnEngines(predictor)  # torch, as loaded
    from orchestrator.faces.boxes import one_thread
    from orchestrator.inference.choice import in_fp32, put_on_engines
    from orchestrator.inference.export import CHECK_PHOTOS

    if exact:
        predictor = replace(predictor, runtime=in_fp32(predictor.runtime))
    known: list[Prepared | str] = []
    sample: list[Prepared] = []
    with ThreadPoolExecutor(
        1, initializer=one_thread
    ) as reading:  # as prediction reads: a face's box may depend on threads
        for photo in photos:
            known.append(reading.submit(predictor.reader.read, photo).result())
            sample += [photo for photo in known[-1:] if not isinstance(photo, str)]
            if len(sample) == CHECK_PHOTOS:
                break
    if not sample:
        return OnEngines(predictor, (), known)
    try:
        runtime, chosen = put_on_engines(
            predictor.runtime, sample, None if more else len(photos), engine, exact, cache, exporting
        )
    except (OSError, StoreError):
        if engine != "auto":
            raise
        return OnEngines(predictor, (), known)  # a cache that cannot be written is no reason to fail
    return OnEngines(replace(predictor, runtime=runtime), chosen, known)


def predict_photos(
    predictor: Predictor,
    photos: Sequence[Photo],
    mark_errors: bool,
    done: Callable[[int, int], None],
    batch_size: int = 0,
    cascade: Cascade | None = None,
    known: Sequence[Prepared | str] = (),
) -> list[Prediction]:
    """Answers for photos, in order.

    Args:
        predictor: the members.
        photos: files, bytes, or decoded pixels.
        mark_errors: put a row without a label where a photo cannot be read, instead of raising.
        done: called with (photos done, photos in all).
        batch_size: photos at a time; bounds the memory. 0 chooses by the number of cores.
        cascade: when a vote is settled and nobody else is asked; None asks everybody.
        known: what reading the first photos has given already.

    Raises:
        DataError: photos cannot be read, and `mark_errors` is off.
    """
    from orchestrator.inference.predictor import name_of

    answers: list[Prediction] = []
    for batch in predictor.predict(photos, mark_errors, batch_size, cascade, known):
        numbers = range(len(answers), len(answers) + len(batch.order))
        names = [Path(name_of(photos[number], number)) for number in numbers]
        answers += _predictions(batch, predictor.combiner.name, names)
        done(len(answers), len(photos))
    return answers


def _predictions(batch: Batch, strategy: str, paths: Sequence[Path]) -> list[Prediction]:
    asked = [] if batch.answers is None else batch.answers.asked().tolist()
    changed = batch.changed_by_external
    answers = []
    for number, (path, row) in enumerate(zip(paths, batch.order, strict=True)):
        if row < 0 or batch.combined is None:
            answers.append(Prediction(path, None, "", strategy, {}, 0.0, batch.failed[number]))
            continue
        decisions, label = batch.combined.decisions, int(batch.combined.label[row])
        shares = {
            task: {name: round(float(decisions[task].shares[row, code]), 6) for code, name in enumerate(CLASSES[task])}
            for task in TASKS
        }
        agreement = min(float(decisions[task].agreement[row]) for task in TASKS)
        answers.append(
            Prediction(
                path, label, LABELS[label], strategy, shares, round(agreement, 4), asked=asked[row],
                face_found=batch.faces[row], changed_by_external=None if changed is None else bool(changed[row]),
            )
        )  # fmt: skip
    return answers

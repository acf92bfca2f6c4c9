"""Exporting an ensemble: one ONNX file per member, a card that says how to use them, and a program that does."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from orchestrator import __version__, combining
from orchestrator.core.errors import ConfigError, Mistakes, quantity
from orchestrator.core.files import atomic, digest_of, sha256_of, write_json
from orchestrator.core.interrupts import uninterrupted
from orchestrator.core.labels import CLASSES, LABELS, TASKS
from orchestrator.data import decoding
from orchestrator.data.preprocessing import DETECTOR, Geometry
from orchestrator.data.store import intact_stores
from orchestrator.inference.options import EXPORT_CARD, UNFINISHED_EXPORT, UNFINISHED_MARK

if TYPE_CHECKING:
    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.inference.engines import Pixels
    from orchestrator.inference.export import Exports
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.shared_backbone import Split

__all__ = ["PROGRAM", "Exported", "check_export", "export_ensemble"]

log = logging.getLogger(__name__)

EXPORT_FORMAT = 4
FEW_PHOTOS = 16
"""A check on fewer photos than this shows little."""

PROGRAM_PHOTOS = 8
"""Photos on which the program itself is run."""

PROGRAM = "predict.py"
HOW = (
    "Decode a photo to upright RGB. For each member: take the largest box of the shape height x width that fits into the "
    "photo, times `crop`, centred across, with the share `anchor` of the rows left over above it; where `face` is above 0 "
    "and a face is found, the box of that shape around the face and its margin instead. Resize it (areas averaged when it "
    "shrinks, linear when it grows) to height x width. Feed uint8 pixels (n, height, width, 3) as `photos`; `probabilities`"
    " (n, classes) come back. A member of task `joint` answers with labels: sum them up to each task's classes. {combined} "
    f"The label is a number whose digits are the tasks' classes, in the order of `tasks`. {PROGRAM} does all this."
)


@dataclass(frozen=True)
class Exported:
    """An export that was written, and how close its files are to torch.

    Attributes:
        ensemble: id of the ensemble.
        folder: its folder.
        differences: file -> largest difference of a probability from torch's.
        photos: number of photos that each file was checked on.
    """

    ensemble: str
    folder: Path
    differences: dict[str, float]
    photos: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def check_export(
    record: EnsembleRecord,
    geometries: Sequence[Geometry],
    store: Path,
    photos: Sequence[Path],
) -> None:
    """Rejects what cannot be exported; loads no member.

    Args:
        record: the ensemble's record.
        geometries: its members' geometries, by their cards.
        store: the workspace's pixel stores.
        photos: photos to check on.

    Raises:
        ConfigError: external tables vote, or there are no photos to check on; both at once.
    """
    mistakes = Mistakes()
    if record.external:
        names = ", ".join(table.name for table in record.external)
        mistakes.add(
            ConfigError(
                f"{names}: an export holds networks; without external tables {record.id} would give other answers. "
                "Export an ensemble built without --with."
            )
        )
    if any(geometry.face for geometry in geometries) and not photos:
        mistakes.add(
            ConfigError(
                "members crop around faces, and the exported detector is checked on photos. Give some: --photos DIR."
            )
        )
    elif not photos and set(geometries) - set(intact_stores(store, geometries)):
        mistakes.add(
            ConfigError(
                "exports are checked on photos, and the workspace keeps no pixels at the members' sizes. Give some: --photos DIR."
            )
        )
    mistakes.raise_if_any()


def export_ensemble(
    predictor: Predictor,
    ensemble: str,
    folder: Path,
    cache: Path,
    store: Path,
    photos: Sequence[Path] = (),
    done: Callable[[int, int], None] = lambda _done, _all: None,
) -> Exported:
    """Writes an ensemble's members as ONNX files, checked against torch, with a card and a program that answers with them.

    Args:
        predictor: the ensemble's members, accepted by `check_export`.
        ensemble: its id.
        folder: a new or empty folder, or one that an export made.
        cache: folder for exports.
        store: the workspace's pixel stores, for photos to check on where none are given.
        photos: photos to check on.
        done: called with (members exported, members to export).

    Raises:
        ConfigError: none of the photos to check on can be read.
        EngineError: a network cannot be exported, or its export gives other answers than torch; or the program does.
    """
    from orchestrator.inference.detector import write_detector
    from orchestrator.inference.engines import Engine
    from orchestrator.inference.export import Exports
    from orchestrator.inference.program_check import check_program
    from orchestrator.inference.shared_backbone import unshared

    sample, sample_photos = _sample(predictor, store, photos)
    if (count := min(map(len, sample.values()))) < FEW_PHOTOS:
        log.warning(
            f"checked on {quantity(count, 'photo')} alone, which shows little: give {FEW_PHOTOS} or more (--photos DIR)."
        )
    exports = Exports(cache)
    splits = [unshared(member) for member in predictor.members]  # one file a member, simple to feed
    exports.make(splits, done)
    exports.check(splits, Engine("onnx"), lambda member: sample[member.preprocess.geometry])
    combiner = replace(predictor.combiner, people=None)  # the program answers photo by photo
    if predictor.combiner.people is not None:
        log.warning("the exported program answers each photo alone: it does not know who is on them.")
    with _staged(folder) as staging:
        members = [_write_member(staging, split, exports, sample[split.member.preprocess.geometry]) for split in splits]
        programs = _write_programs(staging)
        detector: dict[str, Any] = {}
        if any(geometry.face for geometry in predictor.reader.geometries):
            files = write_detector(staging, photos)
            programs.append("finding.py")
            detector = {"name": DETECTOR, "files": files, "sha256": {name: sha256_of(staging / name) for name in files}}
        card = {
            "format": EXPORT_FORMAT, "ensemble": ensemble, "combiner": combiner.as_dict(),
            "how": HOW.format(combined=combiner.how),
            "tasks": [{"name": task, "classes": list(CLASSES[task])} for task in TASKS], "labels": list(LABELS),
            "members": members, **({"detector": detector} if detector else {}),
            "programs": {name: sha256_of(staging / name) for name in programs},
            "made_by": {
                "orchestrator": __version__, **{name: version(name) for name in ("torch", "onnx", "onnxscript")},
            },
        }  # fmt: skip
        write_json(staging / EXPORT_CARD, {**card, "digest": digest_of(card)})
        with TemporaryDirectory() as scratch:
            check_program(
                staging / PROGRAM, predictor, sample_photos[:PROGRAM_PHOTOS] or _as_files(sample, Path(scratch))
            )
    differences = {member["file"]: member["difference_from_torch"] for member in members}
    return Exported(ensemble, folder, differences, count)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder inside an export's; its files take the place of an earlier export's once the block ends without an error.

    The card comes last. Until then an earlier one stands beside files that it does not name, which its program refuses; without
    an earlier one, the folder inside says that an export was begun here (`check_export_folder`).
    """
    staging = folder / UNFINISHED_EXPORT
    with _alone(folder):
        shutil.rmtree(staging, ignore_errors=True)
        new_folders = [part for part in (folder, *folder.parents) if not part.exists()]
        staging.mkdir(parents=True)
        (staging / UNFINISHED_MARK).touch()
        try:
            yield staging
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # somebody else put something in
                for new in new_folders:
                    new.rmdir()
            raise
        uninterrupted(partial(_swap, staging, folder))


def _swap(staging: Path, folder: Path) -> None:
    """Moves the files of a finished export to their places, the card last, and removes those of the earlier one."""
    before = _files_of(folder)
    names = _files_of(staging) | {PROGRAM}
    for name in [*sorted(names), EXPORT_CARD]:
        (folder / name).parent.mkdir(exist_ok=True)
        (staging / name).replace(folder / name)
    for name in before - names:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(staging)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other commands from exporting into a folder; the lock lies elsewhere, since the folder is given away.

    Raises:
        ConfigError: another command is exporting there.
    """
    lock = FileLock(Path(gettempdir()) / f"orch-export-{digest_of(os.path.realpath(folder))[:16]}.lock", mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"--out {folder}: another orch command is exporting there. Wait for it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _write_member(folder: Path, split: Split, exports: Exports, pixels: Pixels) -> dict[str, Any]:
    """Copies a member's file out of the cache, and returns its entry in the card."""
    from orchestrator.inference.engines import Engine

    member, engine = split.member, Engine("onnx")
    name = f"{member.name.replace('/', '-')}.onnx"
    with atomic(folder / name) as temporary:
        shutil.copyfile(exports.path(split.tail), temporary)
    return {
        "file": name, "task": member.task, "votes_in": list(member.tasks), "run": member.run, "fold": member.fold,
        **asdict(member.preprocess.geometry), "backbone": member.backbone,
        "sha256": sha256_of(folder / name), "weights_sha256": member.sha256,
        "difference_from_torch": exports.difference(split, engine, pixels),
        "checked_on_photos": exports.photos(split, engine),
    }  # fmt: skip


def _write_programs(folder: Path) -> list[str]:
    """Copies the program and the modules that it imports, which import nothing of the rest; returns the modules' names."""
    package = Path(str(combining.__file__)).parent
    sources = {PROGRAM: Path(__file__).with_name("standalone.py")}
    sources |= {name: Path(str(decoding.__file__)).with_name(name) for name in ("decoding.py", "geometry.py")}
    sources |= {f"{package.name}/{path.name}": path for path in sorted(package.glob("*.py"))}
    (folder / package.name).mkdir(exist_ok=True)
    for name, source in sources.items():
        with atomic(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    return [name for name in sources if name != PROGRAM]


def _as_files(sample: Mapping[Geometry, Pixels], folder: Path) -> list[Path]:
    """Some photos of a sample as files: the program reads files, and the store keeps pixels alone."""
    from PIL import Image

    paths = []
    for number, pixels in enumerate(next(iter(sample.values()))[:PROGRAM_PHOTOS]):
        paths.append(folder / f"{number}.png")  # a format that keeps every pixel
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _files_of(folder: Path) -> set[str]:
    """The files that an export's card names; none where there is no card, or a damaged one."""
    try:
        card = json.loads((folder / EXPORT_CARD).read_text(encoding="utf-8"))
        names = {member["file"] for member in card["members"]} | {
            *card["programs"],
            *card.get("detector", {}).get("files", ()),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    inside = {name for name in names if isinstance(name, str) and not Path(name).is_absolute()}
    return {name for name in inside if ".." not in Path(name).parts}


def _sample(predictor: Predictor, store: Path, photos: Sequence[Path]) -> tuple[dict[Geometry, Pixels], Sequence[Path]]:
    """Photos to check on, at every geometry of the members, and their files; none where they come from the store."""
    from orchestrator.inference.export import CHECK_PHOTOS
    from orchestrator.inference.reader import Prepared

    if photos:
        results = ((path, predictor.reader.read(path)) for path in photos)
        read = list(islice(((path, photo) for path, photo in results if isinstance(photo, Prepared)), CHECK_PHOTOS))
        if not read:
            raise ConfigError(f"--photos: none of the {len(photos)} photos can be read.")
        pixels_of = {
            geometry: np.stack([photo.pixels[geometry] for _, photo in read])
            for geometry in predictor.reader.geometries
        }
        return pixels_of, [path for path, _ in read]
    stores = intact_stores(store, predictor.reader.geometries)
    sample = {}
    for geometry in predictor.reader.geometries:
        pixels, count = stores[geometry]
        rows = np.unique(np.linspace(0, count - 1, CHECK_PHOTOS).astype(np.int64))
        sample[geometry] = pixels.take(rows)
    return sample, ()

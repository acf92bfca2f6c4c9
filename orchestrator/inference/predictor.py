"""Photos in, answers out: read (reader.py), asked about (runtime.py), combined, a batch at a time while the next is decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.core.errors import DataError, Problem
from orchestrator.core.stages import Stages
from orchestrator.faces.boxes import one_thread
from orchestrator.inference.cascade import Cascade
from orchestrator.inference.engines import Runner
from orchestrator.inference.member import Member
from orchestrator.inference.options import check_cascade
from orchestrator.inference.reader import Photo, Prepared, Reader, reader_of, stacked
from orchestrator.inference.runtime import Pending, Runtime, start_runtime

if TYPE_CHECKING:
    from orchestrator.ensembling.external import ExternalTable

__all__ = ["Batch", "Predictor", "name_of", "start_predictor"]

BATCH = 64


@dataclass(frozen=True)
class Batch:
    """Answers for a stretch of photos.

    Attributes:
        photos: the n photos that were read, in order.
        answers: of every member, then of external tables, for these; None when no photo of the stretch could be read.
        combined: one answer for each; None likewise.
        failed: number of a photo within the stretch -> why it could not be read.
        order: for every photo of the stretch, its row in `answers`, or -1 when it failed.
        faces: for each photo that was read, whether a face was found to crop around; None where none was looked for.
        changed_by_external: for each, whether external tables gave it another label than the members alone would, shape (n,);
            None without such tables.
    """

    photos: list[Photo]
    answers: Answers | None
    combined: Combined | None
    failed: dict[int, str]
    order: list[int]
    faces: list[bool | None]
    changed_by_external: NDArray[np.bool_] | None = None


def _reason(result: Prepared | str) -> str | None:
    """Why a photo cannot be read; None where it can."""
    return result if isinstance(result, str) else None


def name_of(photo: Photo, number: int) -> str:
    """What a photo is called: its path, or its number where it has none."""
    return str(photo) if isinstance(photo, Path) else f"photo {number}"


@dataclass(frozen=True, eq=False)
class Predictor:
    """An ensemble at work.

    Attributes:
        reader: from photos to pixels.
        runtime: from pixels to answers.
        combiner: how answers become one.
        external: tables from elsewhere that answer too.
        external_weights: task -> how much each of them counts beside single members.
    """

    reader: Reader
    runtime: Runtime
    combiner: Combiner
    external: tuple[ExternalTable, ...] = ()
    external_weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is asked."""
        return self.runtime.members

    def on(self, runners: Sequence[Runner]) -> Predictor:
        """The same ensemble with its members on other runners."""
        return replace(self, runtime=self.runtime.on(runners))

    def timed(self, stages: Stages) -> Predictor:
        """The same ensemble, telling where the time goes."""
        return replace(self, reader=replace(self.reader, stages=stages), runtime=replace(self.runtime, stages=stages))

    def close(self) -> None:
        """Ends its threads, when the calls under way are done; `with` does so too."""
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def predict(
        self,
        photos: Sequence[Photo],
        skip_unreadable: bool = False,
        batch: int = 0,
        cascade: Cascade | None = None,
        known: Sequence[Prepared | str] = (),
    ) -> Iterator[Batch]:
        """Answers for photos, a batch at a time, in order; the next batches are decoded and begun meanwhile.

        What was begun is given up where the caller stops asking. OpenCV is told to use one thread, in all of this process: photos
        are decoded side by side.

        Args:
            photos: as they come.
            skip_unreadable: report photos that cannot be read in `failed` instead of raising.
            batch: photos at a time; bounds the memory. 0: `BATCH`, or enough to keep all cores busy.
            cascade: when a vote is settled and nobody else is asked; None asks everybody.
            known: what reading the first photos has given already.

        Raises:
            DataError: photos cannot be read, and `skip_unreadable` is off.
            ConfigError: a cascade over members that answer for several tasks.
            WorkspaceError: a member answers with what is no number.
        """
        import cv2  # after torch: short of address space torch says so, and OpenCV ends the process

        cv2.setNumThreads(1)
        photos = [Path(photo) if isinstance(photo, str | os.PathLike) else photo for photo in photos]
        runtime = self.runtime
        if cascade is not None:
            check_cascade([member.task for member in self.members], self.external)
        batch = batch or self._batch_size(cascade)
        names = [name_of(photo, number) for number, photo in enumerate(photos)]
        # All at once: whether a name means one photo does not depend on batches.
        rows = [
            np.where([isinstance(photo, Path) for photo in photos], table.rows(names), -1) for table in self.external
        ]
        starts = range(0, len(photos), batch)
        # On a CPU decoding shares the members' threads; a GPU's single thread must not wait for it.
        with ThreadPoolExecutor(runtime.threads, initializer=one_thread) as decoders:
            pool = runtime.pool if runtime.device == "cpu" else decoders
            ahead: deque[list[Future[Prepared | str]]] = deque()
            begun: deque[tuple[int, list[Prepared | str], Pending | None]] = deque()
            try:
                for number, start in enumerate(starts):
                    while len(ahead) < 2 and number + len(ahead) < len(starts):
                        first = starts[number + len(ahead)]
                        ahead.append(self._reading(pool, photos, range(first, min(first + batch, len(photos))), known))
                    results = [future.result() for future in ahead.popleft()]
                    if not skip_unreadable and any(isinstance(result, str) for result in results):
                        # The others are read for their reasons alone: the pixels of a large folder would fill the memory.
                        reasons = [_reason(result) for result in results]
                        while ahead:
                            reasons += [_reason(future.result()) for future in ahead.popleft()]
                        rest = photos[start + len(reasons) :]
                        reasons += pool.map(lambda photo: _reason(self.reader.read(photo)), rest)
                        self._refuse(names, start, reasons)
                    prepared = [result for result in results if not isinstance(result, str)]
                    pending = runtime.begin(stacked(prepared), cascade, self.combiner) if prepared else None
                    begun.append((start, results, pending))
                    if len(begun) > 1:  # one batch is always under way while another is waited for
                        yield self._answer(photos, rows, *begun.popleft())
                while begun:
                    yield self._answer(photos, rows, *begun.popleft())
            finally:  # an error, or a caller who goes away: nobody waits for the rest
                for futures in ahead:
                    for future in futures:
                        future.cancel()
                for _, _, pending in begun:
                    if pending is not None:
                        pending.cancel()

    def _batch_size(self, cascade: Cascade | None) -> int:
        """Photos at a time: a stretch of them is one call for each team, and there are threads to fill."""
        runtime = self.runtime
        enough = runtime.stretch(cascade) * -(-runtime.threads // len(runtime.teams(cascade)))
        return max(BATCH, enough if runtime.device == "cpu" else 0)

    def _reading(
        self, pool: ThreadPoolExecutor, photos: Sequence[Photo], numbers: range, known: Sequence[Prepared | str]
    ) -> list[Future[Prepared | str]]:
        """Begins to read some photos; what is known of them already is at hand at once."""
        found = []
        for number in numbers:
            if number < len(known):
                future: Future[Prepared | str] = Future()
                future.set_result(known[number])
            else:
                future = pool.submit(self.reader.read, photos[number])
            found.append(future)
        return found

    def _refuse(self, names: Sequence[str], start: int, reasons: Sequence[str | None]) -> None:
        """Names every photo that cannot be read."""
        failed = [Problem(names[start + row], reason) for row, reason in enumerate(reasons) if reason is not None]
        raise DataError(
            f"{len(failed)} of {len(names)} photos cannot be read; with --on-error mark their rows stay empty.", failed
        )

    def _answer(
        self,
        photos: Sequence[Photo],
        rows: Sequence[NDArray[np.int64]],
        start: int,
        results: Sequence[Prepared | str],
        pending: Pending | None,
    ) -> Batch:
        """Combines what was asked about a stretch.

        Args:
            photos: all of them.
            rows: for each external table its rows for all photos.
            start: number of the stretch's first photo.
            results: of reading the stretch.
            pending: the members' answers to those that were read; None where none was.
        """
        there = np.flatnonzero([not isinstance(result, str) for result in results])
        failed = {row: result for row, result in enumerate(results) if isinstance(result, str)}
        order = np.full(len(results), -1)
        order[there] = np.arange(len(there))
        read = [photos[start + row] for row in there.tolist()]
        if pending is None:
            return Batch(read, None, None, failed, order.tolist(), [])
        answers, changed = pending.answers(), None
        with self.runtime.stages("vote"):
            of_members = answers
            for table, its in zip(self.external, rows, strict=True):
                answers = answers.beside(table.answers(its[start + there], self.external_weights))
            combined = self.combiner.combine(answers)
            if self.external:
                changed = self.combiner.combine(of_members).label != combined.label
        faces = [result.face_found for result in results if not isinstance(result, str)]
        return Batch(read, answers, combined, failed, order.tolist(), faces, changed)


def start_predictor(
    members: Sequence[Member],
    combiner: Combiner,
    device: str = "cpu",
    threads: int = 0,
    sharing: bool = True,
    external: Sequence[ExternalTable] = (),
    external_weights: Mapping[str, float] | None = None,
) -> Predictor:
    """A predictor of members on torch; arguments and errors as of `start_runtime`, `reader_of` and `Predictor`."""
    runtime = start_runtime(members, device, threads, sharing)
    return Predictor(reader_of(members), runtime, combiner, tuple(external), external_weights or {})

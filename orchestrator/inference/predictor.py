"""The predictor: reads photos (read_ahead.py), runs members (runtime.py) and combines, while the next batch is decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.core.errors import DataError, Problem
from orchestrator.core.stages import Stages
from orchestrator.inference.cascade import Cascade
from orchestrator.inference.engines import Runner
from orchestrator.inference.member import Member
from orchestrator.inference.options import check_cascade
from orchestrator.inference.read_ahead import ReadAhead
from orchestrator.inference.reader import Photo, Prepared, Reader, ReadResult, reader_of, stacked
from orchestrator.inference.runtime import RunningCalls, Runtime, start_runtime

if TYPE_CHECKING:
    from orchestrator.ensembling.external import ExternalTable

__all__ = ["Batch", "Predictor", "name_of", "start_predictor"]

BATCH = 64


@dataclass(frozen=True)
class Batch:
    """Answers for a batch of photos.

    Attributes:
        photos: the n photos that were read, in order.
        answers: answers of every member, then of external tables; None if no photo of the batch could be read.
        combined: one answer per photo that was read; None if none was.
        failed: index of a photo in the batch -> why it could not be read.
        order: for every photo of the batch, its row in `answers`, or -1 if it failed.
        faces: for each photo that was read, whether a face was found to crop around; None if none was looked for.
        changed_by_external: for each photo that was read, whether external tables changed its label, shape (n,); None
            without external tables.
    """

    photos: list[Photo]
    answers: Answers | None
    combined: Combined | None
    failed: dict[int, str]
    order: list[int]
    faces: list[bool | None]
    changed_by_external: NDArray[np.bool_] | None = None


def _cancel(running: Iterable[tuple[int, list[ReadResult], RunningCalls | None]]) -> None:
    """Cancels calls that have not begun."""
    for _, _, pending in running:
        if pending is not None:
            pending.cancel()


def name_of(photo: Photo, number: int) -> str:
    """What a photo is called: its path, or its number where it has none."""
    return str(photo) if isinstance(photo, Path) else f"photo {number}"


@dataclass(frozen=True, eq=False)
class Predictor:
    """An ensemble that is loaded for prediction.

    Attributes:
        reader: from photos to pixels.
        runtime: from pixels to answers.
        combiner: how answers become one.
        external: external tables that also vote.
        external_weights: task -> weight of each of these tables, in units of one member's.
    """

    reader: Reader
    runtime: Runtime
    combiner: Combiner
    external: tuple[ExternalTable, ...] = ()
    external_weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def members(self) -> tuple[Member, ...]:
        """The ensemble's members."""
        return self.runtime.members

    def on(self, runners: Sequence[Runner]) -> Predictor:
        """The same ensemble with its members on other runners."""
        return replace(self, runtime=self.runtime.on(runners))

    def timed(self, stages: Stages) -> Predictor:
        """The same ensemble, with the time of each stage added to `stages`."""
        return replace(self, reader=replace(self.reader, stages=stages), runtime=replace(self.runtime, stages=stages))

    def close(self) -> None:
        """Ends its threads after the running calls; `with` does so too."""
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
        known: Sequence[ReadResult] = (),
        way_out: str = "replace or remove them",
    ) -> Iterator[Batch]:
        """Predicts photos batch by batch, in order; the next batches are decoded and started meanwhile.

        If the caller stops iterating, started batches are cancelled.

        Args:
            photos: paths, bytes of files, or decoded pixels.
            skip_unreadable: report photos that cannot be read in `failed` instead of raising.
            batch: photos per batch, which bounds the memory; 0: `BATCH`, or enough to keep all cores busy.
            cascade: the rule that stops asking about a photo; None: ask all members.
            known: results of reading the first photos.
            way_out: what to do about photos that cannot be read, to complete an error's sentence.

        Raises:
            DataError: photos cannot be read, and `skip_unreadable` is off.
            ConfigError: a cascade over members that answer for several tasks.
            WorkspaceError: a member's answers are NaN or infinite.
        """
        photos = [Path(photo) if isinstance(photo, str | os.PathLike) else photo for photo in photos]
        runtime = self.runtime
        if cascade is not None:
            check_cascade([member.task for member in self.members], self.external)
        batch = batch or self._batch_size(cascade)
        names = [name_of(photo, number) for number, photo in enumerate(photos)]
        # For all photos at once: matching by name must not depend on batches.
        rows = [
            np.where([isinstance(photo, Path) for photo in photos], table.rows(names), -1) for table in self.external
        ]
        with ExitStack() as stack:
            reading = ReadAhead(self.reader, runtime.readers, photos, batch, known)
            batches = stack.enter_context(closing(reading.batches()))
            running: deque[tuple[int, list[ReadResult], RunningCalls | None]] = deque()
            stack.callback(_cancel, running)  # after an error, or if the caller stops iterating
            for start, results in batches:
                prepared = [result for result in results if isinstance(result, Prepared)]
                if len(prepared) < len(results) and not skip_unreadable:
                    reasons = reading.reasons(start, results)
                    failed = [Problem(names[number], reason) for number, reason in reasons.items()]
                    raise DataError(f"{len(failed)} of {len(names)} photos cannot be read; {way_out}.", failed)
                pending = runtime.begin(stacked(prepared), cascade, self.combiner) if prepared else None
                running.append((start, results, pending))
                if len(running) > 1:  # one batch is always under way while another is waited for
                    yield self._answer(photos, rows, *running.popleft())
            while running:
                yield self._answer(photos, rows, *running.popleft())

    def _batch_size(self, cascade: Cascade | None) -> int:
        """Photos per batch: each chunk makes one call per team, and all threads need work."""
        runtime = self.runtime
        enough = runtime.chunk_size(cascade) * -(-runtime.threads // len(runtime.teams(cascade)))
        return max(BATCH, enough if runtime.device == "cpu" else 0)

    def _answer(
        self,
        photos: Sequence[Photo],
        rows: Sequence[NDArray[np.int64]],
        start: int,
        results: Sequence[ReadResult],
        pending: RunningCalls | None,
    ) -> Batch:
        """Combines the answers for a batch.

        Args:
            photos: the photos of all batches.
            rows: for each external table, its row for each of these photos.
            start: index of the batch's first photo.
            results: results of reading the batch.
            pending: the members' answers for the photos that were read; None if none was.
        """
        read_rows = np.flatnonzero([not isinstance(result, str) for result in results])
        failed = {row: result for row, result in enumerate(results) if isinstance(result, str)}
        order = np.full(len(results), -1)
        order[read_rows] = np.arange(len(read_rows))
        read = [photos[start + row] for row in read_rows.tolist()]
        if pending is None:
            return Batch(read, None, None, failed, order.tolist(), [])
        answers, changed = pending.answers(), None
        with self.runtime.stages("vote"):
            of_members = answers
            for table, table_rows in zip(self.external, rows, strict=True):
                answers = answers.with_voters(table.answers(table_rows[start + read_rows], self.external_weights))
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
    """A predictor of members on torch; arguments and errors as in `start_runtime`, `reader_of` and `Predictor`."""
    runtime = start_runtime(members, device, threads, sharing)
    return Predictor(reader_of(members), runtime, combiner, tuple(external), external_weights or {})

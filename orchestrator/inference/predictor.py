"""The predictor: reads photos (read_ahead.py), runs members (runtime.py) and combines, while the next batch is decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.core.arguments import check_range, check_sequence
from orchestrator.core.errors import ConfigError, DataError, Problem, check_choice
from orchestrator.core.stages import UNTIMED, Stages
from orchestrator.ensembling.external import ExternalRows, ExternalTable
from orchestrator.inference.cascade import Cascade
from orchestrator.inference.engines import Runner
from orchestrator.inference.member import Member
from orchestrator.inference.options import ON_ERROR, check_cascade
from orchestrator.inference.read_ahead import ReadAhead
from orchestrator.inference.reader import Photo, Prepared, Reader, ReadResult, Unreadable, as_photo, reader_of, stacked
from orchestrator.inference.results import Predictions, predictions_of
from orchestrator.inference.runtime import RunningCalls, Runtime, start_runtime

__all__ = ["Batch", "Predictor", "start_predictor"]

BATCH = 64


@dataclass(frozen=True)
class Batch:
    """Answers for a batch of photos.

    Attributes:
        photos: the n photos that were read, in order.
        answers: answers of every member, then of external tables; None if no photo of the batch could be read.
        combined: one answer per photo that was read; None if none was.
        read: the index in the batch of each photo that was read, increasing, shape (n,).
        failed: index of a photo in the batch -> why it could not be read.
        faces: for each photo that was read, whether a face was found to crop around; None if none was looked for.
        changed_by_external: for each photo that was read, whether external tables changed its label, shape (n,); None
            without external tables.
    """

    photos: list[Photo]
    answers: Answers | None
    combined: Combined | None
    read: NDArray[np.int64]
    failed: dict[int, Unreadable]
    faces: list[bool | None]
    changed_by_external: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """Number of photos in the batch, those that could not be read among them."""
        return len(self.read) + len(self.failed)


def _cancel(running: Iterable[tuple[int, list[ReadResult], RunningCalls | None]]) -> None:
    """Cancels calls that have not begun."""
    for _, _, pending in running:
        if pending is not None:
            pending.cancel()


def _name_of(photo: Photo | str, number: int) -> str:
    """What a photo is called: its path, or its number where it has none."""
    return str(photo) if isinstance(photo, str | os.PathLike) else f"photo {number}"


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
        """The ensemble's members, in the order of the runtime."""
        return self.runtime.members

    def on(self, runners: Sequence[Runner]) -> Predictor:
        """The same ensemble with its members on other runners."""
        return replace(self, runtime=self.runtime.on(runners))

    def external_rows(self, paths: Iterable[str | os.PathLike[str]]) -> ExternalRows:
        """Which rows of its external tables answer for which photos, for all photos together."""
        return ExternalRows.of(self.external, list(map(str, paths)))

    def close(self) -> None:
        """Waits for predictions in progress, and ends its threads, which `on` shares; `with` does so too.

        The caller's own predictions cannot go on meanwhile: they, and later ones, raise a ClosedError.
        """
        self.runtime.pools.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answers(
        self,
        photos: Sequence[Photo | str],
        *,
        on_error: str = "fail",
        batch: int = 0,
        cascade: Cascade | None = None,
        already_read: Sequence[ReadResult] = (),
        rows: ExternalRows | None = None,
        people: Sequence[str | None] | None = None,
        stages: Stages = UNTIMED,
        done: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Predictions:
        """Finished answers for photos, in order.

        Args:
            photos: paths, bytes of files, or decoded pixels.
            on_error: `fail`; or `mark`: a photo that cannot be read gets an answer with an error and no label.
            batch, cascade, already_read, rows, stages: as in `predict`.
            people: who is on each photo, None where that is not known: photos of one person answer together, where the combiner
                has learned how. None: each photo answers alone.
            done: called with (photos done, photos in all).

        Raises:
            ClosedError: the predictor was closed.
            ConfigError: another word for `on_error`, one photo instead of a sequence, or a cascade over members that answer for
                several tasks.
            DataError: photos cannot be read, and `on_error` is `fail`; each problem has the photo's name and a kind.
            WorkspaceError: a member's answers are NaN or infinite.
        """
        check_choice("--on-error", on_error, ON_ERROR)
        check_sequence("photos", photos)
        if people is not None:
            self._check_people(photos, people, cascade)
        parts, batches, answered = list[Predictions](), list[Batch](), 0
        way_out = "with --on-error mark their rows stay empty"
        for of_batch in self.predict(photos, on_error == "mark", batch, cascade, already_read, way_out, rows, stages):
            names = [_name_of(photos[number], number) for number in range(answered, answered + len(of_batch))]
            parts.append(predictions_of(of_batch, self.combiner, names))
            batches += [of_batch] if people is not None else []
            answered += len(of_batch)
            done(answered, len(photos))
        if not parts:
            return Predictions.none(self.combiner)
        alone, read = Predictions.concatenated(parts), [of_batch for of_batch in batches if len(of_batch.read)]
        return alone if people is None or not read else self._together(alone, read, people)

    def _check_people(
        self, photos: Sequence[Photo | str], people: Sequence[str | None], cascade: Cascade | None
    ) -> None:
        """Refuses people that cannot answer together.

        Raises:
            ConfigError: not one for each photo, a combiner that has not learned how, or a cascade.
        """
        check_sequence("people", people)
        if len(people) != len(photos):
            raise ConfigError(f"got {len(people)} people for {len(photos)} photos.")
        if self.combiner.people is None:
            raise ConfigError(
                f"this ensemble ({self.combiner.title}) has not learned how a person's photos answer together."
            )
        if cascade is not None:
            raise ConfigError("a person's photos need all members' answers to answer together: leave the cascade out.")

    def _together(self, alone: Predictions, batches: Sequence[Batch], people: Sequence[str | None]) -> Predictions:
        """The answers where photos of one person answer together.

        Args:
            alone: the answers of each photo alone.
            batches: the batches with photos that could be read.
            people: who is on each photo.
        """
        read = np.array([number for number in range(len(alone)) if number not in alone.errors], np.int64)
        answers = Answers.stacked([of_batch.answers for of_batch in batches if of_batch.answers is not None])
        persons = np.asarray(
            pd.factorize(np.array([people[number] or None for number in read.tolist()], object))[0], np.int64
        )
        combined, changed = self.combiner.combine(answers, persons), alone.changed_by_external
        if self.external:
            of_members = answers.where(lambda voter: not voter.external)
            changed = np.zeros(len(alone), bool)
            changed[read] = self.combiner.combine(of_members, persons).label != combined.label
        return alone.replaced(read, combined, combined.agreement(answers), changed)

    def predict(
        self,
        photos: Sequence[Photo | str],
        skip_unreadable: bool = False,
        batch: int = 0,
        cascade: Cascade | None = None,
        already_read: Sequence[ReadResult] = (),
        way_out: str = "replace or remove them",
        rows: ExternalRows | None = None,
        stages: Stages = UNTIMED,
    ) -> Iterator[Batch]:
        """Predicts photos batch by batch, in order; the next batches are decoded and started meanwhile.

        If the caller stops iterating, started batches are cancelled.

        Args:
            photos: paths, bytes of files, or decoded pixels.
            skip_unreadable: report photos that cannot be read in `failed` instead of raising.
            batch: photos per batch, which bounds the memory; 0: `BATCH`, or enough to keep all cores busy.
            cascade: the rule that stops asking about a photo; None: ask all members.
            already_read: results of reading the first photos, which are not read again.
            way_out: what to do about photos that cannot be read, to complete an error's sentence.
            rows: which rows of external tables answer for which photos, as `external_rows` says of all photos, of which these
                may be a part; None: these are all.
            stages: collects the time of each stage.

        Raises:
            ClosedError: the predictor was closed.
            ConfigError: one photo instead of a sequence, or a negative batch.
            DataError: photos cannot be read, and `skip_unreadable` is off.
            ConfigError: a cascade over members that answer for several tasks.
            ValueError: `rows` of other tables, or without some of these photos.
            WorkspaceError: a member's answers are NaN or infinite.
        """
        check_sequence("photos", photos)
        check_range("--batch", batch, 0)
        inputs = [as_photo(photo, number) for number, photo in enumerate(photos)]
        runtime, settled = self.runtime, None
        if cascade is not None:
            check_cascade([member.task for member in self.members], self.external)
            settled = partial(cascade.settled, combiner=self.combiner)
        batch = batch or self._batch_size(cascade is not None)
        table_rows = self._rows_of(inputs, rows)
        with ExitStack() as stack:
            stack.enter_context(runtime.pools.prediction())
            reading = ReadAhead(
                partial(self.reader.read, stages=stages), runtime.pools.readers, inputs, batch, already_read
            )
            batches = stack.enter_context(closing(reading.batches()))
            running: deque[tuple[int, list[ReadResult], RunningCalls | None]] = deque()
            stack.callback(_cancel, running)  # after an error, or if the caller stops iterating
            for start, results in batches:
                prepared = [result for result in results if isinstance(result, Prepared)]
                if len(prepared) < len(results) and not skip_unreadable:
                    failed = [
                        Problem(_name_of(inputs[number], number), why.reason, kind=why.kind)
                        for number, why in reading.reasons(start, results).items()
                    ]
                    raise DataError(f"{len(failed)} of {len(inputs)} photos cannot be read; {way_out}.", failed)
                pending = runtime.begin(stacked(prepared), settled, stages) if prepared else None
                running.append((start, results, pending))
                if len(running) > 1:  # one batch is always under way while another is waited for
                    yield self._answer(inputs, table_rows, *running.popleft(), stages)
                    runtime.pools.raise_if_closed()
            while running:
                yield self._answer(inputs, table_rows, *running.popleft(), stages)

    def _batch_size(self, in_turn: bool) -> int:
        """Photos per batch: each chunk makes one call per team, and all threads need work."""
        runtime = self.runtime
        enough = runtime.chunk_size(in_turn) * -(-runtime.threads // len(runtime.teams(in_turn)))
        return max(BATCH, enough if runtime.device == "cpu" else 0)

    def _rows_of(self, photos: Sequence[Photo], rows: ExternalRows | None) -> list[NDArray[np.int64]]:
        """For each external table, its row for each photo, -1 for none; only files have a path that a table can name."""
        paths = [str(photo) if isinstance(photo, Path) else None for photo in photos]
        if rows is None:
            rows = self.external_rows([path for path in paths if path is not None])
        elif rows.tables != self.external:
            raise ValueError(
                f"got the rows of {len(rows.tables)} other tables for {len(self.external)} external tables"
            )
        return rows.take(paths)

    def _answer(
        self,
        photos: Sequence[Photo],
        rows: Sequence[NDArray[np.int64]],
        start: int,
        results: Sequence[ReadResult],
        pending: RunningCalls | None,
        stages: Stages,
    ) -> Batch:
        """Combines the answers for a batch.

        Args:
            photos: the photos of all batches.
            rows: for each external table, its row for each of these photos.
            start: index of the batch's first photo.
            results: results of reading the batch.
            pending: the members' answers for the photos that were read; None if none was.
            stages: collects the time of each stage.
        """
        read = np.flatnonzero([isinstance(result, Prepared) for result in results])
        failed = {index: result for index, result in enumerate(results) if isinstance(result, Unreadable)}
        read_photos = [photos[start + index] for index in read.tolist()]
        if pending is None:
            return Batch(read_photos, None, None, read, failed, [], np.zeros(0, bool) if self.external else None)
        answers, changed = pending.answers(), None
        with stages("vote"):
            of_members = answers
            for table, table_rows in zip(self.external, rows, strict=True):
                answers = answers.with_voters(table.answers(table_rows[start + read], self.external_weights))
            combined = self.combiner.combine(answers)
            if self.external:
                changed = self.combiner.combine(of_members).label != combined.label
        faces = [result.face_found for result in results if isinstance(result, Prepared)]
        return Batch(read_photos, answers, combined, read, failed, faces, changed)


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

"""Photos in, predictions out: each photo is decoded once, prepared once per geometry, seen by every member; layers that members
share see it once.

On a CPU one pool of as many threads as there are cores does all the work, decoding and members alike, each call on one core:
cores are neither idle nor fought over. On a GPU members answer one after the other while the CPU decodes what comes next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.data.boxes import one_thread
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.ensemble.cascade import Cascade, ask
from orchestrator.ensemble.detector import detector_of
from orchestrator.ensemble.engines import Call, Features, Runner, torch_runners
from orchestrator.ensemble.member import Member, check_numbers
from orchestrator.ensemble.options import check_cascade
from orchestrator.ensemble.trunk import split, whole
from orchestrator.errors import DataError, PhotoError, Problem
from orchestrator.labels import CLASS_COUNTS, TASKS, of_tasks
from orchestrator.stages import Stages
from orchestrator.training.devices import keep_freed_memory

if TYPE_CHECKING:
    from orchestrator.ensemble.external import ExternalTable

__all__ = ["CALL", "Batch", "Predictor", "Prepared"]

BATCH = 64
CALL = 16
"""Photos a call on a CPU: their activations stay near the caches (EfficientNet-Lite0 at 128 x 96, OpenVINO in bf16, photos a
core second: 715 by 16, 645 by 64), and a batch of 64 is enough calls to keep all cores busy."""

CASCADE_CALL = 64  # of a cascade: what is left after each member must still be worth a call

Pixels = dict[Geometry, NDArray[np.uint8]]


@dataclass(frozen=True)
class Prepared:
    """One photo, ready for every member.

    Attributes:
        pixels: geometry -> (height, width, 3), uint8.
        face_found: whether a face was found to crop around; None where no member crops around faces.
    """

    pixels: Pixels
    face_found: bool | None = None


@dataclass(frozen=True)
class Batch:
    """Answers for a stretch of photos.

    Attributes:
        paths: the n photos that were read, in order.
        answers: of every member, then of external tables, for these; None when no photo of the stretch could be read.
        combined: one answer for each; None likewise.
        failed: photos that could not be read, with the reason.
        order: for every photo of the stretch, its row in `answers`, or -1 when it failed.
        faces: for each photo that was read, whether a face was found to crop around; None where none was looked for.
        changed_by_external: for each, whether external tables gave it another label than the members alone would, shape (n,);
            None without such tables.
    """

    paths: list[Path]
    answers: Answers | None
    combined: Combined | None
    failed: list[tuple[Path, str]]
    order: list[int]
    faces: list[bool | None]
    changed_by_external: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Team:
    """Members that one call asks, because they share a trunk, or because a cascade stops asking a task's members.

    Attributes:
        places: of the members, in order.
        ties: trunks and tasks; who has one of them belongs to the team.
    """

    places: list[int]
    ties: set[Call | str]


class Pending:
    """Members' answers to come.

    Args:
        members: all of them.
        photos: n.
        calls: for each stretch of the photos, the answers to come of each team's members: place -> (m, C).
    """

    def __init__(
        self,
        members: Sequence[Member],
        photos: int,
        calls: Sequence[Sequence[Future[dict[int, NDArray[np.float32]]]]],
    ) -> None:
        self._members, self._photos, self._calls = members, photos, calls

    def answers(self) -> Answers:
        """Waits for them; a member that was not asked abstains.

        Raises:
            WorkspaceError: a member answers with what is no number.
        """
        stretches = [{place: one for call in calls for place, one in call.result().items()} for calls in self._calls]
        voters: list[Voter] = []
        arrays: list[NDArray[np.float32]] = []
        for place, member in enumerate(self._members):
            answer = np.concatenate([stretch[place] for stretch in stretches])
            check_numbers(member, answer)
            for task, part in of_tasks(member.task, answer).items():
                voters.append(Voter(task, member.run, member.fold))
                arrays.append(np.asarray(part, np.float32))
        return Answers(CLASS_COUNTS, self._photos, tuple(voters), tuple(arrays))


class Predictor:
    """The members of an ensemble at work, on torch until `use` gives them other runners.

    Args:
        members: of all three tasks, loaded on the device.
        combiner: how answers become one.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: calls at once on a CPU; 0: one per core.
        sharing: compute layers that members share once for all. Off for a handful of photos, which take less than the proof
            that sharing changes no answer (fifteen members of `quick`: 0.4 s).
        external: tables from elsewhere that answer too.
        external_weights: task -> how much each of them counts beside single members.

    Raises:
        ConfigError: members crop around faces, and the detector is not installed.
        WorkspaceError: members crop around the faces of another detector.
    """

    def __init__(
        self,
        members: Sequence[Member],
        combiner: Combiner,
        device: str = "cpu",
        threads: int = 0,
        sharing: bool = True,
        external: Sequence[ExternalTable] = (),
        external_weights: Mapping[str, float] | None = None,
    ) -> None:
        keep_freed_memory()
        self.members, self.combiner, self.device = list(members), combiner, device
        self.threads = threads or joblib.cpu_count()
        self.splits = split(self.members) if sharing else [whole(member) for member in self.members]
        self.runners: list[Runner] = torch_runners(self.splits, device)
        self.stages = Stages()
        self.external, self._external_weights = list(external), external_weights
        self.geometries = list(dict.fromkeys(member.preprocess.geometry for member in self.members))
        self._detector = detector_of(self.members)

    def use(self, runners: Sequence[Runner]) -> None:
        """Puts every member on a runner, in the order of `members`."""
        if len(runners) != len(self.members):
            raise ValueError(f"got {len(runners)} runners for {len(self.members)} members")
        self.runners = list(runners)

    def prepare(self, photo: NDArray[np.uint8]) -> Prepared:
        """One decoded photo at every geometry that some member needs."""
        if self._detector is None:
            return Prepared({geometry: geometry.apply(photo) for geometry in self.geometries})
        with self.stages("find faces"):
            face = self._detector.find(photo)
        return Prepared({geometry: geometry.apply(photo, face) for geometry in self.geometries}, face is not None)

    def read(self, path: Path) -> Prepared | str:
        """One file at every geometry, or why it cannot be read."""
        try:
            with self.stages("decode"):
                photo = decode(path)
            with self.stages("crop and resize"):
                return self.prepare(photo)
        except PhotoError as error:
            return f"{error.what}."

    def answers(self, prepared: Sequence[Prepared]) -> Answers:
        """Every member's answers for prepared photos.

        Raises:
            WorkspaceError: a member answers with what is no number.
        """
        with self._pool() as pool:
            return self._ask(pool, prepared).answers()

    def predict(
        self, paths: Sequence[Path], skip_unreadable: bool = False, batch: int = 0, cascade: Cascade | None = None
    ) -> Iterator[Batch]:
        """Answers for files, a batch at a time, in order; the next batches are decoded and begun meanwhile.

        Args:
            paths: photos.
            skip_unreadable: report photos that cannot be read in `failed` instead of raising.
            batch: photos at a time; bounds the memory. 0: `BATCH`, or enough to keep all cores busy.
            cascade: when a vote is settled and nobody else is asked; None asks everybody.

        Raises:
            DataError: photos cannot be read, and `skip_unreadable` is off.
            ConfigError: a cascade over members that answer for several tasks.
            WorkspaceError: a member answers with what is no number.
        """
        import cv2  # after torch: short of address space torch says so, and OpenCV ends the process

        cv2.setNumThreads(1)
        if cascade is not None:
            check_cascade([member.task for member in self.members], self.external)
        if not batch:  # a stretch of photos is one call for each team, and there are threads to fill
            enough = self._stretch(cascade) * -(-self.threads // len(self._teams(cascade)))
            batch = max(BATCH, enough if self.device == "cpu" else 0)
        names = list(map(str, paths))  # all at once: whether a name means one photo does not depend on batches
        known = [one.rows(names) for one in self.external]
        parts = [list(paths[start : start + batch]) for start in range(0, len(paths), batch)]
        with self._pool() as pool, ThreadPoolExecutor(self.threads, initializer=one_thread) as decoders:
            # On a CPU decoding shares the members' threads; a GPU's single thread must not wait for it.
            readers = pool if self.device == "cpu" else decoders
            ahead: deque[list[Future[Prepared | str]]] = deque()
            asked: deque[tuple[int, list[Path], list[Prepared | str], Pending | None]] = deque()
            for number, part in enumerate(parts):
                while len(ahead) < 2 and number + len(ahead) < len(parts):
                    ahead.append([readers.submit(self.read, path) for path in parts[number + len(ahead)]])
                results = [future.result() for future in ahead.popleft()]
                if not skip_unreadable and any(isinstance(one, str) for one in results):
                    self._refuse(paths, [*part, *(path for later in parts[number + 1 :] for path in later)], readers)
                prepared = [one for one in results if not isinstance(one, str)]
                pending = self._ask(pool, prepared, cascade) if prepared else None
                asked.append((number * batch, part, results, pending))
                if len(asked) > 1:  # one batch is always under way while another is waited for
                    yield self._answer(known, *asked.popleft())
            while asked:
                yield self._answer(known, *asked.popleft())

    def _pool(self) -> ThreadPoolExecutor:
        if self.device != "cpu":
            return ThreadPoolExecutor(1)
        # OpenMP counts threads for each calling thread, so this does not touch the caller's own setting.
        return ThreadPoolExecutor(self.threads, initializer=one_thread)

    def _stretch(self, cascade: Cascade | None) -> int:
        """Photos a call on a CPU."""
        return CALL if cascade is None else CASCADE_CALL

    def _teams(self, cascade: Cascade | None) -> list[Team]:
        """The members by calls: few that share much, so that cores have enough to choose from."""
        teams: list[Team] = []
        for place, (member, runner) in enumerate(zip(self.members, self.runners, strict=True)):
            places, ties = [place], {runner.trunk or runner.own} | ({member.task} if cascade is not None else set())
            for team in [one for one in teams if one.ties & ties]:
                teams.remove(team)
                places, ties = places + team.places, ties | team.ties
            teams.append(Team(sorted(places), ties))
        return teams

    def _ask(self, pool: ThreadPoolExecutor, prepared: Sequence[Prepared], cascade: Cascade | None = None) -> Pending:
        """Begins the members' answers for prepared photos."""
        pixels = {geometry: np.stack([one.pixels[geometry] for one in prepared]) for geometry in self.geometries}
        size = len(prepared) if self.device != "cpu" else self._stretch(cascade)
        teams = self._teams(cascade)
        calls = []
        for start in range(0, len(prepared), size):
            stretch = {geometry: own[start : start + size] for geometry, own in pixels.items()}
            calls.append([pool.submit(self._run, team, stretch, cascade) for team in teams])
        return Pending(self.members, len(prepared), calls)

    def _run(self, team: Team, pixels: Pixels, cascade: Cascade | None) -> dict[int, NDArray[np.float32]]:
        """A team's answers for a stretch of photos: place -> (n, C)."""
        begun: dict[Call, Features] = {}

        def answer(place: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
            member, runner = self.members[place], self.runners[place]
            features = pixels[member.preprocess.geometry]
            if runner.trunk is not None:
                if runner.trunk not in begun:
                    with self.stages("shared layers"):
                        begun[runner.trunk] = runner.begin(features)
                features = begun[runner.trunk]
            with self.stages(f"{member.task} members"):
                return runner.finish(features if rows is None else features[rows])

        if cascade is None:
            return {place: answer(place) for place in team.places}
        found: dict[int, NDArray[np.float32]] = {}
        for task in TASKS:
            places = [place for place in team.places if self.members[place].task == task]
            photos = len(pixels[self.geometries[0]])
            voters = [Voter(task, self.members[place].run, self.members[place].fold) for place in places]
            asked = ask(voters, [partial(answer, place) for place in places], photos, self.combiner, cascade)
            found |= dict(zip(places, asked, strict=True))
        return found

    def _refuse(self, paths: Sequence[Path], rest: Sequence[Path], pool: ThreadPoolExecutor) -> None:
        """Reads all that is left, to name every photo that cannot be read."""
        answers = zip(rest, pool.map(self.read, rest), strict=True)
        failed = [Problem(str(path), one) for path, one in answers if isinstance(one, str)]
        raise DataError(
            f"{len(failed)} of {len(paths)} photos cannot be read; with --on-error mark their rows stay empty.", failed
        )

    def _answer(
        self,
        known: Sequence[NDArray[np.int64]],
        start: int,
        part: list[Path],
        results: Sequence[Prepared | str],
        pending: Pending | None,
    ) -> Batch:
        """Combines what was asked.

        Args:
            known: for each external table the rows of all photos.
            start: number of the stretch's first photo.
            part: the stretch.
            results: of reading it.
            pending: the members' answers to those that were read; None where none was.
        """
        there = np.flatnonzero([not isinstance(one, str) for one in results])
        read = [part[row] for row in there]
        failed = [(path, one) for path, one in zip(part, results, strict=True) if isinstance(one, str)]
        order = np.full(len(part), -1)
        order[there] = np.arange(len(there))
        if pending is None:
            return Batch(read, None, None, failed, order.tolist(), [])
        answers, changed = pending.answers(), None
        with self.stages("vote"):
            of_members = answers
            for table, rows in zip(self.external, known, strict=True):
                answers = answers.beside(table.answers(rows[start + there], self._external_weights))
            combined = self.combiner.combine(answers)
            if self.external:
                changed = self.combiner.combine(of_members).label != combined.label
        faces = [one.face_found for one in results if not isinstance(one, str)]
        return Batch(read, answers, combined, failed, order.tolist(), faces, changed)

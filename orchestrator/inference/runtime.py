"""The runtime: from pixels to members' answers; layers that members share run once for all of them.

On a CPU one pool with a thread per core does all the work, one core per call, so that cores are neither idle nor
oversubscribed. On a GPU members run one after the other. A runtime is immutable: `Runtime.on` makes a new one for
other engines, so a service can warm that up before it replaces the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import Combiner
from orchestrator.core.cores import cores, one_thread
from orchestrator.core.labels import CLASS_COUNTS, TASKS, of_tasks
from orchestrator.core.stages import Stages
from orchestrator.inference.cascade import Cascade, ask
from orchestrator.inference.engines import Call, Features, Runner, torch_runners
from orchestrator.inference.member import Member, check_finite
from orchestrator.inference.reader import Pixels
from orchestrator.inference.shared_backbone import Split, split, unshared
from orchestrator.networks.devices import keep_freed_memory

__all__ = ["CALL", "RunningCalls", "Runtime", "start_runtime"]

CALL = 16
"""Photos per call on a CPU: their activations stay near the caches (EfficientNet-Lite0 at 128 x 96, OpenVINO in bf16,
photos per core second: 715 with 16, 645 with 64), and a batch of 64 makes enough calls to keep all cores busy."""

CASCADE_CALL = 64  # photos per call of a cascade: the photos left after each member must still be worth a call

Calls = Sequence[Future[dict[int, NDArray[np.float32]]]]


@dataclass(frozen=True, eq=False)
class Team:
    """Members that run in one call, because they share a backbone, or a task of a cascade.

    Attributes:
        member_indices: indices of the members, in order.
        shared_keys: the shared backbones and tasks; a member with one of them belongs to the team.
    """

    member_indices: list[int]
    shared_keys: set[Call | str]


class RunningCalls:
    """Answers that are being computed.

    Args:
        members: the members asked.
        photos: number of photos, n.
        calls: per chunk of photos, one future per team: member index -> probabilities (m, C).
    """

    def __init__(self, members: Sequence[Member], photos: int, calls: Sequence[Calls]) -> None:
        self._members, self._photos, self._calls = members, photos, calls

    def cancel(self) -> None:
        """Cancels the calls that have not started."""
        for calls in self._calls:
            for call in calls:
                call.cancel()

    def answers(self) -> Answers:
        """Waits for the answers; a member that was not asked abstains.

        Raises:
            WorkspaceError: a member's answers are NaN or infinite.
        """
        stretches = [
            {place: answer for call in calls for place, answer in call.result().items()} for calls in self._calls
        ]
        voters: list[Voter] = []
        arrays: list[NDArray[np.float32]] = []
        for place, member in enumerate(self._members):
            answer = np.concatenate([stretch[place] for stretch in stretches])
            check_finite(member, answer)
            for task, part in of_tasks(member.task, answer).items():
                voters.append(Voter(task, member.run, member.fold))
                arrays.append(np.asarray(part, np.float32))
        return Answers(CLASS_COUNTS, self._photos, tuple(voters), tuple(arrays))


@dataclass(frozen=True, eq=False)
class Runtime:
    """Members on engines; safe to call from several threads at once.

    Attributes:
        members: loaded on the device.
        splits: for each member, what it shares with others.
        runners: for each member, its runner.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: number of simultaneous calls on a CPU.
        stages: collects the time of each stage.
        pool: the threads that make calls: one per core on a CPU, one on a GPU. They live as long as the runtime.
        readers: the threads that read photos: on a CPU those of `pool`; a GPU's single one must not wait for them.
    """

    members: tuple[Member, ...]
    splits: tuple[Split, ...]
    runners: tuple[Runner, ...]
    device: str
    threads: int
    stages: Stages = field(default_factory=Stages)
    pool: ThreadPoolExecutor = field(init=False, repr=False)
    readers: ThreadPoolExecutor = field(init=False, repr=False)

    def on(self, runners: Sequence[Runner]) -> Runtime:
        """The same members on other runners, in the order of `members`."""
        if len(runners) != len(self.members):
            raise ValueError(f"got {len(runners)} runners for {len(self.members)} members")
        return replace(self, runners=tuple(runners))

    def __post_init__(self) -> None:
        # OpenMP's thread count is per calling thread: the caller's setting stays. Threads start with the first call.
        readers = ThreadPoolExecutor(self.threads, initializer=one_thread)
        object.__setattr__(self, "readers", readers)
        object.__setattr__(self, "pool", readers if self.device == "cpu" else ThreadPoolExecutor(1))

    def close(self) -> None:
        """Ends its threads after the running calls."""
        self.readers.shutdown()
        self.pool.shutdown()

    def answers(self, pixels: Pixels) -> Answers:
        """Every member's answers for n photos.

        Args:
            pixels: at every member's geometry; at least one photo.

        Raises:
            WorkspaceError: a member's answers are NaN or infinite.
        """
        return self.begin(pixels).answers()

    def begin(self, pixels: Pixels, cascade: Cascade | None = None, combiner: Combiner | None = None) -> RunningCalls:
        """Starts computing the members' answers, without waiting.

        Args:
            pixels: pixels at every member's geometry; at least one photo.
            cascade: the rule that stops asking about a photo; None: ask all members.
            combiner: decides whether a vote is settled; required with a cascade.
        """
        photos = len(next(iter(pixels.values())))
        size = photos if self.device != "cpu" else self.chunk_size(cascade)
        teams = self.teams(cascade)
        calls = []
        for start in range(0, photos, size):
            part = {geometry: array[start : start + size] for geometry, array in pixels.items()}
            calls.append([self.pool.submit(self._run, team, part, cascade, combiner) for team in teams])
        return RunningCalls(self.members, photos, calls)

    def chunk_size(self, cascade: Cascade | None) -> int:
        """Photos per call on a CPU."""
        return CALL if cascade is None else CASCADE_CALL

    def teams(self, cascade: Cascade | None) -> list[Team]:
        """The members grouped into calls, in groups as small as sharing allows, so that all cores have work."""
        teams: list[Team] = []
        for place, (member, runner) in enumerate(zip(self.members, self.runners, strict=True)):
            places, ties = (
                [place],
                {runner.shared_backbone or runner.tail} | ({member.task} if cascade is not None else set()),
            )
            for team in [team for team in teams if team.shared_keys & ties]:
                teams.remove(team)
                places, ties = places + team.member_indices, ties | team.shared_keys
            teams.append(Team(sorted(places), ties))
        return teams

    def _run(
        self, team: Team, pixels: Pixels, cascade: Cascade | None, combiner: Combiner | None
    ) -> dict[int, NDArray[np.float32]]:
        """A team's answers for a chunk of photos: member index -> (n, C)."""
        shared: dict[Call, Features] = {}

        def answer(place: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
            member, runner = self.members[place], self.runners[place]
            features = pixels[member.preprocess.geometry]
            if runner.shared_backbone is not None:
                if runner.shared_backbone not in shared:
                    with self.stages("shared layers"):
                        shared[runner.shared_backbone] = runner.begin(features)
                features = shared[runner.shared_backbone]
            with self.stages(f"{member.task} members"):
                return runner.finish(features if rows is None else features[rows])

        if cascade is None or combiner is None:
            return {place: answer(place) for place in team.member_indices}
        photos = len(next(iter(pixels.values())))
        found: dict[int, NDArray[np.float32]] = {}
        for task in TASKS:
            places = [place for place in team.member_indices if self.members[place].task == task]
            voters = [Voter(task, self.members[place].run, self.members[place].fold) for place in places]
            asked = ask(voters, [partial(answer, place) for place in places], photos, combiner, cascade)
            found |= dict(zip(places, asked, strict=True))
        return found


def start_runtime(members: Sequence[Member], device: str = "cpu", threads: int = 0, sharing: bool = True) -> Runtime:
    """A runtime of members on torch.

    Args:
        members: of all three tasks, loaded on the device.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: calls at once on a CPU; 0: one per core.
        sharing: compute shared layers once for all members. Off for a handful of photos, which take less time than
            checking that sharing changes no answer (fifteen members of `quick`: 0.4 s).
    """
    keep_freed_memory()
    splits = split(members) if sharing else [unshared(member) for member in members]
    runners = torch_runners(splits, device)
    return Runtime(tuple(members), tuple(splits), tuple(runners), device, threads or cores())

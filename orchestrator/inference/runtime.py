"""The runtime: from pixels to members' answers; layers that members share run once for all of them.

On a CPU one pool with a thread per core does all the work, one core per call, so that cores are neither idle nor
oversubscribed. On a GPU members run one after the other. A runtime is immutable: `Runtime.on` makes a new one for
other engines, in the same threads, so a service can warm that up before it replaces the old one. How answers become one is
not known here, nor why a photo needs no further member: that is a function that is passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining.answers import Answers
from orchestrator.core.cores import cores
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.core.stages import UNTIMED, Stages
from orchestrator.inference.cascade import Settled, ask
from orchestrator.inference.engines import Call, Features, Runner, torch_runners
from orchestrator.inference.member import Member, answers_of, check_finite, voters_of
from orchestrator.inference.pools import Pools
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
        calls: per chunk of photos, one future per team: member index -> probabilities (m, C).
    """

    def __init__(self, members: Sequence[Member], calls: Sequence[Calls]) -> None:
        self._members, self._calls = members, calls

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
        chunks = [{index: answer for call in calls for index, answer in call.result().items()} for calls in self._calls]
        probabilities = [np.concatenate([chunk[index] for chunk in chunks]) for index in range(len(self._members))]
        for member, answer in zip(self._members, probabilities, strict=True):
            check_finite(member, answer)
        return answers_of(self._members, probabilities)


@dataclass(frozen=True, eq=False)
class Runtime:
    """Members on engines; safe to call from several threads at once.

    Attributes:
        members: loaded on the device.
        splits: for each member, what it shares with others.
        runners: for each member, its runner.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: number of simultaneous calls on a CPU.
        pools: the threads that make calls and read photos, the same for all runtimes that were made of one another.
    """

    members: tuple[Member, ...]
    splits: tuple[Split, ...]
    runners: tuple[Runner, ...]
    device: str
    threads: int
    pools: Pools

    def on(self, runners: Sequence[Runner]) -> Runtime:
        """The same members on other runners, in the order of `members`, and in the same threads."""
        if len(runners) != len(self.members):
            raise ValueError(f"got {len(runners)} runners for {len(self.members)} members")
        return replace(self, runners=tuple(runners))

    def answers(self, pixels: Pixels) -> Answers:
        """Every member's answers for n photos.

        Args:
            pixels: at every member's geometry; at least one photo.

        Raises:
            ClosedError: its threads were closed.
            WorkspaceError: a member's answers are NaN or infinite.
        """
        with self.pools.prediction():
            return self.begin(pixels).answers()

    def begin(self, pixels: Pixels, settled: Settled | None = None, stages: Stages = UNTIMED) -> RunningCalls:
        """Starts computing the members' answers, without waiting.

        Args:
            pixels: pixels at every member's geometry; at least one photo.
            settled: the rule that stops asking about a photo; None: ask all members.
            stages: collects the time of each stage.

        Raises:
            ValueError: a rule for members that answer for several tasks, which cannot be asked in turn.
        """
        joint = [member.name for member in self.members if member.task == JOINT]
        if settled is not None and joint:
            raise ValueError(f"{', '.join(joint)}: answer for several tasks, and cannot be asked in turn")
        photos = len(next(iter(pixels.values())))
        in_turn = settled is not None
        size = photos if self.device != "cpu" else self.chunk_size(in_turn)
        teams = self.teams(in_turn)
        calls = []
        for start in range(0, photos, size):
            part = {geometry: array[start : start + size] for geometry, array in pixels.items()}
            calls.append([self.pools.calls.submit(self._run, team, part, settled, stages) for team in teams])
        return RunningCalls(self.members, calls)

    def chunk_size(self, in_turn: bool) -> int:
        """Photos per call on a CPU; `in_turn`: the members of a task are asked one after the other."""
        return CASCADE_CALL if in_turn else CALL

    def teams(self, in_turn: bool) -> list[Team]:
        """The members grouped into calls, in groups as small as sharing allows, so that all cores have work.

        Args:
            in_turn: the members of a task are asked one after the other, and so in one call.
        """
        teams: list[Team] = []
        for index, (member, runner) in enumerate(zip(self.members, self.runners, strict=True)):
            indices, keys = [index], {runner.shared_backbone or runner.tail} | ({member.task} if in_turn else set())
            for team in [team for team in teams if team.shared_keys & keys]:
                teams.remove(team)
                indices, keys = indices + team.member_indices, keys | team.shared_keys
            teams.append(Team(sorted(indices), keys))
        return teams

    def _run(
        self, team: Team, pixels: Pixels, settled: Settled | None, stages: Stages
    ) -> dict[int, NDArray[np.float32]]:
        """A team's answers for a chunk of photos: member index -> (n, C)."""
        shared: dict[Call, Features] = {}

        def answer(index: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
            member, runner = self.members[index], self.runners[index]
            features = pixels[member.preprocess.geometry]
            if runner.shared_backbone is not None:
                if runner.shared_backbone not in shared:
                    with stages("shared layers"):
                        shared[runner.shared_backbone] = runner.begin(features)
                features = shared[runner.shared_backbone]
            with stages(f"{member.task} members"):
                return runner.finish(features if rows is None else features[rows])

        if settled is None:
            return {index: answer(index) for index in team.member_indices}
        photos = len(next(iter(pixels.values())))
        answers: dict[int, NDArray[np.float32]] = {}
        for task in TASKS:
            indices = [index for index in team.member_indices if self.members[index].task == task]
            voters = [voter for index in indices for voter in voters_of(self.members[index])]
            of_task = ask(voters, [partial(answer, index) for index in indices], photos, settled)
            answers |= dict(zip(indices, of_task, strict=True))
        return answers


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
    threads = threads or cores()
    return Runtime(tuple(members), tuple(splits), tuple(runners), device, threads, Pools(device, threads))

"""Progress of long operations as values: displays, trackers and other programs listen to one stream of events.

Decisions and findings go to `logging` instead, under each module's own name: `info` for what every user wants to know,
`warning` for what needs attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.core.epochs import TrainedEpoch

__all__ = [
    "EpochEnded",
    "EpochProgress",
    "Event",
    "InputsRead",
    "Listener",
    "MemberEnded",
    "Outcome",
    "PlannedMember",
    "Stage",
    "StageProgress",
    "TrainingEnded",
    "TrainingStarted",
    "counted",
    "forward_to_all",
    "ignore_events",
    "progress_callback",
]  # fmt: skip

Stage = Literal[
    "open photos", "read sizes", "hash photos", "read files",
    "draw people", "list faces", "decode", "find faces", "compute features", "load members",
    "write exports", "export members", "predict", "answer", "label", "ask", "measure",
]  # fmt: skip
"""Operations whose progress is counted."""

Outcome = Literal["done", "failed", "pruned", "cancelled"]
"""How a member's training ended."""


@dataclass(frozen=True)
class StageProgress:
    """Progress of a stage of long work, such as decoding photos.

    Attributes:
        stage: operation in progress.
        done: number of photos or members finished.
        total: number of photos or members in all.
    """

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class InputsRead:
    """All inputs of the training were read and are in order; the workspace exists, and no run has been written yet."""


@dataclass(frozen=True)
class PlannedMember:
    """A member that is to be trained.

    Attributes:
        run: id of its run.
        fold: held-out fold; None: no fold.
        folder: folder of its files.
        epochs: number of epochs in its recipe.
        trained: number of epochs that earlier commands trained.
        work: rough cost of its whole training, comparable between members.
        best: best macro F1 of the epochs already trained; 0 if there are none.
    """

    run: str
    fold: int | None
    folder: Path
    epochs: int
    trained: int
    work: float
    best: float = 0.0


@dataclass(frozen=True)
class TrainingStarted:
    """Members are about to be trained.

    Attributes:
        members: all members, in starting order.
        at_once: number of members trained in parallel.
        threads: CPU threads per member.
        device: `cpu`, `cuda` or `cuda:N`.
        workspace: folder of the runs.
    """

    members: tuple[PlannedMember, ...]
    at_once: int
    threads: int
    device: str
    workspace: Path


@dataclass(frozen=True)
class EpochProgress:
    """Progress of a member within an epoch.

    Attributes:
        run: id of its run.
        fold: held-out fold; None: no fold.
        epochs: epochs trained so far, the current one as a fraction.
        photos_per_second: training throughput.
    """

    run: str
    fold: int | None
    epochs: float
    photos_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """A member has trained an epoch.

    Attributes:
        run: id of its run.
        fold: held-out fold; None: no fold.
        epoch: the epoch.
    """

    run: str
    fold: int | None
    epoch: TrainedEpoch


@dataclass(frozen=True)
class MemberEnded:
    """A member's training has ended.

    Attributes:
        run: id of its run.
        fold: held-out fold; None: no fold.
        outcome: how the training ended.
        why: reason, as a sentence, unless the outcome is `done`.
    """

    run: str
    fold: int | None
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class TrainingEnded:
    """All members of a `TrainingStarted` have ended, or something stopped them."""


Event = StageProgress | InputsRead | TrainingStarted | EpochProgress | EpochEnded | MemberEnded | TrainingEnded
Listener = Callable[[Event], None]
"""Receiver of events. Several threads call it, but the events of one member come one after the other."""


def ignore_events(_event: Event) -> None:
    """A listener that does nothing."""


def forward_to_all(*listeners: Listener) -> Listener:
    """A listener that forwards every event to several listeners, in order."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


def counted(done: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """A callback that is given how many more are done, and reports (done, total)."""
    so_far = 0

    def more(number: int) -> None:
        nonlocal so_far
        so_far += number
        done(so_far, total)

    return more


def progress_callback(listen: Listener, stage: Stage) -> Callable[[int, int], None]:
    """A callback (done, total) that reports a stage's progress to a listener."""
    return lambda done, total: listen(StageProgress(stage, done, total))

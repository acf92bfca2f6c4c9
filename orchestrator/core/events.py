"""What happens while something long is under way, as values: displays, trackers and other programs listen to one stream.

Sentences on what was decided or found go to `logging`, each module's under its own name: `info` for what any user wants to know,
`warning` for what is worth a second look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "Counted", "EpochEnded", "EpochUnderway", "Event", "InputsRead", "Listener", "MemberBegun", "MemberEnded", "Outcome", "Stage",
    "TrainingBegun", "TrainingEnded", "all_of", "counter", "nobody",
]  # fmt: skip

Stage = Literal[
    "decode", "find faces", "compute features", "load members", "write exports", "export members", "predict", "answer", "label",
    "ask",
]  # fmt: skip
"""What is counted."""

Outcome = Literal["done", "failed", "pruned", "cancelled"]
"""How a member's training ended."""


@dataclass(frozen=True)
class Counted:
    """How far a stage is.

    Attributes:
        stage: what is done.
        done: how many photos or members so far.
        total: how many there are.
    """

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True)
class InputsRead:
    """All that is trained from was read and is in order; the workspace is there, and no run is written yet."""


@dataclass(frozen=True)
class MemberBegun:
    """A member whose training is asked for.

    Attributes:
        run: its run's id.
        fold: that it holds out; None: none.
        folder: of its files.
        epochs: of its recipe.
        trained: epochs that an earlier command has trained.
        work: roughly, how long all of its training is, beside others'.
        best: macro F1 of the best of these epochs; 0 without any.
    """

    run: str
    fold: int | None
    folder: Path
    epochs: int
    trained: int
    work: float
    best: float = 0.0


@dataclass(frozen=True)
class TrainingBegun:
    """Members are about to be trained.

    Attributes:
        members: all of them, in the order of their beginning.
        at_once: how many side by side.
        threads: CPU threads of each.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    members: tuple[MemberBegun, ...]
    at_once: int
    threads: int
    device: str


@dataclass(frozen=True)
class EpochUnderway:
    """How far a member's epoch is.

    Attributes:
        run: its run's id.
        fold: that it holds out.
        epochs: trained so far, the running one by its share.
        photos_per_second: of training.
    """

    run: str
    fold: int | None
    epochs: float
    photos_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """A member has trained an epoch.

    Attributes:
        run: its run's id.
        fold: that it holds out.
        entry: of its history: `epoch`, `loss`, `photos_per_second`, and where it was scored `macro_f1` and others.
    """

    run: str
    fold: int | None
    entry: Mapping[str, Any]


@dataclass(frozen=True)
class MemberEnded:
    """A member's training has ended.

    Attributes:
        run: its run's id.
        fold: that it holds out.
        outcome: how.
        why: a sentence where it is not done.
    """

    run: str
    fold: int | None
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class TrainingEnded:
    """All members of a `TrainingBegun` have ended, or something stopped them."""


Event = Counted | InputsRead | TrainingBegun | EpochUnderway | EpochEnded | MemberEnded | TrainingEnded
Listener = Callable[[Event], None]
"""Who listens. Events come from several threads, one at a time for each member."""


def nobody(_event: Event) -> None:
    """A listener that does nothing."""


def all_of(*listeners: Listener) -> Listener:
    """A listener that passes everything on to several, in their order."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


def counter(listen: Listener, stage: Stage) -> Callable[[int, int], None]:
    """A function of (done, all) that tells a listener how far a stage is."""
    return lambda done, total: listen(Counted(stage, done, total))

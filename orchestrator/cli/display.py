"""One calm display of all members while they train: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.bars import Bars
from orchestrator.cli.console import grid, print_message, stderr_console
from orchestrator.core.epochs import TrainedEpoch
from orchestrator.core.errors import quantity
from orchestrator.core.events import (
    EpochEnded,
    EpochProgress,
    Event,
    InputsRead,
    MemberEnded,
    PlannedMember,
    StageProgress,
    TrainingEnded,
    TrainingStarted,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["TrainingDisplay"]

REFRESH_SECONDS = 0.5

LINE_SECONDS = 10.0
"""Least time between two printed epochs; the end of a member is printed at once."""

SURE_SECONDS = 20.0
"""Time before which no time left is estimated."""

STYLES = {"failed": "red", "pruned": "yellow", "cancelled": "yellow", "done": "green", "waiting": "dim"}


@dataclass
class _Member:
    """The progress of a member.

    Attributes:
        begun: the event of its start.
        epochs: epochs trained, with the done share of the running one.
        rate: photos per second.
        best: best macro F1 so far.
        last: the last epoch that was trained here.
        printed: the last epoch that was printed.
        outcome: how it ended; empty before.
    """

    begun: PlannedMember
    epochs: float
    rate: float = 0.0
    best: float = 0.0
    last: TrainedEpoch | None = None
    printed: int = 0
    outcome: str = ""

    @property
    def name(self) -> str:
        """The member in words: `age-0001 fold 2`, or `age-0001 all` without folds."""
        return f"{self.begun.run} {'all' if self.begun.fold is None else f'fold {self.begun.fold}'}"

    @property
    def trained(self) -> float:
        """Epochs trained; all of them once the member has ended."""
        return float(self.begun.epochs) if self.outcome else self.epochs

    @property
    def state(self) -> str:
        """Its state, as one word."""
        return self.outcome or ("training" if self.epochs > self.begun.trained or self.rate else "waiting")


class TrainingDisplay:
    """Listens to a training, for the terminal.

    Args:
        console: where the live table is drawn, if it is a terminal; None: stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = stderr_console() if console is None else console
        self._members: dict[tuple[str, int | None], _Member] = {}
        self._lock = threading.RLock()  # events come from several threads
        self._live: Live | None = None
        self._bars = Bars()
        self._started = self._spoken = 0.0

    def __call__(self, event: Event) -> None:
        """Takes an event of the training, and updates the table or prints a line."""
        if isinstance(event, TrainingEnded):  # without the lock: the table that is drawn last waits for it
            self.close()
            return
        with self._lock:
            if isinstance(event, StageProgress):
                self._bars(event)
            elif isinstance(event, TrainingStarted):
                self._begin(event)
            elif not isinstance(event, InputsRead):
                self._follow(event)

    def close(self) -> None:
        """Ends the display, after training or a stop; safe to call again."""
        with self._lock:
            self._bars.close()
            live, self._live = self._live, None
            for member in self._members.values():  # stopped: epochs that were not printed yet
                if live is None and not member.outcome:
                    self._print_epoch(member)
        if live is not None:
            live.stop()

    def _begin(self, event: TrainingStarted) -> None:
        self._started = self._spoken = time.monotonic()
        self._members = {
            (member.run, member.fold): _Member(member, float(member.trained), best=member.best)
            for member in event.members
        }
        threads = f"{event.threads} thread{'s' * (event.threads > 1)} each"
        members = quantity(len(event.members), "member")
        print_message(f"training {members} on {event.device}, {event.at_once} at once, {threads}.")
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=1 / REFRESH_SECONDS,
                transient=True,
            )
            self._live.start()

    def _follow(self, event: EpochProgress | EpochEnded | MemberEnded) -> None:
        member = self._members[event.run, event.fold]
        if isinstance(event, EpochProgress):
            member.epochs, member.rate = max(member.epochs, event.epochs), event.photos_per_second
        elif isinstance(event, EpochEnded):
            member.last = event.epoch
            member.epochs = float(event.epoch.number)  # lower than before where a training had to start over
            member.best = max(member.best, event.epoch.scores.macro_f1 if event.epoch.scores else 0.0)
            if time.monotonic() - self._spoken >= LINE_SECONDS:
                self._print_epoch(member)
        else:
            member.outcome = event.outcome
            self._print_epoch(member)
            if self._live is None and event.outcome != "done":
                print_message(f"{member.name} {event.outcome}: {event.why}")

    def _print_epoch(self, member: _Member) -> None:
        """Prints a line on a member's last epoch, unless it was printed already."""
        if self._live is None and member.last and member.last.number > member.printed:
            member.printed, self._spoken = member.last.number, time.monotonic()
            print_message(f"{member.name} {_words(member.last, member.begun.epochs)} ({self._outlook()})")

    def _table(self) -> RenderableType:
        """The live table: one row per member."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        headings = ("member", "epoch", "progress", "best macro F1", "photos/s", "state")
        table = grid("", *headings, keep=("state", "epoch", "best macro F1"))
        with self._lock:
            for member in self._members.values():
                total = member.begun.epochs
                rate = f"{member.rate:.0f}" if member.rate and not member.outcome else ""
                bar = ProgressBar(total=float(total), completed=member.trained, width=24)
                best = f"{member.best:.4f}" if member.best else ""
                epoch = f"{int(member.trained)}/{total}"
                style = STYLES.get(member.state, "")
                table.add_row(member.name, epoch, bar, best, rate, member.state, style=style)
            footer = f"{_clock(time.monotonic() - self._started)} elapsed, {self._outlook()}"
        return Group(table, Text(footer, style="dim"))

    def _outlook(self) -> str:
        """How many members are done, and about how long the others will take."""
        done_work = all_work = 0.0
        for member in self._members.values():
            at_start, total = member.begun, float(member.begun.epochs)
            all_work += at_start.work * (1 - at_start.trained / total)
            done_work += at_start.work * max(0.0, member.trained - at_start.trained) / total
        seconds = time.monotonic() - self._started
        ends = Counter(member.outcome for member in self._members.values() if member.outcome)
        others = "".join(f", {number} {state}" for state, number in ends.items() if state != "done")
        outlook = f"{ends['done']} of {quantity(len(self._members), 'member')} done{others}"
        if ends.total() == len(self._members) or done_work <= 0 or seconds < SURE_SECONDS:
            return outlook
        return f"{outlook}, about {_about(seconds / done_work * (all_work - done_work))} left"


def _words(epoch: TrainedEpoch, epochs: int) -> str:
    """A line on one of a member's epochs."""
    score = f", macro F1 {epoch.scores.macro_f1:.4f}" if epoch.scores else ""
    return f"epoch {epoch.number}/{epochs}: loss {epoch.loss:.4f}{score}, {epoch.photos_per_second:.0f} photos/s"


def _about(seconds: float) -> str:
    """A guess in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

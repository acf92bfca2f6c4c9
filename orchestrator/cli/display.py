"""One calm display of all jobs while they train: a live table in a terminal, plain lines elsewhere.

It reads what members leave in their folders, so it shows the same for jobs in this process and in others.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.console import counting, grid, say, talk
from orchestrator.errors import DamagedError, counted
from orchestrator.training.cards import PROGRESS, history_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType
    from rich.live import Live

    from orchestrator.records.run import RunRecord
    from orchestrator.training.jobs import JobResult
    from orchestrator.training.member import MemberJob

__all__ = ["TrainingDisplay"]

POLL_SECONDS = 0.5

LINE_SECONDS = 10.0
"""Between two lines of a log on epochs; that a member has ended is told at once."""

SURE_SECONDS = 20.0
"""Before which the time left is anybody's guess."""


class TrainingDisplay:
    """An `Observer` for the terminal."""

    def __init__(self) -> None:
        self._jobs: list[tuple[RunRecord, MemberJob]] = []
        self._ended: dict[tuple[str, int | None], str] = {}
        self._console = talk()
        self._live: Live | None = None
        self._stop = threading.Event()
        self._lines: threading.Thread | None = None
        self._bar: Any = None
        self._update: Any = None
        self._started = 0.0
        self._at_once = 1
        self._before: dict[tuple[str, int | None], float] = {}
        self._work: dict[tuple[str, int | None], float] = {}

    def say(self, text: str) -> None:
        """A line on what was decided or found."""
        say(text)

    def decoding(self, done: int, photos: int) -> None:
        """Photos decoded into the store so far."""
        self._count(done, photos, "decoding photos once", f"decoded {photos:,} photos into the pixel store.")

    def looking(self, done: int, photos: int) -> None:
        """Photos in which a face was looked for so far."""
        self._count(done, photos, "looking for faces once", f"looked for faces in {photos:,} photos.")

    def features(self, done: int, photos: int) -> None:
        """Photos that have gone through a frozen backbone so far."""
        self._count(done, photos, "computing features once", f"computed the features of {photos:,} photos.")

    def _count(self, done: int, photos: int, doing: str, told: str) -> None:
        if self._bar is None:
            self._bar = counting(doing)
            self._update = self._bar.__enter__()
        self._update(done, photos)
        if done == photos:
            self._bar.__exit__(None, None, None)
            self._bar = None
            say(told)

    def training(self, jobs: Sequence[tuple[RunRecord, MemberJob]], at_once: int) -> None:
        """Training of these members begins."""
        self._jobs, self._at_once, self._started = list(jobs), at_once, time.monotonic()
        self._stop.clear()  # a search trains several times
        self._ended = {}
        first = jobs[0][1]
        threads = f"{first.threads} thread{'s' * (first.threads > 1)} each"
        say(f"training {counted(len(jobs), 'member')} on {first.device}, {at_once} at once, {threads}.")
        self._before = {(run.id, job.fold): _epochs(job) for run, job in jobs}
        self._work = {(run.id, job.fold): job.work for run, job in jobs}
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=1 / POLL_SECONDS,
                transient=True,
            )
            self._live.start()
        else:
            self._lines = threading.Thread(target=self._watch, daemon=True)
            self._lines.start()

    def ended(self, run: RunRecord, job: MemberJob, result: JobResult) -> None:
        """One member is complete, failed, or was given up."""
        state = "failed" if result.failure else "given up" if result.given_up else "done"
        self._ended[run.id, job.fold] = state
        if self._live is None and state != "done":
            say(f"{run.id} {_name(job)} {state}: {result.failure or result.given_up}")

    def finished(self) -> None:
        """All jobs ended, or something stopped them; safe to call again."""
        self._stop.set()
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._lines is not None:
            self._lines.join()
            self._lines = None

    def close(self) -> None:
        """The command ends."""
        self.finished()

    def _table(self) -> RenderableType:
        """The live table: one row per member."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        table = grid(
            "",
            "member",
            "epoch",
            "progress",
            "best macro F1",
            "photos/s",
            "state",
            keep=("state", "epoch", "best macro F1"),
        )
        for run, job in self._jobs:
            epochs, total = self._epochs(run, job), float(job.recipe.epochs)
            ended = self._ended.get((run.id, job.fold))
            progress = _progress(job)
            rate = f"{progress.get('photos_per_second', 0):.0f}" if progress and ended is None else ""
            state = ended or ("waiting" if not progress and not epochs else "training")
            style = {"failed": "red", "given up": "yellow", "done": "green", "waiting": "dim"}.get(state, "")
            best = max((entry.get("macro_f1", 0.0) for entry in _history(job)), default=0.0)
            table.add_row(
                f"{run.id} {_name(job)}", f"{int(epochs)}/{job.recipe.epochs}",
                ProgressBar(total=total, completed=epochs, width=24), f"{best:.4f}" if best else "", rate, state,
                style=style,
            )  # fmt: skip
        seconds = time.monotonic() - self._started
        return Group(table, Text(f"{_clock(seconds)} gone, {self._outlook()}", style="dim"))

    def _epochs(self, run: RunRecord, job: MemberJob) -> float:
        """Epochs done, the running one counted by its share; one that ended has all it will have."""
        return float(job.recipe.epochs) if (run.id, job.fold) in self._ended else _epochs(job)

    def _outlook(self) -> str:
        """How many members are done, and about how long the others will take."""
        done_work = all_work = 0.0
        for run, job in self._jobs:
            total, work, begun = float(job.recipe.epochs), self._work[run.id, job.fold], self._before[run.id, job.fold]
            all_work += work * (1 - begun / total)
            done_work += work * max(0.0, self._epochs(run, job) - begun) / total
        seconds = time.monotonic() - self._started
        ends = Counter(self._ended.values())
        others = "".join(f", {number} {state}" for state, number in ends.items() if state != "done")
        told = f"{ends['done']} of {counted(len(self._jobs), 'member')} done{others}"
        if len(self._ended) == len(self._jobs) or done_work <= 0 or seconds < SURE_SECONDS:
            return told
        return f"{told}, about {_about(seconds / done_work * (all_work - done_work))} left"

    def _watch(self) -> None:
        """Prints how it stands, for logs: a line every so many seconds, and one for each member that ends."""
        told = {key: int(epochs) for key, epochs in self._before.items()}
        ends: set[tuple[str, int | None]] = set()
        spoken = self._started
        while True:
            last = self._stop.wait(POLL_SECONDS)
            for run, job in self._jobs:
                key = run.id, job.fold
                ended = key in self._ended and key not in ends
                if not (ended or last or time.monotonic() - spoken >= LINE_SECONDS):
                    continue
                if entries := _history(job)[told[key] :]:
                    told[key] += len(entries)
                    spoken = time.monotonic()
                    say(f"{run.id} {_name(job)} {_words(entries[-1], job)} ({self._outlook()})")
                if ended:
                    ends.add(key)
            if last:
                return


def _words(entry: dict[str, Any], job: MemberJob) -> str:
    """An epoch of a log."""
    score = f", macro F1 {entry['macro_f1']:.4f}" if "macro_f1" in entry else ""
    rate = f"{entry['photos_per_second']:.0f} photos/s"
    return f"epoch {entry['epoch']}/{job.recipe.epochs}: loss {entry['loss']:.4f}{score}, {rate}"


def _about(seconds: float) -> str:
    """A guess in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(10, round(seconds / 10) * 10)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _name(job: MemberJob) -> str:
    return "all" if job.fold is None else f"fold {job.fold}"


def _epochs(job: MemberJob) -> float:
    """Epochs done, the running one counted by its share."""
    progress = _progress(job)
    whole = len(_history(job))
    return max(float(whole), float(progress.get("epoch", 0) + progress.get("share", 0.0)))


def _history(job: MemberJob) -> list[dict[str, Any]]:
    try:
        return history_of(job.folder)
    except DamagedError:  # told by whoever needs the card
        return []


def _progress(job: MemberJob) -> dict[str, Any]:
    found = _read(job.folder / PROGRESS)
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

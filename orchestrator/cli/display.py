"""One calm display of all jobs while they train: a live table in a terminal, plain lines elsewhere.

It reads what members leave in their folders, so it shows the same for jobs in this process and in others.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.console import counting, grid, say, talk
from orchestrator.errors import counted
from orchestrator.training.cards import HISTORY, PROGRESS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from orchestrator.records.run import RunRecord
    from orchestrator.training.jobs import JobResult
    from orchestrator.training.member import MemberJob

__all__ = ["TrainingDisplay"]

POLL_SECONDS = 0.5


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

        table = grid("", "member", "epoch", "", "best macro F1", "photos/s", "")
        done_work = all_work = 0.0
        for run, job in self._jobs:
            epochs, total = _epochs(job), float(job.recipe.epochs)
            ended = self._ended.get((run.id, job.fold))
            work, begun = self._work[run.id, job.fold], self._before[run.id, job.fold]
            all_work += work * (1 - begun / total)
            progress = _read(job.folder / PROGRESS) or {}
            rate = f"{progress.get('photos_per_second', 0):.0f}" if progress and ended is None else ""
            state = "waiting" if not progress and ended is None and not epochs else ""
            if ended is not None:
                epochs, state = total, ended
            done_work += work * (epochs - begun) / total
            style = {"failed": "red", "given up": "yellow", "done": "green", "waiting": "dim"}.get(state, "")
            best = max((entry.get("macro_f1", 0.0) for entry in _read(job.folder / HISTORY) or []), default=0.0)
            table.add_row(
                f"{run.id} {_name(job)}", f"{int(epochs)}/{job.recipe.epochs}",
                ProgressBar(total=total, completed=epochs, width=24), f"{best:.4f}" if best else "", rate, state,
                style=style,
            )  # fmt: skip
        seconds = time.monotonic() - self._started
        left = seconds / done_work * (all_work - done_work) if done_work > 0 else None
        foot = f"{_clock(seconds)} gone" + (f", about {_clock(left)} left" if left is not None and seconds > 20 else "")
        return Group(table, Text(foot, style="dim"))

    def _watch(self) -> None:
        """Prints a line per finished epoch, for logs."""
        told = {key: int(epochs) for key, epochs in self._before.items()}
        while True:
            last = self._stop.wait(POLL_SECONDS)
            for run, job in self._jobs:
                for entry in (_read(job.folder / HISTORY) or [])[told[run.id, job.fold] :]:
                    told[run.id, job.fold] += 1
                    score = f", macro F1 {entry['macro_f1']:.4f}" if "macro_f1" in entry else ""
                    rate = f"{entry['photos_per_second']:.0f} photos/s"
                    what = f"epoch {entry['epoch']}/{job.recipe.epochs}: loss {entry['loss']:.4f}{score}, {rate}"
                    say(f"{run.id} {_name(job)} {what}")
            if last:
                return


def _name(job: MemberJob) -> str:
    return "all" if job.fold is None else f"fold {job.fold}"


def _epochs(job: MemberJob) -> float:
    """Epochs done, the running one counted by its share."""
    progress = _read(job.folder / PROGRESS) or {}
    whole = len(_read(job.folder / HISTORY) or [])
    return max(float(whole), float(progress.get("epoch", 0) + progress.get("share", 0.0)))


def _read(path: Any) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"

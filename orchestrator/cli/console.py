"""Output of commands: results to stdout, messages to stderr, JSON for machines.

All output goes through here, so that odd names, narrow terminals and readers that have gone cannot break a command
(`streams`, `tables`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator.cli import BEGAN
from orchestrator.cli.streams import is_utf8
from orchestrator.core.errors import CONTROLS, escape_controls, printable

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.tables import Grid

__all__ = [
    "begin",
    "deferred_messages",
    "duration_text",
    "elapsed",
    "grid",
    "has_emitted",
    "print_error",
    "print_json",
    "print_message",
    "print_profile",
    "print_result",
    "print_stages",
    "progress_bar",
    "score_text",
    "show_log_messages",
    "stderr_console",
    "stdout_console",
]

UNBOUNDED = 100_000
"""Width of a line, in letters, where output is not a terminal, so that nothing is cut or wrapped."""

OUT_OF_JSON = re.compile(rf"{CONTROLS.pattern}|[\ud800-\udfff]")
"""Letters of a JSON text to escape: control characters of terminals, and invalid bytes of file names."""

_state: dict[str, Any] = {"began": BEGAN, "emitted": False}


def begin(moment: float | None = None) -> None:
    """Marks the start of a command.

    Args:
        moment: start of its process, by time.monotonic; None: now.
    """
    _state.update(began=time.monotonic() if moment is None else moment, emitted=False)


def elapsed() -> float:
    """Seconds since the command started, imports included, as its last line reports."""
    return time.monotonic() - float(_state["began"])


def duration_text(seconds: float) -> str:
    """A duration in words: `12 seconds`, `3.4 minutes`, `2.5 hours`."""
    if seconds < 100:
        return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def print_result(text: str = "", mark: str = "", colour: int = 0) -> None:
    """Prints a line of results to stdout.

    Args:
        text: the line; invalid bytes of file names go into pipes and files unchanged.
        mark: a word before the line; empty: none.
        colour: the terminal's colour of that word (31 red, 33 yellow), where stdout can show it.
    """
    if mark:
        mark = (f"\x1b[{colour}m{mark}\x1b[0m" if _coloured(sys.stdout) else mark) + "  "
    _write(sys.stdout, f"{mark}{escape_controls(text)}\n")


def print_message(text: str) -> None:
    """Prints a message to stderr."""
    _write(sys.stderr, f"{printable(text)}\n")


class _Talk(logging.Handler):
    """Prints the library's log messages, warnings as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "note: " if record.levelno >= logging.WARNING else ""
        text = f"{prefix}{record.getMessage()}"
        if _held:
            _held[-1].append(text)
        else:
            print_message(text)


_held: list[list[str]] = []


def show_log_messages() -> None:
    """Prints the library's log messages to stderr from now on."""
    logger = logging.getLogger("orchestrator")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Talk) for handler in logger.handlers):
        logger.addHandler(_Talk())


@contextmanager
def deferred_messages() -> Iterator[list[str]]:
    """Holds log messages for the caller to print later, for example after a table; prints them if the block fails."""
    sentences: list[str] = []
    _held.append(sentences)
    try:
        yield sentences
    except BaseException:  # the caller will not print them
        _held.pop()
        for sentence in sentences:
            print_message(sentence)
        raise
    _held.pop()


def print_error(text: str) -> None:
    """Prints an error to stderr, in colour if the terminal can."""
    mark = "\x1b[31m\x1b[1merror: \x1b[0m" if _coloured(sys.stderr) else "error: "
    _write(sys.stderr, f"{mark}{printable(text)}\n")


def print_json(value: Any) -> None:
    """Prints a JSON value to stdout: NaN and infinity are null, invalid bytes of names are escaped."""
    text = json.dumps(_strict(value), indent=1, ensure_ascii=not is_utf8(sys.stdout), default=str, allow_nan=False)
    _state["emitted"] = True
    _write(sys.stdout, OUT_OF_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


def has_emitted() -> bool:
    """Whether the command has printed its JSON already: a second object would make neither readable."""
    return bool(_state["emitted"])


def stdout_console() -> Console:
    """The console of results, stdout. If it is not a terminal, nothing is cut, dropped or wrapped."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """The console of messages and progress, stderr."""
    return _console(sys.stderr)


def grid(
    title: str, *columns: str, keep: Sequence[str] = (), text: Sequence[str] = (), essential: Sequence[str] = ()
) -> Grid:
    """A plain table: the first column left, the others right. Where a terminal is too narrow for it, columns are left out.

    Args:
        title: the line above the table; may be empty.
        columns: the columns' headings.
        keep: headings of the columns to drop last, the most important first; the first column is never dropped, scores
            are dropped late, and of the others the rightmost first.
        text: headings of text columns: left-aligned, wrapped between words.
        essential: headings of text columns that are never dropped; they wrap within words where there is no other way.
    """
    from orchestrator.cli.tables import Grid

    return Grid(title, columns, keep, text, essential)


def score_text(value: float) -> str:
    """A score with four digits."""
    return "-" if value != value else f"{value:.4f}"


def print_stages(
    title: str, by_name: Mapping[str, Mapping[str, float]], console: Console | None = None, total: str = "all"
) -> None:
    """A table of seconds by stage, with each stage's share and their sum; one column per name.

    Args:
        title: the line above the table.
        by_name: name of what was measured -> stage -> seconds; its stages make up its whole time.
        console: where to print; None: stdout.
        total: the name of the sum.
    """
    table = grid(title, "stage", *by_name)
    stages = dict.fromkeys(stage for seconds_of in by_name.values() for stage in seconds_of)
    for stage in stages:
        cells = []
        for seconds_of in by_name.values():
            seconds, sum_of_stages = seconds_of.get(stage, 0.0), sum(seconds_of.values())
            cells.append(
                f"{seconds:,.1f}  {100 * seconds / sum_of_stages:3.0f} %"
                if stage in seconds_of and sum_of_stages
                else ""
            )
        table.add_row(stage, *cells)
    if len(stages) > 1:
        table.add_row(
            total, *(f"{sum(seconds_of.values()):,.1f}  100 %" if seconds_of else "" for seconds_of in by_name.values())
        )
    (console or stdout_console()).print(table)


def print_profile(
    by_run: Mapping[str, Mapping[str, float]], seconds: float, at_once: int, training: float = 0.0
) -> None:
    """Where a training's time went: its epochs by stage, and how that compares with the time that the command took.

    Args:
        by_run: run -> stage -> seconds, added up over its members.
        seconds: wall-clock seconds of the whole command.
        at_once: number of members that were trained side by side.
        training: seconds from the first member's beginning to the last one's end.
    """
    print_stages("seconds of epochs by stage, all members added up", by_run, total="all epochs")
    epochs = sum(sum(stages.values()) for stages in by_run.values())
    if at_once > 1 or epochs > seconds:
        how = "some by an earlier command"
        if at_once > 1:
            how = f"up to {at_once} members side by side; the rest of it, starting their processes and scoring each at its end"
        others = f" The other {seconds - training:,.1f} s of {seconds:,.1f} s: imports, checks, decoding, weights."
        print_message(f"{epochs:,.1f} s of epochs in {training:,.1f} s of training: {how}.{others}")
    else:
        print_message(
            f"{epochs:,.1f} s of {seconds:,.1f} s were epochs. The other {seconds - epochs:,.1f} s: imports, checks, decoding, "
            "weights, and the final scoring of each member."
        )
    print_message("`rest` within an epoch: sampling, history, checkpoints.")


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that shows count, rate and time left; nothing when it is not a terminal.

    Yields:
        A function of (done, all).
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second, once that is known."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="dim")

    console = stderr_console()
    columns = (SpinnerColumn(), TextColumn(text), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a stream that a test or another program put there
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()


def _console(stream: TextIO) -> Console:
    from orchestrator.cli.tables import Results

    terminal = stream.isatty()
    results = Results(file=stream, highlight=False, soft_wrap=False, width=None if terminal else UNBOUNDED)
    results.on_dropped = print_message
    return results


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _strict(value: Any) -> Any:
    """A value without numbers that JSON has no word for."""
    if isinstance(value, float):  # numpy's among them
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value

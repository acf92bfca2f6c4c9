"""How a command ends: every error as a sentence (and as JSON for `--json`), every signal as a calm stop, one exit code for each.

0 done   1 not in order, or partly failed   2 wrong input, or no room   70 a fault of ours
129, 130, 143: stopped by a hang-up, Ctrl-C, or SIGTERM
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from orchestrator.cli.console import has_emitted, print_error, print_json, print_message
from orchestrator.cli.limits import is_limited
from orchestrator.core.commands import set_aside_command
from orchestrator.core.errors import InputsError, OrchestratorError, Problem
from orchestrator.core.interrupts import uninterrupted
from orchestrator.core.memory import is_out_of_memory

__all__ = [
    "Ending",
    "InterruptError",
    "debugging",
    "end_undisturbed",
    "ending_of",
    "out_of_memory",
    "report_ending",
    "signals_as_interrupts",
    "stop_code",
]

USAGE_ERROR, CLICK_EXCEPTION = typer.BadParameter.__mro__[1:3]
"""Typer's base classes of usage errors, which it does not export."""

OUT_OF_MEMORY = "Out of memory. Lower --batch (predict), or --jobs, batch_size and the input size (train)."
FAULT = 70  # EX_SOFTWARE of sysexits.h
TOO_LARGE = ("File too large", "os error 27")
NO_ROOM = ("No space left", "os error 28", "database or disk is full")

AGAIN_SECONDS = 0.2
"""Time after which a stop that was lost, or would have been, is raised again."""
DESTRUCTOR_SECONDS = 10.0
"""Time after which a destructor or a callback is interrupted, and the exception dropped: torch's destructors wait 5 s for each
DataLoader worker."""
PATIENT_KEYS = 2
"""Somebody who waits presses Ctrl-C again; once more ends the process without any clean-up."""


@dataclass(frozen=True)
class Ending:
    """How a failed command ended.

    Attributes:
        kind: a stable word for machines.
        message: a sentence, with the way out.
        code: exit code.
        problems: the single problems.
        usage: the command's usage line, for usage errors.
        text: what a terminal shows; empty: the message.
    """

    kind: str
    message: str
    code: int = 2
    problems: Sequence[Problem] = ()
    usage: str = ""
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "error": {
                "kind": self.kind,
                "message": self.message,
                "problems": [problem.as_dict() for problem in self.problems],
            }
        }


class InterruptError(Exception):
    """Ctrl-C or a signal, wrapped so that Typer does not print a message of its own."""


class _Stopped(KeyboardInterrupt):
    """A signal that stops the command."""


class _Stop:
    """What arrives when a command is to stop, and how often.

    Attributes:
        signals: the signals that arrived, in order.
        began: time.monotonic() of the first.
        process: the process that stops; those that it forked end at once.
    """

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.began, self.process = 0.0, os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: SIGINT, SIGTERM, SIGHUP, or SIGALRM, by which a stop that got lost comes again."""
        if os.getpid() != self.process:
            os._exit(0)  # a DataLoader worker that was forked just now; the command learns of the stop by itself
        if not self.signals:
            self.began = time.monotonic()
            signal.signal(signal.SIGCHLD, _ignore)  # torch's handler raises when DataLoader workers are stopped
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        if number != signal.SIGALRM:
            self.signals.append(number)
        if self.signals.count(signal.SIGINT) > PATIENT_KEYS:
            os._exit(stop_code())
        if not _is_leaving() and not (_loses_exceptions(frame) and time.monotonic() - self.began < DESTRUCTOR_SECONDS):
            raise _Stopped


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """A context in which Ctrl-C, SIGTERM and SIGHUP stop the command in one way. `nohup` is respected.

    The clean-up after a stop is not interrupted, except by a third Ctrl-C, which ends the process. A stop that was lost
    (Python drops exceptions raised in destructors, and some libraries drop those raised in callbacks) is raised again until
    it arrives.
    """
    global _stop
    _stop = _Stop()
    before: dict[int, Any] = {}
    dropped = sys.unraisablehook
    if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(ending) in (signal.SIG_DFL, signal.default_int_handler):
                before[ending] = signal.signal(ending, _stop.handle)
        if before:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _stop.handle)
            before[signal.SIGCHLD] = signal.getsignal(signal.SIGCHLD)
            sys.unraisablehook = _report_dropped
    try:
        yield
    finally:
        sys.unraisablehook = dropped
        if before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_undisturbed() -> None:
    """From here on a signal changes nothing, since all is done and reported; a third Ctrl-C still ends the process."""
    pressed: list[int] = []

    def count(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)
        if pressed.count(signal.SIGINT) > PATIENT_KEYS:
            os._exit(128 + signal.SIGINT)

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(ending, count)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal that may be on its way already; of one that SIG_DFL would find so, Python complains."""


def _report_dropped(dropped: sys.UnraisableHookArgs) -> None:
    """Reports an exception that Python drops, unless it is a stop, which comes again."""
    if not isinstance(dropped.exc_value, _Stopped):
        sys.__unraisablehook__(dropped)


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Whether an exception raised in a frame would be dropped, in a destructor or a callback of a fork, or leave a wreck.

    Dropped in logging's callback it would leave the lock of all loggers locked as well.
    """
    while frame is not None:
        if (
            frame.f_code.co_name in ("__del__", "_acquireLock", "_releaseLock")
            or frame.f_code is uninterrupted.__code__
        ):
            return True
        frame = frame.f_back
    return False


def _is_leaving() -> bool:
    """Whether a stop is already being handled or cleaned up after."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, _Stopped):
            return True
        error = error.__context__
    return False


_stop = _Stop()


def stop_code() -> int:
    """The exit code of a command that was stopped: 130 for Ctrl-C, otherwise 128 plus the signal's number."""
    return 128 + (_stop.signals[0] if _stop.signals else signal.SIGINT)


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return os.environ.get("ORCH_DEBUG", "") not in ("", "0")


def ending_of(error: BaseException) -> Ending:
    """The ending that an error leads to."""
    if isinstance(error, OrchestratorError):
        return Ending(_kind(error), error.message, 2, error.problems, text=str(error))
    if isinstance(error, USAGE_ERROR):
        context = error.ctx  # type: ignore[attr-defined]  # of a base that Typer does not export
        usage = f"{context.get_usage()}\nTry '{context.command_path} --help' for help." if context else ""
        return Ending("usage", _usage_words(error), 2, usage=usage)
    if isinstance(error, CLICK_EXCEPTION):
        return Ending("usage", error.format_message(), 2)  # type: ignore[attr-defined]  # likewise
    if isinstance(error, InterruptError | KeyboardInterrupt):
        return Ending("interrupted", "Interrupted.", stop_code())
    text = f"{error} {error.__cause__ or ''}"
    # With little address space torch loads only some of its extensions.
    if is_out_of_memory(error) or (is_limited() and "operator torchvision::" in text):
        return out_of_memory()
    number = error.errno if isinstance(error, OSError) else None
    where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    if number == errno.EFBIG or _says(TOO_LARGE, text):
        sentence = f"A file would be larger than this shell allows its programs{where}. `ulimit -f unlimited` lifts that, then "
        return Ending("disk", sentence + "run the same command again.")
    if number == errno.EMFILE:
        sentence = "Too many files are open for this shell's limit. Raise it (`ulimit -n 1024`), then run the same command again."
        return Ending("files", sentence)
    if number in (errno.ENOSPC, errno.EDQUOT) or _says(NO_ROOM, text):
        return Ending("disk", f"The disk is full{where}. Free some room and run the same command again.")
    if isinstance(error, OSError) and error.filename:
        return Ending("file", _no_folder(error) or f"{error.filename}: {error.strerror}.")
    if isinstance(error, UnicodeEncodeError):
        return Ending("name", _no_name(error))
    sentence = f"This is a fault in orch, not in your input: {type(error).__name__}: {error}\n"
    return Ending("fault", f"{sentence}Run it again with ORCH_DEBUG=1 for the traceback, and report it.", FAULT)


def out_of_memory() -> Ending:
    """The ending of a command that ran out of memory."""
    limit = " `ulimit -v` limits this shell's programs to less than they need." if is_limited() else ""
    return Ending("memory", f"{OUT_OF_MEMORY}{limit}")


def _no_folder(error: OSError) -> str:
    """A message that names what stands in the way of a folder, with the way out; empty for other errors."""
    if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
        return ""
    from orchestrator.core.files import why_no_folder  # imports hashlib and safetensors, which --help does without

    path = Path(os.fsdecode(error.filename))
    for ancestor in (path, *path.parents):
        if reason := why_no_folder(ancestor):
            aside = set_aside_command(ancestor)
            return f"{ancestor}: {reason}. Move it away (`{aside}`) and run the same command again."
    return ""


def report_ending(ending: Ending, json: bool) -> None:
    """Reports how a command ended: a sentence on stderr, and with `--json` an object on stdout if none was printed."""
    if ending.usage:
        print_message(ending.usage)
    shown = ending.text or ending.message
    if ending.kind == "interrupted":
        print_message(f"\n{shown}")
    else:
        print_error(shown)
    if json and not has_emitted():
        print_json(ending.as_dict())


def _kind(error: OrchestratorError) -> str:
    """`DataError` -> `data`, `OrchestratorError` -> `orchestrator`; several errors have the kind that they share, or `config`."""
    if isinstance(error, InputsError):
        kinds = {_kind(part) for part in error.errors}
        return kinds.pop() if len(kinds) == 1 else "config"
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()


def _usage_words(error: BaseException) -> str:
    """Typer's sentence, with one full stop at its end."""
    text = " ".join(error.format_message().split())  # type: ignore[attr-defined]  # likewise
    return text if text.endswith((".", "?")) else f"{text}."


def _no_name(error: UnicodeEncodeError) -> str:
    """A message on a name that cannot be encoded."""
    escaped = ascii(error.object)
    name = escaped if len(escaped) < 200 else f"{escaped[:200]}..."
    if error.encoding.replace("-", "").lower() == "utf8":
        return f"{name}: a name that is not UTF-8 cannot be kept in tables and records. Rename the file, and its row."
    how = "Set PYTHONUTF8=1, or a locale that knows it (LC_ALL=C.UTF-8), and run the same command again."
    return f"{name}: this system's encoding ({error.encoding}) has no letters for that name. {how}"


def _says(phrases: Sequence[str], text: str) -> bool:
    return any(phrase.lower() in text.lower() for phrase in phrases)

"""Every error that a user can cause, and the shape of its message.

A message says what was found and where, what is allowed, and the way out, that is, what the user can do. All problems
of one input are collected and raised together, so that a user can fix them in one pass.

    OrchestratorError
    ├── DataError         the photos or their table
    │   └── PhotoError    one photo that cannot be read
    ├── ConfigError       a recipe, a --set or an option
    │   └── InputsError   several of a command's inputs
    ├── PlanError         a fold plan: impossible, mixed, or not of this data
    ├── StoreError        the pixel store: no room on the disk
    ├── WeightsError      backbone weights: not found, not fitting, or hub unreachable
    ├── DeviceError       a device that is missing or out of memory
    ├── EngineError       an engine that cannot run a member, or answers differently from torch
    ├── WorkspaceError    a workspace, run, member or ensemble: missing, broken, or written by another version
    │   └── DamagedError  a file of the workspace that is not the one that was written
    ├── ClosedError       a predictor that was closed
    ├── LeakError         a score that would use a person seen in training
    └── TrainingError     jobs that failed while others went on

PhotoError and DamagedError are also a FileError: they carry the file, what is wrong with it, and the way out.
This module does not depend on the code that raises the errors.
"""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

__all__ = [
    "CONTROLS",
    "ClosedError",
    "ConfigError",
    "DamagedError",
    "DataError",
    "DeviceError",
    "EngineError",
    "FileError",
    "InputsError",
    "LeakError",
    "Mistakes",
    "OrchestratorError",
    "PhotoError",
    "PlanError",
    "Problem",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "WorkspaceError",
    "check_choice",
    "escape_controls",
    "escape_non_utf8",
    "first_line",
    "nearest",
    "printable",
    "quantity",
]

SHOWN_PROBLEMS = 20  # a terminal page; `orch data check --json` lists all of them


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Attributes:
        where: the file, row or key.
        what: what was found there, and what is allowed.
        fix: the way out, as an instruction; empty when `what` says it already.
        kind: a stable word for machines, such as `missing_file`.
        fatal: False for a note that does not stop the command.
        column: name of a missing or invalid table column; empty otherwise.
    """

    where: str
    what: str
    fix: str = ""
    kind: str = "invalid"
    fatal: bool = True
    column: str = ""

    def __post_init__(self) -> None:
        for name in ("where", "what", "fix"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" {self.fix}" if self.fix else "")

    def as_dict(self) -> dict[str, str | bool]:
        """The problem as a JSON object."""
        return asdict(self)


class OrchestratorError(Exception):
    """Base of all errors that a user can act on.

    Args:
        message: what is wrong, in a sentence, with the way out.
        problems: individual problems, if one input has several.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        message = printable(message)
        super().__init__(message, tuple(problems))
        self.message = message
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[OrchestratorError], tuple[Any, ...]]:
        # Errors cross process borders (joblib workers), where only `args` would survive.
        return (type(self), (self.message, self.problems))

    def __str__(self) -> str:
        lines = [self.message]
        lines += [f"  - {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"  ... and {len(self.problems) - SHOWN_PROBLEMS} more")
        return "\n".join(lines)


class DataError(OrchestratorError):
    """The photos or their table are not fit for use."""


class FileError(OrchestratorError):
    """An error about one file.

    Args:
        path: file, as named in the message.
        what: description of the fault, without a full stop.
        way_out: what the user can do, as a full sentence; may be empty.
        problems: individual problems, if there are several.

    Attributes:
        fact: message without the way out and without the full stop.
    """

    def __init__(self, path: object, what: str, way_out: str = "", problems: Sequence[Problem] = ()) -> None:
        self.path, self.what, self.way_out = printable(str(path)), printable(what), printable(way_out)
        self.fact = f"{self.path}: {self.what}"
        super().__init__(f"{self.fact}." + (f" {self.way_out}" if way_out else ""), problems)

    def __reduce__(self) -> tuple[type[OrchestratorError], tuple[Any, ...]]:
        return (type(self), (self.path, self.what, self.way_out, self.problems))

    def problem(self, kind: str) -> Problem:
        """This error as a `Problem`, to be listed with others."""
        return Problem(self.path, f"{self.what}.", self.way_out, kind)


class PhotoError(FileError, DataError):
    """One photo cannot be read.

    Args:
        path: file, as named in the message.
        what: description of the fault, without a full stop.
        way_out: what the user can do, as a full sentence; may be empty.
        problems: individual problems, if there are several.
        kind: a stable word for machines, one of `KINDS` in data/decoding.py.
    """

    def __init__(
        self, path: object, what: str, way_out: str = "", problems: Sequence[Problem] = (), kind: str = "damaged"
    ) -> None:
        super().__init__(path, what, way_out, problems)
        self.kind = kind

    def __reduce__(self) -> tuple[type[OrchestratorError], tuple[Any, ...]]:
        return (type(self), (self.path, self.what, self.way_out, self.problems, self.kind))


class ConfigError(OrchestratorError):
    """A recipe, a `--set` or an option is wrong."""


class InputsError(ConfigError):
    """Several inputs of one command are wrong. Its problems are those of all of them, however many a terminal shows.

    Args:
        errors: an error for each of them, at least two.
    """

    def __init__(self, errors: Sequence[OrchestratorError]) -> None:
        problems = [problem for error in errors for problem in error.problems]
        super().__init__("\n".join(error.message for error in errors), problems)
        self.errors = tuple(errors)

    def __reduce__(self) -> tuple[type[OrchestratorError], tuple[Any, ...]]:
        return (type(self), (self.errors,))

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class PlanError(OrchestratorError):
    """A fold plan is impossible, mixed with another, or not of this data."""


class StoreError(OrchestratorError):
    """The pixel store cannot be built."""


class WeightsError(OrchestratorError):
    """Weights cannot be obtained, or do not fit the backbone."""


class DeviceError(OrchestratorError):
    """A device is missing or out of memory."""


class EngineError(OrchestratorError):
    """An engine cannot run a member, or answers differently from torch."""


class WorkspaceError(OrchestratorError):
    """Something in the workspace is missing, broken, or written by a newer version."""


class DamagedError(FileError, WorkspaceError):
    """A workspace file is missing, damaged, or not the one that was written.

    Args:
        path: file, as named in the message.
        what: description of the fault, without a full stop.
        way_out: what the user can do, as a full sentence; may be empty.
        problems: individual problems, if there are several.
        replaceable: whether the file may be set aside and rewritten; False if a newer version wrote it, or if it
            cannot be read.
    """

    def __init__(
        self, path: object, what: str, way_out: str = "", problems: Sequence[Problem] = (), replaceable: bool = True
    ) -> None:
        super().__init__(path, what, way_out, problems)
        self.replaceable = replaceable

    def __reduce__(self) -> tuple[type[OrchestratorError], tuple[Any, ...]]:
        return (type(self), (self.path, self.what, self.way_out, self.problems, self.replaceable))


class ClosedError(OrchestratorError):
    """A predictor was used after it had been closed."""


class LeakError(OrchestratorError):
    """A score would use a person whom the member has seen in training."""


class TrainingError(OrchestratorError):
    """Some training jobs failed; the others were finished and kept."""


CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that control a terminal (cursor, colour, text direction); tab and newline are harmless."""


def printable(text: str) -> str:
    """Text that is safe to print: terminal control characters and non-UTF-8 bytes of file names are escaped."""
    return escape_non_utf8(escape_controls(text))


def escape_controls(text: str) -> str:
    """Text with terminal control characters escaped; non-UTF-8 bytes of file names stay, for the stream to write."""
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def escape_non_utf8(text: str) -> str:
    """Text that can be encoded as UTF-8: other bytes of file names (surrogates) become `\\xe9`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        pairs = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # two halves of one character
        try:
            return pairs.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return pairs.encode("utf-8", "backslashreplace").decode()
    return text


def first_line(error: BaseException) -> str:
    """The first line of another library's error, without a full stop; if it is empty, the source line that failed."""
    lines = str(error).strip().splitlines()
    if lines:
        return lines[0].rstrip(". ").replace("`", "'")  # backticks are for our own commands
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at '{frames[-1].line}'" if frames and frames[-1].line else type(error).__name__


def quantity(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it needs one: `1 problem`, `2 problems`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(word: str, allowed: Iterable[str], cutoff: float = 0.65, most: int = 1) -> str:
    """A hint that names up to `most` of the nearest allowed words: `" Did you mean 'x' or 'y'?"`, or an empty string.

    Case, spaces and punctuation are ignored, a prefix of an allowed word is near it, and words much farther than the
    nearest are dropped. Below the cut-off (difflib's ratio) similarity is chance: `learning_rate` must not suggest
    `drop_rate`, nor `macro_f1` suggest `crop`.
    """
    target, plain_options = _plain(word), {option: _plain(option) for option in allowed}
    matcher, ratios = difflib.SequenceMatcher(b=target), {}
    for option, plain_option in plain_options.items():
        matcher.set_seq1(plain_option)
        if matcher.real_quick_ratio() >= cutoff:
            ratios[option] = matcher.ratio()
    completions = {
        option for option, plain_option in plain_options.items() if len(target) > 1 and plain_option.startswith(target)
    }
    best = max(ratios.values(), default=0.0)
    if best < SAME and completions:
        suggestions = sorted(completions, key=lambda option: (len(option), option))
    else:
        near = [option for option, ratio in ratios.items() if ratio >= max(cutoff, best - FURTHER)]
        suggestions = sorted(
            near, key=lambda option: (-ratios[option], -_begins_alike(plain_options[option], target), option)
        )
    quoted = " or ".join(f"'{name}'" for name in suggestions[:most])
    return f" Did you mean {quoted}?" if suggestions else ""


SAME, FURTHER = 0.9, 0.1
"""Ratios of difflib: from SAME on a word is a typing error; one that is more than FURTHER below the nearest is dropped."""


def _plain(word: str) -> str:
    return "".join(letter for letter in str(word).lower() if letter.isalnum())


def _begins_alike(first: str, second: str) -> int:
    """How many letters both begin with."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))


def check_choice(option: str, value: str | None, allowed: Collection[str]) -> None:
    """Refuses a value that an option does not allow; None stands for an option that was left out.

    Raises:
        ConfigError: the value is not allowed; names the allowed ones.
    """
    if value is not None and value not in allowed:
        raise ConfigError(f"{option} {value}; allowed: {', '.join(allowed)}.{nearest(value, allowed)}")


class Mistakes:
    """Collects the errors of several inputs, to raise them together."""

    def __init__(self) -> None:
        self._errors: list[OrchestratorError] = []

    @contextmanager
    def collect(self, task: str = "") -> Iterator[None]:
        """Catches an error raised in the block and stores it."""
        try:
            yield
        except OrchestratorError as error:
            for part in _parts(error):
                if task:
                    part.message = f"{task}: {part.message}"
                self.add(part)

    def add(self, error: OrchestratorError) -> None:
        """Stores an error, or each error of an `InputsError`."""
        self._errors += _parts(error)

    def raise_if_any(self) -> None:
        """Raises the stored errors, if there are any.

        Raises:
            OrchestratorError: the only error, unchanged; several are raised as one `InputsError`.
        """
        errors: dict[str, OrchestratorError] = {}
        for error in self._errors:
            errors.setdefault(str(error), error)  # several inputs may share a mistake
        if len(errors) == 1:
            raise self._errors[0]
        if errors:
            raise InputsError(list(errors.values()))


def _parts(error: OrchestratorError) -> Sequence[OrchestratorError]:
    return error.errors if isinstance(error, InputsError) else (error,)

"""Plain values of options without pydantic.

Typer converts every option's value by pydantic models, whose import takes 60 of the 150 ms of `orch runs list`. Nearly all
values are plain: a text, a path, a number. Those are converted here, to what Typer would make of them, and plain numbers out
of range and words that are not numbers are refused here, naming the value and the allowed ones, which Typer does not. For any
other value Typer's own conversion is asked, so that its rules hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperOption

__all__ = ["plain_conversion"]

METHOD = "get_runtime_param"
"""What Typer (0.29) asks a parameter for, to convert its value."""

DESCRIPTION = "type_descriptor"
"""Where a parameter of that version says what its value is to be."""

WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")
DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
NO_NUMBER = re.compile(r"(?!.*(?:nan|inf))[A-Za-z,;:/_.+-]+", re.IGNORECASE)
"""Texts that are a number in no spelling."""

KINDS = {int: "a whole number", float: "a number"}

PATH_CHECKS = ("exists", "writable", "resolve_path", "allow_dash", "path_type")
"""Words of typer.Option that ask something of a path; paths with one of them are left to Typer."""


class _NotPlainError(Exception):
    """The value is not one that is converted here."""


class _RefusedError(Exception):
    """A plain value that Typer would refuse, too."""


class _Conversion:
    """What Typer calls to convert a parameter's value, instead of what it makes by `typers`."""

    def __init__(self, parameter: Any, typers: Callable[[Any], Any]) -> None:
        self._parameter, self._typers = parameter, typers

    def coerce(self, value: Any, **details: Any) -> Any:
        """A parameter's value, converted without pydantic where that is possible, and by Typer elsewhere.

        Raises:
            typer.BadParameter: Typer refuses the value.
        """
        try:
            if value is None:  # an option that was left out and has no default
                return () if self._parameter.multiple or self._parameter.nargs == -1 else None
            described = getattr(self._parameter, DESCRIPTION)
            annotation, info = described.annotation, described.parameter_info
            return _converted(value, annotation, info)
        except AttributeError:  # a version of Typer in which what is looked at here has another name
            return self._typers(self._parameter).coerce(value, **details)
        except _RefusedError:
            raise typer.BadParameter(_refusal(value, annotation, info), **details) from None
        except _NotPlainError:
            try:
                return self._typers(self._parameter).coerce(value, **details)
            except typer.BadParameter:
                if _kind(annotation) not in KINDS or info.parser is not None:
                    raise
                raise typer.BadParameter(_refusal(value, annotation, info), **details) from None


@contextmanager
def plain_conversion() -> Iterator[None]:
    """While it is open, Typer's options and arguments convert plain values here.

    Typer has no public place for this, so a method of its parameters is replaced: it is Typer's own again afterwards. A
    version without that method, or whose parameters are described in another way, converts everything itself.
    """
    methods = {kind: getattr(kind, METHOD) for kind in (TyperOption, TyperArgument) if hasattr(kind, METHOD)}
    for kind, typers in methods.items():
        setattr(kind, METHOD, partialmethod(_Conversion, typers))
    try:
        yield
    finally:
        for kind, typers in methods.items():
            setattr(kind, METHOD, typers)


def _converted(value: Any, annotation: Any, info: Any) -> Any:
    """A plain value as its annotation wants it.

    Raises:
        _NotPlainError: it is for Typer.
    """
    if info.parser is not None:
        raise _NotPlainError
    if get_origin(annotation) is list and isinstance(value, (list, tuple)):
        return [_converted(item, get_args(annotation)[0], info) for item in value]
    if annotation is str and type(value) is str:
        return value
    if annotation is Path:
        return _path(value, info)
    if annotation in (int, float):
        return _number(value, annotation, info)
    raise _NotPlainError


def _kind(annotation: Any) -> Any:
    """What a value, or each item of a list, is to be."""
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def _refusal(value: Any, annotation: Any, info: Any) -> str:
    """That a value, or an item of several, is not allowed, and what is."""
    if _kind(annotation) is Path:
        return "an empty path; '.' is the current folder."
    shown = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    allowed = KINDS[_kind(annotation)]
    if info.min is not None and info.max is not None:
        allowed += f", {info.min} to {info.max}"
    elif info.min is not None:
        allowed += f", {info.min} or more"
    elif info.max is not None:
        allowed += f", {info.max} or less"
    return f"'{shown}'; allowed: {allowed}."


def _path(value: Any, info: Any) -> Path:
    if (
        value == ""
    ):  # pathlib's current folder: `predict ''`, as by an unset variable, would predict all that lies below it
        raise _RefusedError
    if not isinstance(value, (str, Path)) or any(getattr(info, word) for word in PATH_CHECKS):
        raise _NotPlainError
    if _is_there(value):
        readable = not info.readable or os.access(value, os.R_OK)
        if not (info.file_okay and info.dir_okay and readable):
            raise _NotPlainError
    return Path(value)


def _is_there(value: str | Path) -> bool:
    """Whether something is at a path; at the end of a link that leads nowhere there is nothing, for Typer too."""
    try:
        Path(value).stat()
    except (OSError, ValueError):  # or no name that a file could have
        return False
    return True


def _number(value: Any, kind: type, info: Any) -> Any:
    written = WHOLE_NUMBER if kind is int else DECIMAL
    if type(value) is str and written.fullmatch(value):
        value = kind(value)
    elif type(value) is str and NO_NUMBER.fullmatch(value):
        raise _RefusedError
    if type(value) is not kind or info.clamp:
        raise _NotPlainError
    if (info.min is not None and value < info.min) or (info.max is not None and value > info.max):
        raise _RefusedError
    return value

"""Plain values of options without pydantic.

Typer converts every option's value by pydantic models, whose import takes 60 of the 150 ms of `orch runs list`. Nearly all
values are plain: a text, a path, a number in its range. Those are converted here, to what Typer would make of
them. For any other value, wrong ones above all, Typer's own conversion is asked, so that its rules and its messages hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any, get_args, get_origin

from typer.core import TyperArgument, TyperOption

__all__ = ["plain_conversion"]

METHOD = "get_runtime_param"
"""What Typer (0.29) asks a parameter for, to convert its value."""

WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}")
DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")

PATH_CHECKS = ("exists", "writable", "resolve_path", "allow_dash", "path_type")
"""Words of typer.Option that ask something of a path; paths with one of them are left to Typer."""


class _NotPlainError(Exception):
    """The value is not one that is converted here."""


class _Conversion:
    """What Typer calls to convert a parameter's value, in the place of what it makes by `typers`."""

    def __init__(self, parameter: Any, typers: Callable[[Any], Any]) -> None:
        self._parameter, self._typers = parameter, typers

    def coerce(self, value: Any, **words: Any) -> Any:
        """The converted value.

        Raises:
            typer.BadParameter: Typer refuses the value.
        """
        if value is None:  # an option that was left out and has no default
            return () if self._parameter.multiple or self._parameter.nargs == -1 else None
        described = self._parameter.type_descriptor
        try:
            return _converted(value, described.annotation, described.parameter_info)
        except _NotPlainError:
            return self._typers(self._parameter).coerce(value, **words)


@contextmanager
def plain_conversion() -> Iterator[None]:
    """While it is open, Typer's options and arguments convert plain values here.

    Typer has no public place for this, so a method of its parameters is replaced: it is Typer's own again afterwards. A
    version without that method converts everything itself.
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


def _path(value: Any, info: Any) -> Path:
    if not isinstance(value, (str, Path)) or any(getattr(info, word) for word in PATH_CHECKS):
        raise _NotPlainError
    if os.path.lexists(value) and not (
        info.file_okay and info.dir_okay and info.readable and os.access(value, os.R_OK)
    ):
        raise _NotPlainError
    return Path(value)


def _number(value: Any, kind: type, info: Any) -> Any:
    written = WHOLE_NUMBER if kind is int else DECIMAL
    if type(value) is str and written.fullmatch(value):
        value = kind(value)
    if type(value) is not kind or info.clamp:
        raise _NotPlainError
    if (info.min is not None and value < info.min) or (info.max is not None and value > info.max):
        raise _NotPlainError
    return value

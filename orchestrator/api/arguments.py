"""Arguments as callers give them: paths may be texts; values of other types than declared are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from os import PathLike as AnyPath
from pathlib import Path
from typing import ParamSpec, TypeVar

from orchestrator.core.arguments import checked_arguments
from orchestrator.core.typed import declared_types

__all__ = ["PathLike", "checks_arguments", "path_or_none"]

PathLike = str | AnyPath[str]
"""A path, as callers may give it."""

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def path_or_none(path: PathLike | None) -> Path | None:
    """A path, if one is given."""
    return None if path is None else Path(path)


def checks_arguments(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Makes a function check its arguments against the types that it declares.

    The wrapped function raises a ConfigError that names every wrong argument, its value and its type. One text or path for a
    `Sequence` is wrong too: it would be taken letter by letter. NumPy's numbers and sequences are taken as Python's.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Returned:
        bound = signature.bind(*args, **options)
        bound.arguments.update(checked_arguments(bound.arguments, declared_types(function)))
        return function(*bound.args, **bound.kwargs)

    return checked

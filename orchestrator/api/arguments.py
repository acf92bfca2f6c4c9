"""Arguments as callers give them: paths may be texts, and one text does not stand for a sequence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from os import PathLike as AnyPath
from pathlib import Path
from typing import ParamSpec, TypeVar

from orchestrator.core.arguments import check_sequence

__all__ = ["PathLike", "path_or_none", "refuses_single_texts"]

PathLike = str | AnyPath[str]
"""A path, as callers may give it."""

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def path_or_none(path: PathLike | None) -> Path | None:
    """A path, if one is given."""
    return None if path is None else Path(path)


def refuses_single_texts(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Makes a function refuse one text or path for each of its arguments that is a `Sequence`: it would be taken letter by
    letter.

    The wrapped function raises a ConfigError that names the argument and the way to write it.
    """
    names = [name for name, kind in function.__annotations__.items() if str(kind).startswith("Sequence[")]
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Returned:
        arguments = signature.bind(*args, **options).arguments
        for name in names:
            check_sequence(name, arguments.get(name))
        return function(*args, **options)

    return checked

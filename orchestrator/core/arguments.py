"""Checks of arguments, for callers of the library; the command line makes them by itself."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import cache
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from orchestrator.core.errors import ConfigError, Mistakes

__all__ = ["MOST_SEED", "argument_types", "check_range", "check_sequence", "check_types_of"]

MOST_SEED = 2**32 - 1
"""The largest seed: NumPy's and scikit-learn's seeds have 32 bits."""


def check_range(
    option: str, value: float | None, low: float, high: float | None = None, fraction: bool = False
) -> None:
    """Refuses a number that is out of range or NaN; None stands for a number that was left out.

    Args:
        option: its name in the message, such as `--seed`.
        value: the number.
        low: the lowest number that is allowed.
        high: the highest number that is allowed; None: any number from `low` on.
        fraction: whether it may be other than a whole number.

    Raises:
        ConfigError: the number is out of range; says which ones are allowed.
    """
    if value is None:
        return
    is_right_kind = isinstance(value, int | float if fraction else Integral) and not isinstance(value, bool)
    if is_right_kind and low <= value and (high is None or value <= high):
        return
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    raise ConfigError(f"{option} {value}; allowed: {'' if is_right_kind else 'a whole number, '}{allowed}.")


def check_sequence(argument: str, value: object) -> None:
    """Refuses a single string or path where a sequence is expected: its letters would be taken as the items.

    Args:
        argument: its name.
        value: its value.

    Raises:
        ConfigError: the value is a single string or path; says how to write it as a sequence.
    """
    if isinstance(value, str | bytes | PathLike):
        shown = "b'...'" if isinstance(value, bytes) else repr(str(value))
        raise ConfigError(f"{argument} = {shown}: a sequence is needed, even of one: write {argument}=[{shown}].")


@cache
def argument_types(of: Callable[..., Any]) -> dict[str, Any]:
    """Argument -> type of a function or a dataclass; Any for a name that is imported for type checkers only."""
    return get_type_hints(of, localns=_AnyIfMissing({**vars(builtins), **vars(sys.modules[of.__module__])}))


class _AnyIfMissing(dict[str, Any]):
    """Names and what they stand for; Any for names that are missing."""

    def __missing__(self, name: str) -> Any:
        return Any


def check_types_of(arguments: Mapping[str, object], types: Mapping[str, Any]) -> None:
    """Refuses arguments of wrong types, all of them at once.

    NumPy's numbers are numbers, a whole number is allowed for a float, and any sized collection in some order is a sequence.

    Args:
        arguments: argument -> value.
        types: argument -> type; others are not checked.

    Raises:
        ConfigError: names each argument, its value and what is needed.
    """
    mistakes = Mistakes()
    for argument, value in arguments.items():
        if argument in types:
            with mistakes.collect():
                _check_type(argument, value, types[argument])
    mistakes.raise_if_any()


def _check_type(argument: str, value: object, kind: Any) -> None:
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    origins = [get_origin(option) or option for option in options]
    if Sequence in origins and not any(isinstance(value, other) for other in origins if other is not Sequence):
        check_sequence(argument, value)
    fitting = [option for option, origin in zip(options, origins, strict=True) if _is_of(value, origin)]
    if not fitting:
        shown = repr(value) if isinstance(value, str | int | float | NoneType) else f"a {type(value).__name__}"
        raise ConfigError(f"{argument} = {shown}; needed: {_needed(origins)}.")
    for part, part_value, part_kind in _parts(argument, value, fitting[0]):
        _check_type(part, part_value, part_kind)


def _is_of(value: object, origin: Any) -> bool:
    """Whether a value is of a type, whatever is inside it."""
    if origin is Any:
        return True
    if isinstance(value, bool):
        return origin in (bool, object)
    if origin is Sequence:
        return isinstance(value, Sized) and hasattr(value, "__getitem__") and not isinstance(value, Mapping)
    if origin is Callable:
        return callable(value)
    return isinstance(value, {int: Integral, float: Real}.get(origin, origin))


def _parts(argument: str, value: Any, kind: Any) -> Iterator[tuple[str, object, Any]]:
    """The parts of a sequence or a mapping: names for messages, values and types."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Sequence:
        yield from ((f"{argument}[{number}]", item, inside[0]) for number, item in enumerate(value))
    elif origin in (dict, Mapping):
        for key, item in value.items():
            yield from ((f"a key of {argument}", key, inside[0]), (f"{argument}[{key!r}]", item, inside[1]))


NEEDED = {
    str: "a string", int: "a whole number", float: "a number", bool: "True or False", PathLike: "a path", NoneType: "None",
    Sequence: "a sequence", Mapping: "a mapping", dict: "a mapping", Callable: "a function",
}  # fmt: skip


def _needed(origins: Sequence[Any]) -> str:
    words = [
        NEEDED.get(origin) or f"a {origin.__name__}"
        for origin in origins
        if origin is not str or PathLike not in origins
    ]
    return " or ".join(words)

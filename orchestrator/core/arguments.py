"""Checks of arguments, for callers of the library; the command line makes them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from types import UnionType
from typing import Any, Union, get_args, get_origin

from orchestrator.core.errors import ConfigError, Mistakes
from orchestrator.core.typed import check_type

__all__ = ["MOST_SEED", "check_folds", "check_range", "check_sequence", "checked_arguments"]

MOST_SEED = 2**32 - 1
"""The largest seed: NumPy's and scikit-learn's seeds have 32 bits."""

TEXTS = (str, bytes, PathLike, Mapping)
"""Iterables that stand for no sequence."""


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


def check_folds(folds: int, or_else: str) -> None:
    """Refuses a number of folds that no plan has: one fold would hold everybody out.

    Args:
        folds: the number of folds; 0: no plan.
        or_else: what else is allowed, and what it means, to complete the sentence.

    Raises:
        ConfigError: the number is negative or 1.
    """
    if folds < 0 or folds == 1:
        raise ConfigError(f"--folds {folds}; allowed: 2 or more, {or_else}.")


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


def checked_arguments(arguments: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the types that are declared; wrong ones are refused, all of them at once.

    Args:
        arguments: argument -> value. Numbers may be NumPy's, and a sequence any iterable but a text or a mapping.
        types: argument -> type.

    Returns:
        The arguments, with Python's numbers and sequences.

    Raises:
        ConfigError: names each argument, its value and its type.
    """
    mistakes, checked = Mistakes(), {}
    for argument, value in arguments.items():
        kind = types[argument]
        checked[argument] = _as_declared(value, kind)
        with mistakes.collect():
            if get_origin(kind) is Sequence:
                check_sequence(argument, value)
            _check_not_empty(argument, checked[argument], kind)
            try:
                check_type(checked[argument], kind, argument)
            except TypeError as error:
                raise ConfigError(f"{error}.") from None
    mistakes.raise_if_any()
    return checked


def _check_not_empty(argument: str, value: object, kind: Any) -> None:
    """Refuses an empty text where a path is expected: pathlib takes it for the current folder."""
    for option in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        origin = get_origin(option) or option
        if origin is Sequence and isinstance(value, list | tuple):
            for item in value:
                _check_not_empty(argument, item, get_args(option)[0])
        elif origin is PathLike and isinstance(value, str) and not value:
            raise ConfigError(f"{argument} = '': an empty path; '.' is the current folder.")


def _as_declared(value: Any, kind: Any) -> Any:
    """A value as its type is written: Python's own numbers for NumPy's, a list or tuple of any iterable; others as they are."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for option in options:
        origin, inside = get_origin(option) or option, get_args(option)
        if origin in (int, float, bool) and getattr(value, "shape", None) == () and hasattr(value, "item"):
            return value.item()
        if origin in (int, float) and isinstance(value, Real) and not isinstance(value, bool):
            return int(value) if isinstance(value, Integral) else float(value)
        if origin in (Sequence, tuple) and isinstance(value, Iterable) and not isinstance(value, TEXTS):
            try:
                items = [_as_declared(item, inside[0]) for item in value]
            except TypeError:  # an array without dimensions
                return value
            return tuple(items) if origin is tuple or isinstance(value, tuple) else items
    return value

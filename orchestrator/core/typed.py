"""Whether values are of the types that are declared: for records read from JSON, and for arguments; without pydantic's import."""

from __future__ import annotations

import builtins
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["check_type", "check_types", "declared_types"]

MODULE = re.compile(r"\b(typing|collections\.abc|os)\.")
MOST_SHOWN = 80
"""Characters of a value in a message."""


def check_types(value: Any) -> None:
    """Checks the fields of a dataclass, and of those inside it.

    A whole number is allowed for a float, and a bool for neither int nor float. The contents of unions, literals, sequences,
    tuples and mappings are checked too; a string is not a sequence.

    Raises:
        TypeError: a value has another type; names the field, the value and the type.
    """
    for name, kind in _types_of(type(value)).items():
        check_type(getattr(value, name), kind, name)


@cache
def declared_types(of: Callable[..., Any]) -> dict[str, Any]:
    """Argument or field -> type of a function or a dataclass; Any for a name that is imported for type checkers only."""
    return get_type_hints(of, localns=_AnyIfMissing({**vars(builtins), **vars(sys.modules[of.__module__])}))


class _AnyIfMissing(dict[str, Any]):
    """Names and what they stand for; Any for names that are missing."""

    def __missing__(self, name: str) -> Any:
        return Any


def _types_of(kind: Any) -> dict[str, Any]:
    """Field -> type of a dataclass."""
    return {field.name: declared_types(kind)[field.name] for field in fields(kind)}


def check_type(value: Any, kind: Any, where: str) -> None:
    """Checks a value, and what is inside it, as `check_types` does.

    Args:
        value: the value.
        kind: its type.
        where: its name in the message.

    Raises:
        TypeError: names the value, or the part of it that has another type.
    """
    if not _is_of(value, kind):
        if (get_origin(kind) or kind) is Callable:
            kind = Callable  # its arguments and their types would fill the screen
        needed = kind.__name__ if isinstance(kind, type) and not get_args(kind) else MODULE.sub("", str(kind))
        shown = repr(value)
        if len(shown) > MOST_SHOWN or "\n" in shown:
            shown = f"a {type(value).__name__}"
        raise TypeError(f"{where} is {shown}, and must be {needed}")
    for part, part_kind, part_where in _parts(value, kind, where):
        check_type(part, part_kind, part_where)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, whatever is inside it."""
    origin = get_origin(kind) or kind
    if origin in (types.UnionType, Union):
        return any(_is_of(value, option) for option in get_args(kind))
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in get_args(kind))
    if isinstance(value, bool):
        return origin in (bool, Any)
    if origin is Sequence and isinstance(value, str):
        return False
    if origin is tuple and isinstance(value, tuple) and ... not in get_args(kind):
        return len(value) == len(get_args(kind))
    return origin is Any or isinstance(value, (int, float) if origin is float else origin)


def _parts(value: Any, kind: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """The parts of a value: each with its type, and its name for messages."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        yield from _parts(value, next(option for option in inside if _is_of(value, option)), where)
    elif origin in (list, tuple, Sequence):
        kinds = inside if origin is tuple and ... not in inside else inside[:1] * len(value)
        yield from (
            (item, of, f"{where}[{number}]") for number, (item, of) in enumerate(zip(value, kinds, strict=True))
        )
    elif origin in (dict, Mapping):
        for key, item in value.items():
            yield from ((key, inside[0], f"a key of {where}"), (item, inside[1], f"{where}.{key}"))
    elif is_dataclass(kind):
        yield from ((getattr(value, name), part, f"{where}.{name}") for name, part in _types_of(kind).items())

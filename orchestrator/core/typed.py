"""Whether the values of a dataclass are of the types that it declares: for records read from JSON, without pydantic's import."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["check_types"]


def check_types(value: Any) -> None:
    """Checks the fields of a dataclass, and of those inside it.

    A whole number is allowed for a float, and a bool for neither int nor float. The contents of unions, literals, sequences,
    tuples and mappings are checked too; a string is not a sequence.

    Raises:
        TypeError: a value has another type; names the field, the value and the type.
    """
    for name, kind in _types_of(type(value)).items():  # type: ignore[arg-type]  # a class is hashable
        _check(getattr(value, name), kind, name)


@cache
def _types_of(kind: Any) -> dict[str, Any]:
    """Field -> type of a dataclass."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check(value: Any, kind: Any, where: str) -> None:
    if not _is_of(value, kind):
        shown = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
        raise TypeError(f"{where} is {value!r}, and must be {shown}")
    for part, part_kind, part_where in _parts(value, kind, where):
        _check(part, part_kind, part_where)


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
        yield from ((getattr(value, name), part, f"{where}.{name}") for name, part in _types_of(kind).items())  # type: ignore[arg-type]  # as above

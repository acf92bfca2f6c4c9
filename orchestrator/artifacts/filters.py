"""Conditions on runs, `task=age loss=focal score>0.8`, and their order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, nearest

__all__ = ["Condition", "conditions_of", "in_order"]

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, ">=": operator.ge, "<=": operator.le, "=": operator.eq, ">": operator.gt, "<": operator.lt,
    "~": lambda one, other: str(other) in str(one),
}  # fmt: skip
WORD = re.compile(r"([\w.]+)\s*(!=|>=|<=|=|>|<|~)\s*('[^']*'|\"[^\"]*\"|\S+)")

Facts = Mapping[str, Any]
"""What conditions test: a run's settings by name, and `run`, `task`, `recipe`, `status`, `score`, `tag` and others.

A run of another version of orch may lack some: they count as None."""


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        key: name of a fact.
        sign: `=`, `!=`, `<`, `<=`, `>`, `>=`, or `~` for "contains".
        value: as it was written.
    """

    key: str
    sign: str
    value: str

    def holds(self, facts: Facts) -> bool:
        """Whether a run satisfies it; a list satisfies it if one of its items does (for !=: if no item is equal)."""
        found = facts.get(self.key)
        if isinstance(found, list | tuple):
            if self.value == "[]" and self.sign in ("=", "!="):
                return bool(found) == (self.sign == "!=")
            if self.sign == "!=":
                return self.value not in map(str, found)
            return any(self._compare(value) for value in found)
        return self._compare(found)

    def _compare(self, found: Any) -> bool:
        number = _number(self.value)
        if isinstance(found, int | float) and not isinstance(found, bool) and number is not None and self.sign != "~":
            return OPERATORS[self.sign](float(found), number)
        if found is None:  # a run without a score is neither above nor below one
            return self.sign in ("=", "!=") and (self.value.lower() == "none") == (self.sign == "=")
        words = str(found).lower() if isinstance(found, bool) else str(found)
        return OPERATORS[self.sign](words, self.value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def conditions_of(text: str, keys: Sequence[str], numbers: Collection[str] = ()) -> list[Condition]:
    """The conditions in a text, all of which must hold.

    Args:
        text: words with a sign between key and value; quotes for values with spaces.
        keys: allowed keys.
        numbers: numeric keys among them.

    Raises:
        ConfigError: all invalid conditions, unknown keys, and numbers compared with text.
    """
    mistakes, found = Mistakes(), []
    rest = text
    for match in WORD.finditer(text):
        key, sign, value = match[1], match[2], match[3].strip("'\"")
        rest = rest.replace(match[0], " ", 1)
        if key not in keys:
            help_of = orch("runs", "list", "--help")
            problem = f"nothing is called '{key}'.{nearest(key, keys)} `{help_of}` names the keys."
            mistakes.add(ConfigError(f"--where {match[0]}: {problem}"))
        elif key in numbers and sign in ("<", "<=", ">", ">=") and _number(value) is None:
            mistakes.add(ConfigError(f"--where {match[0]}: {key} is a number, and '{value}' is not one."))
        found.append(Condition(key, sign, value))
    if rest.split():
        mistakes.add(
            ConfigError(f"--where: '{rest.strip()}' is not a condition. Write KEY=VALUE, as in 'task=age score>0.8'.")
        )
    mistakes.raise_if_any()
    return found


def in_order(facts: Sequence[Facts], key: str, keys: Sequence[str]) -> list[Facts]:
    """Facts by one of them: numbers and words from small to large, `score` the best first; `-KEY` the other way round.

    Raises:
        ConfigError: nothing is called so.
    """
    name = key.removeprefix("-")
    if name not in keys:
        raise ConfigError(f"--sort {key}: nothing is called '{name}'.{nearest(name, keys)}")
    known = [row for row in facts if row.get(name) not in (None, "")]
    missing = [row for row in facts if row.get(name) in (None, "")]
    numbers = all(isinstance(item, int | float) for row in known for item in _items(row[name]))
    backwards = key.startswith("-") != (name == "score")
    ordered = sorted(known, key=lambda row: _items(row[name]) if numbers else [str(row[name])], reverse=backwards)
    return [*ordered, *missing]


def _items(value: Any) -> list[Any]:
    """A list's items; any other value as the only one: a run of several seeds lies between those of one."""
    return list(value) if isinstance(value, list | tuple) else [value]

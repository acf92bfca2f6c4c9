"""Conditions on runs, `task=age loss=focal score>0.8`, and their order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, nearest
from orchestrator.data.spelling import near

__all__ = ["PERSON", "Condition", "conditions_of", "in_order"]

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, ">=": operator.ge, "<=": operator.le, "=": operator.eq, ">": operator.gt, "<": operator.lt,
    "~": lambda value, part: str(part) in str(value),
}  # fmt: skip
WORD = re.compile(r"([\w.]+)\s*(!=|>=|<=|=|>|<|~)\s*('[^']*'|\"[^\"]*\"|\S+)")

DIGESTS, SHORT = ("plan", "data"), 6
"""Facts that are digests, of which their first digits are enough."""

PERSON = "person"
"""The fact that says whom a run has learned from, whatever way the name is written."""

Facts = Mapping[str, Any]
"""What conditions test: a run's settings by name, and `run`, `task`, `recipe`, `status`, `score`, `tag` and others.

A run of another version of orch may lack some: they count as None."""


@dataclass(frozen=True)
class Condition:
    """One condition on runs, such as `score>0.6`.

    Attributes:
        key: name of a fact.
        sign: `=`, `!=`, `<`, `<=`, `>`, `>=`, or `~` for "contains".
        value: the value as the user wrote it.
    """

    key: str
    sign: str
    value: str

    def holds(self, facts: Facts) -> bool:
        """Whether a run satisfies it; a list satisfies it if one of its items does (for !=: if no item is equal)."""
        fact = facts.get(self.key)
        if self.key == PERSON:
            learned = near(self.value) in {near(name) for name in fact or ()}
            return learned == (self.sign == "=")
        if isinstance(fact, list | tuple):
            if self.value == "[]" and self.sign in ("=", "!="):
                return bool(fact) == (self.sign == "!=")
            if self.sign == "!=":
                return self.value not in map(str, fact)
            return any(self._compare(item) for item in fact)
        return self._compare(fact)

    def _compare(self, fact: Any) -> bool:
        number = _number(self.value)
        if isinstance(fact, int | float) and not isinstance(fact, bool) and number is not None and self.sign != "~":
            return OPERATORS[self.sign](float(fact), number)
        if fact is None:  # a run without a score is neither above nor below one
            return self.sign in ("=", "!=") and (self.value.lower() == "none") == (self.sign == "=")
        text = str(fact).lower() if isinstance(fact, bool) else str(fact)
        if self.key in DIGESTS and len(self.value) >= SHORT and text.startswith(self.value):
            text = self.value  # tables show the first digits alone
        return OPERATORS[self.sign](text, self.value)


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
    mistakes, conditions = Mistakes(), []
    rest = text
    for match in WORD.finditer(text):
        key, sign, value = match[1], match[2], match[3].strip("'\"")
        rest = rest.replace(match[0], " ", 1)
        if key == PERSON and sign not in ("=", "!="):
            mistakes.add(ConfigError(f"--where {match[0]}: people are compared by = and != alone."))
        elif key not in keys:
            help_command = orch("runs", "list", "--help")
            problem = f"there is no key '{key}'.{nearest(key, keys)} `{help_command}` names the keys."
            mistakes.add(ConfigError(f"--where {match[0]}: {problem}"))
        elif key in numbers and sign in ("<", "<=", ">", ">=") and _number(value) is None:
            mistakes.add(ConfigError(f"--where {match[0]}: {key} is a number, and '{value}' is not one."))
        conditions.append(Condition(key, sign, value))
    if rest.split():
        mistakes.add(
            ConfigError(f"--where: '{rest.strip()}' is not a condition. Write KEY=VALUE, as in 'task=age score>0.8'.")
        )
    mistakes.raise_if_any()
    return conditions


def in_order(facts: Sequence[Facts], key: str, keys: Sequence[str]) -> list[Facts]:
    """Sorts the facts of runs by one key: ascending, but `score` with the best first; `-KEY` reverses the order.

    Runs without a value come last.

    Raises:
        ConfigError: there is no such key.
    """
    name = key.removeprefix("-")
    if name not in keys:
        raise ConfigError(f"--sort {key}: there is no key '{name}'.{nearest(name, keys)}")
    with_value = [row for row in facts if row.get(name) not in (None, "")]
    without_value = [row for row in facts if row.get(name) in (None, "")]
    numbers = all(isinstance(item, int | float) for row in with_value for item in _items(row[name]))
    backwards = key.startswith("-") != (name == "score")
    ordered = sorted(with_value, key=lambda row: _items(row[name]) if numbers else [str(row[name])], reverse=backwards)
    return [*ordered, *without_value]


def _items(value: Any) -> list[Any]:
    """A list's items; any other value as the only one: a run of several seeds lies between those of one."""
    return list(value) if isinstance(value, list | tuple) else [value]

"""The three specialists by task, and the joint network beside them: the only file that imports what stands in `models/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from orchestrator.core.errors import ConfigError, nearest
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.specialist import Specialist

__all__ = ["SPECIALISTS", "TRAINABLE", "chosen", "trainable"]


def _specialist(task: str) -> Specialist:
    found = import_module(f"orchestrator.models.{task}").SPECIALIST
    assert isinstance(found, Specialist)
    return found


SPECIALISTS: Mapping[str, Specialist] = {task: _specialist(task) for task in TASKS}

TRAINABLE: Mapping[str, Specialist] = {**SPECIALISTS, JOINT: _specialist(JOINT)}
"""All that has recipes and runs: the specialists, and what answers for all tasks at once."""


def trainable(name: str) -> Specialist:
    """A specialist, or the joint network, by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TRAINABLE:
        raise ConfigError(f"'{name}' is no specialist; allowed: {', '.join(TRAINABLE)}.{nearest(name, TRAINABLE)}")
    return TRAINABLE[name]


def chosen(tasks: Sequence[str]) -> Mapping[str, Specialist]:
    """Some of the three specialists by their tasks, in the order of the label's digits.

    Raises:
        ConfigError: a word is no task, or there is none.
    """
    for task in tasks:
        if task not in SPECIALISTS:
            hint = nearest(task, TASKS)
            raise ConfigError(f"--tasks {','.join(tasks)}: '{task}' is no task; allowed: {', '.join(TASKS)}.{hint}")
    if not tasks:
        raise ConfigError(f"--tasks: names no task; allowed: {', '.join(TASKS)}.")
    return {task: SPECIALISTS[task] for task in TASKS if task in tasks}

"""The three specialists and the joint network, by name: the only file that imports from `models/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from orchestrator.core.errors import ConfigError, nearest
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.specialist import Specialist

__all__ = ["SPECIALISTS", "TRAINABLE", "chosen", "trainable"]


def _specialist(task: str) -> Specialist:
    specialist = import_module(f"orchestrator.models.{task}").SPECIALIST
    assert isinstance(specialist, Specialist)
    return specialist


SPECIALISTS: Mapping[str, Specialist] = {task: _specialist(task) for task in TASKS}

TRAINABLE: Mapping[str, Specialist] = {**SPECIALISTS, JOINT: _specialist(JOINT)}
"""Everything that has recipes and runs: the specialists and the joint network."""


def trainable(name: str) -> Specialist:
    """A specialist, or the joint network, by its name.

    Raises:
        ConfigError: there is no specialist of that name.
    """
    if name not in TRAINABLE:
        raise ConfigError(f"'{name}' is not a specialist; allowed: {', '.join(TRAINABLE)}.{nearest(name, TRAINABLE)}")
    return TRAINABLE[name]


def chosen(tasks: Sequence[str]) -> Mapping[str, Specialist]:
    """The specialists of some tasks, in the order of the label's digits.

    Raises:
        ConfigError: an unknown task, or no task at all.
    """
    for task in tasks:
        if task not in SPECIALISTS:
            hint = nearest(task, TASKS)
            raise ConfigError(f"--tasks {','.join(tasks)}: '{task}' is not a task; allowed: {', '.join(TASKS)}.{hint}")
    if not tasks:
        raise ConfigError(f"--tasks: names no task; allowed: {', '.join(TASKS)}.")
    return {task: SPECIALISTS[task] for task in TASKS if task in tasks}

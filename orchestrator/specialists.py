"""The three specialists by task, and the joint network beside them: the only file that imports `models`."""

from __future__ import annotations

from collections.abc import Mapping

from models.age import SPECIALIST as AGE
from models.gender import SPECIALIST as GENDER
from models.joint import SPECIALIST as JOINT
from models.mask import SPECIALIST as MASK
from orchestrator.core.errors import ConfigError, nearest
from orchestrator.specialist import Specialist

__all__ = ["SPECIALISTS", "TRAINABLE", "trainable"]

SPECIALISTS: Mapping[str, Specialist] = {specialist.name: specialist for specialist in (MASK, GENDER, AGE)}

TRAINABLE: Mapping[str, Specialist] = {**SPECIALISTS, JOINT.name: JOINT}
"""All that has recipes and runs: the specialists, and what answers for all tasks at once."""


def trainable(name: str) -> Specialist:
    """A specialist, or the joint network, by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in TRAINABLE:
        raise ConfigError(f"'{name}' is no specialist; allowed: {', '.join(TRAINABLE)}.{nearest(name, TRAINABLE)}")
    return TRAINABLE[name]

"""The three specialists by task: the only file that imports `models`."""

from __future__ import annotations

from collections.abc import Mapping

from models.age import SPECIALIST as AGE
from models.gender import SPECIALIST as GENDER
from models.mask import SPECIALIST as MASK
from orchestrator.specialist import Specialist

__all__ = ["SPECIALISTS"]

SPECIALISTS: Mapping[str, Specialist] = {specialist.name: specialist for specialist in (MASK, GENDER, AGE)}

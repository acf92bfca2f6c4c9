"""What must not be interrupted halfway."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["uninterrupted"]

Result = TypeVar("Result")


def uninterrupted(act: Callable[[], Result]) -> Result:
    """Does something that leaves a wreck when a stop is raised in it; a command's stop (cli/endings.py) waits for its end."""
    return act()

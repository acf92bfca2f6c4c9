"""Marks calls that a signal must not interrupt halfway."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["uninterrupted"]

Result = TypeVar("Result")


def uninterrupted(call: Callable[[], Result]) -> Result:
    """Calls a function that an exception would leave half done; cli/endings.py delays the stop of a command until it returns."""
    return call()

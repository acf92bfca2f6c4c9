"""How a running training is asked to stop: values that travel with a job and are checked once per batch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

__all__ = ["Cancel", "CancelFile", "CancelledError", "raise_if_cancelled"]

LOOK_SECONDS = 1.0
"""Interval between two checks of a file: a shared disk may take milliseconds to answer."""


class CancelledError(Exception):
    """A training was asked to stop. Its checkpoint stays, and the same command goes on from there."""


class Cancel(Protocol):
    """A reason to stop; travels to other processes and machines."""

    def check(self) -> None:
        """Returns if training may continue.

        Raises:
            CancelledError: training must stop.
        """


class CancelFile:
    """A stop request that is a file: visible to other threads, processes and machines.

    Args:
        path: path of the file; its folder is made when it is needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self._looked = Path(path), 0.0

    def cancel(self) -> None:
        """Asks to stop; safe to repeat."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def check(self) -> None:
        """Looks at the file, once a second at most.

        Raises:
            CancelledError: the file exists.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        if self.path.exists():
            raise CancelledError
        self._looked = time.monotonic()


def raise_if_cancelled(reasons: Sequence[Cancel]) -> None:
    """Checks all reasons to stop.

    Raises:
        CancelledError: training must stop.
    """
    for reason in reasons:
        reason.check()

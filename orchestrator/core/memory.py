"""Errors that mean that memory ran out, as Python, torch, C++ and the system report them."""

from __future__ import annotations

import errno

from orchestrator.core.errors import OrchestratorError

__all__ = ["is_out_of_memory"]

MESSAGES = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "std::bad_alloc",
    "can't start new thread",
    "out of memory",
)
"""Messages of torch, of the system's loader and of C++, which have no Python exception type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or of another library means that memory ran out; False for our own errors, which say so."""
    if isinstance(error, OrchestratorError):
        return False
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return True
    text = f"{error} {error.__cause__ or ''}".lower()
    return getattr(error, "errno", None) == errno.ENOMEM or any(message in text for message in MESSAGES)

"""Checks of arguments that the command line makes by itself, for whoever calls the library."""

from __future__ import annotations

from os import PathLike

from orchestrator.core.errors import ConfigError

__all__ = ["MOST_SEED", "check_range", "check_words"]

MOST_SEED = 2**32 - 1
"""The largest seed: NumPy's and scikit-learn's seeds have 32 bits."""


def check_range(option: str, value: float | None, low: float, high: float | None = None) -> None:
    """Refuses a number out of range, and one that is not a number (NaN); None stands for one that was left out.

    Args:
        option: what it is called in the message, as `--seed`.
        value: the number.
        low: the lowest one that is allowed.
        high: the highest one that is allowed; None: there is none.

    Raises:
        ConfigError: with the number and the allowed ones.
    """
    if value is None or (low <= value and (high is None or value <= high)):
        return
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    raise ConfigError(f"{option} {value}; allowed: {allowed}.")


def check_words(argument: str, value: object) -> None:
    """Refuses a single text or path where a sequence is expected: it would be taken letter by letter.

    Args:
        argument: its name.
        value: what was given.

    Raises:
        ConfigError: with the way to write it.
    """
    if isinstance(value, str | bytes | PathLike):
        shown = repr(value if isinstance(value, str | bytes) else str(value))
        raise ConfigError(f"{argument} = {shown}: a sequence is needed, even of one: write {argument}=[{shown}].")

"""Checks of arguments, for callers of the library; the command line makes them by itself."""

from __future__ import annotations

from numbers import Integral
from os import PathLike

from orchestrator.core.errors import ConfigError

__all__ = ["MOST_SEED", "check_range", "check_sequence"]

MOST_SEED = 2**32 - 1
"""The largest seed: NumPy's and scikit-learn's seeds have 32 bits."""


def check_range(
    option: str, value: float | None, low: float, high: float | None = None, fraction: bool = False
) -> None:
    """Refuses a number that is out of range or NaN; None stands for a number that was left out.

    Args:
        option: its name in the message, such as `--seed`.
        value: the number.
        low: the lowest number that is allowed.
        high: the highest number that is allowed; None: any number from `low` on.
        fraction: whether it may be other than a whole number.

    Raises:
        ConfigError: the number is out of range; says which ones are allowed.
    """
    if value is None:
        return
    is_right_kind = isinstance(value, int | float if fraction else Integral) and not isinstance(value, bool)
    if is_right_kind and low <= value and (high is None or value <= high):
        return
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    raise ConfigError(f"{option} {value}; allowed: {'' if is_right_kind else 'a whole number, '}{allowed}.")


def check_sequence(argument: str, value: object) -> None:
    """Refuses a single string or path where a sequence is expected: its letters would be taken as the items.

    Args:
        argument: its name.
        value: its value.

    Raises:
        ConfigError: the value is a single string or path; says how to write it as a sequence.
    """
    if isinstance(value, str | bytes | PathLike):
        shown = "b'...'" if isinstance(value, bytes) else repr(str(value))
        raise ConfigError(f"{argument} = {shown}: a sequence is needed, even of one: write {argument}=[{shown}].")

"""How several answers become one.

Uses only the standard library, NumPy and relative imports: `orch export` copies this folder next to its program, which
then votes by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["PROBABILITY", "SHARE", "STRATEGIES", "Strategy"]

PROBABILITY, SHARE = "p", "share"
"""Column prefixes in tables: `p(male)` is a probability, `share(male)` the share of voters for it."""


class Strategy(NamedTuple):
    """A combiner's properties that can be read without importing NumPy.

    Attributes:
        prefix: prefix of its columns, `PROBABILITY` or `SHARE`.
        about: short description, for `--help`.
    """

    prefix: str
    about: str


STRATEGIES: Mapping[str, Strategy] = {
    "soft": Strategy(PROBABILITY, "mean of probabilities"),
    "hard": Strategy(SHARE, "majority of votes"),
}
"""Values of `--strategy`. Their classes are in `combiners.py`."""

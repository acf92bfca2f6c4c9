"""How several answers become one.

Uses only the standard library, NumPy and relative imports: `orch export` copies this folder next to its program, which
then votes by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PROBABILITY", "SHARE", "STRATEGIES"]

PROBABILITY, SHARE = "p", "share"
"""Column prefixes in tables: `p(male)` is a probability, `share(male)` the share of voters for it."""

STRATEGIES: Mapping[str, str] = {"soft": PROBABILITY, "hard": SHARE}
"""Values of `--strategy` -> the prefix of their columns. Their classes are in `combiners.py`; here nothing imports NumPy."""

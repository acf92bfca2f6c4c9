"""How several answers become one.

Uses only the standard library, NumPy and relative imports: `orch export` copies this folder next to its program, which
then votes by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COLUMN", "STRATEGIES"]

COLUMN: Mapping[str, str] = {"soft": "p", "hard": "share"}
"""Strategy -> column prefix in tables: `p(male)` is a probability, `share(male)` the share of voters for it."""

STRATEGIES: tuple[str, ...] = tuple(COLUMN)
"""Values of `--strategy`; their classes are in `combiners.py`. Kept here, where nothing imports NumPy."""

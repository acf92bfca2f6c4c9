"""How several answers become one.

Uses only the standard library, NumPy and relative imports: `orch export` copies this folder next to its program, which
then votes by the same code. What is learned from out-of-fold answers is learned in `ensembling`, and lies here as numbers.
"""

from __future__ import annotations

__all__ = ["PROBABILITY", "SHARE"]

PROBABILITY, SHARE = "p", "share"
"""Column prefixes in tables: `p(male)` is a probability, `share(male)` the share of voters for it."""

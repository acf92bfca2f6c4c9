"""How many answers become one. Standard library and NumPy alone, modules that import each other by their place in this folder:
`orch export` copies it beside its program, which answers by the very same code.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COLUMN", "STRATEGIES"]

COLUMN: Mapping[str, str] = {"soft": "p", "hard": "share"}
"""Strategy -> how tables name its numbers: `p(male)` is a probability, `share(male)` only the share of voters that say so."""

STRATEGIES: tuple[str, ...] = tuple(COLUMN)
"""What `--strategy` takes; the classes behind these names stand in `combiners.py`. Kept here, where nothing imports NumPy."""

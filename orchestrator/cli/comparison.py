"""How a comparison of runs reads in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli.console import grid, out

if TYPE_CHECKING:
    from orchestrator.comparing import Comparison

__all__ = ["print_comparison"]

ACROSS = 6  # settings that fit beside the scores; more are told in a table of their own


def print_comparison(found: Comparison) -> None:
    """What differs, scores by class, and gains over the first run with their intervals."""
    differing = dict(found.differing)
    beside = list(differing) if len(differing) <= ACROSS else []
    if not beside and differing:
        table = grid("in what they differ", "setting", *(one.run.id for one in found.runs))
        for key, values in differing.items():
            table.add_row(key, *map(_short, values))
        out().print(table)
    names = [f"F1 {name}" for name in found.classes]
    title = f"out of fold on {found.photos:,} photos of {found.people:,} people that all of them held out"
    first = found.runs[0].run.id
    table = grid(
        title, "run", *beside, *names, "accuracy", "macro F1", f"over {first}", "95 % interval", "",
    )  # fmt: skip
    for number, one in enumerate(found.runs):
        gain, span = "", ""
        if one.gain is not None:
            gain, span = f"{one.gain[0]:+.4f}", f"{one.gain[1].low:+.4f} to {one.gain[1].high:+.4f}"
        table.add_row(
            one.run.id, *(_short(differing[key][number]) for key in beside), *(f"{value:.4f}" for value in one.scores.f1),
            f"{one.scores.accuracy:.4f}", f"{one.scores.macro_f1:.4f}", gain, span, one.verdict,
        )  # fmt: skip
    out().print(table)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

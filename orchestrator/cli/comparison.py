"""A comparison of runs in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.artifacts.differences import format_value
from orchestrator.cli.console import grid, print_message, stdout_console

if TYPE_CHECKING:
    from orchestrator.core.interval import Difference
    from orchestrator.experiments.comparing import Comparison

__all__ = ["print_comparison", "trust_of_best"]

BESIDE = 4  # most settings with their own column; if there are more, each run lists its differences from the first


def print_comparison(comparison: Comparison) -> None:
    """What differs, scores by class, and gains over the first run with their intervals."""
    from orchestrator.core.interval import VERDICTS

    differing = comparison.differing
    beside = list(differing) if len(differing) <= BESIDE else ["differs in"]
    names = [f"F1 {name}" for name in comparison.classes]
    title = f"out of fold on {comparison.photos:,} photos of {comparison.people:,} people that all of them held out"
    first = comparison.runs[0].run.id
    gains = (f"over {first}", "95 % interval")
    table = grid(
        title, "run", *beside, *names, "macro F1", *gains, "verdict", "log loss", "log loss verdict",
        keep=("macro F1", f"over {first}", "95 % interval", "verdict", *beside, "log loss", "log loss verdict"),
        text=("differs in",),
    )  # fmt: skip
    for number, compared in enumerate(comparison.runs):
        gain, span = "", ""
        verdicts = [VERDICTS[verdict] if verdict else "" for verdict in (compared.verdict, compared.log_loss_verdict)]
        if compared.gain is not None:
            gain, span = f"{compared.gain.value:+.4f}", compared.gain.interval.signed()
        cells = [_words(comparison, number)]
        if beside != ["differs in"]:
            cells = [_short(differing[key][number]) for key in beside]
        table.add_row(
            compared.run.id, *cells, *(f"{value:.4f}" for value in compared.scores.f1), f"{compared.scores.macro_f1:.4f}",
            gain, span, verdicts[0], f"{compared.log_loss:.4f}", verdicts[1],
        )  # fmt: skip
    stdout_console().print(table)
    most = max(compared.held_out for compared in comparison.runs)
    smaller = [compared for compared in comparison.runs if compared.held_out < most]
    if smaller:
        counts = ", ".join(f"{compared.run.id} {compared.held_out:,}" for compared in smaller)
        print_message(
            f"Compared on {comparison.photos:,} photos, though some runs held out up to {most:,}: {counts}. Leave the smaller "
            "ones out to compare the others on more."
        )
    if comparison.relabelled:
        print_message(
            f"{comparison.relabelled:,} photos are left out: the runs' data disagree about their person or true class "
            "(`data` under what differs)."
        )


def trust_of_best(gain: Difference) -> str:
    """How far the gain of the best of several runs can be trusted, to complete a sentence."""
    if gain.verdict == "better":
        return "still the best of several, so partly luck: train it with another --seed before trusting it"
    return "other people could reverse it"


def _words(comparison: Comparison, number: int) -> str:
    """The settings of a run that are not as in the first."""
    moved = {key: values[number] for key, values in comparison.differing.items() if values[number] != values[0]}
    return " ".join(f"{key}={_short(value)}" for key, value in moved.items()) or "-"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else format_value(value)

"""A comparison of runs in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.artifacts.differences import format_value
from orchestrator.cli.console import grid, print_message, stdout_console

if TYPE_CHECKING:
    from orchestrator.core.interval import Difference
    from orchestrator.ensembling.gains import EnsembleComparison
    from orchestrator.experiments.comparing import Comparison

__all__ = ["print_comparison", "print_ensemble_comparison", "trust_of_best"]

BESIDE = 4  # most settings with their own column; if there are more, each run lists its differences from the first


def print_comparison(comparison: Comparison) -> None:
    """What differs, scores by class, and gains over the first run with their intervals."""
    from orchestrator.core.interval import VERDICTS

    differing = comparison.differing
    beside = list(differing) if len(differing) <= BESIDE else ["differs in"]
    names = [f"F1 {name}" for name in comparison.classes]
    title = f"out of fold on {comparison.photos:,} photos of {comparison.people:,} people that all of them held out"
    first = comparison.runs[0].run.id
    gains = (f"over {first}", "95 % interval", "P(better)")
    table = grid(
        title, "run", *beside, *names, "macro F1", *gains, "verdict", "log loss", "log loss verdict",
        keep=("macro F1", f"over {first}", "95 % interval", "verdict", *beside, "log loss", "log loss verdict"),
        text=("differs in",),
    )  # fmt: skip
    for number, compared in enumerate(comparison.runs):
        gain, span, probability = "", "", ""
        verdicts = [VERDICTS[verdict] if verdict else "" for verdict in (compared.verdict, compared.log_loss_verdict)]
        if compared.gain is not None:
            gain, span = f"{compared.gain.value:+.4f}", compared.gain.interval.signed()
            probability = f"{compared.gain.probability:.2f}"
        cells = [_words(comparison, number)]
        if beside != ["differs in"]:
            cells = [_short(differing[key][number]) for key in beside]
        table.add_row(
            compared.run.id, *cells, *(f"{value:.4f}" for value in compared.scores.f1), f"{compared.scores.macro_f1:.4f}",
            gain, span, probability, verdicts[0], f"{compared.log_loss:.4f}", verdicts[1],
        )  # fmt: skip
    stdout_console().print(table)
    _print_smaller([(compared.run.id, compared.held_out) for compared in comparison.runs], comparison.photos)
    if comparison.relabelled:
        print_message(
            f"{comparison.relabelled:,} photos are left out: the runs' data disagree about their person or true class "
            "(`data` under what differs)."
        )


def print_ensemble_comparison(comparison: EnsembleComparison) -> None:
    """Macro F1 of each ensemble, of the label and of each task, and what it gains over the first."""
    from orchestrator.core.interval import VERDICTS

    first = comparison.ensembles[0].record.id
    title = (
        f"out of fold on {comparison.photos:,} photos of {comparison.people:,} people that all of them were scored on"
    )
    over = f"over {first}"
    table = grid(
        title, "ensemble", "of", "macro F1", over, "95 % interval", "P(better)", "verdict",
        keep=("of", "macro F1", over, "95 % interval", "verdict", "P(better)"),
    )  # fmt: skip
    table.columns[1].justify = "left"
    for compared in comparison.ensembles:
        for name in ("label", *(name for name in compared.macro_f1 if name != "label")):
            gain = compared.gains.get(name)
            cells = (
                [f"{gain.value:+.4f}", gain.interval.signed(), f"{gain.probability:.2f}", VERDICTS[gain.verdict]]
                if gain
                else ["", "", "", ""]
            )
            shown = compared.record.id if name == "label" else ""
            table.add_row(
                shown, "18-way label" if name == "label" else name, f"{compared.macro_f1[name]:.4f}", *cells,
                style="bold" if name == "label" else None,
            )  # fmt: skip
    stdout_console().print(table)
    _print_smaller([(compared.record.id, compared.held_out) for compared in comparison.ensembles], comparison.photos)
    if comparison.relabelled:
        print_message(
            f"{comparison.relabelled:,} photos are left out: the ensembles' data disagree about their person or labels."
        )


def _print_smaller(held_out: Sequence[tuple[str, int]], compared: int) -> None:
    """Names those that held out fewer photos than the others, since all are compared on what they share."""
    most = max(photos for _, photos in held_out)
    smaller = [f"{name} {photos:,}" for name, photos in held_out if photos < most]
    if smaller:
        advice = (
            " Leave the smaller ones out to compare the others on more." if len(held_out) - len(smaller) > 1 else ""
        )
        print_message(
            f"Compared on {compared:,} photos, though some held out up to {most:,}: {', '.join(smaller)}.{advice}"
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

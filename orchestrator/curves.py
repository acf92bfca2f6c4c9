"""Learning curves of runs side by side, and what each run scored, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.comparing import Comparison, mean_curve
from orchestrator.data.files import atomic
from orchestrator.pictures import ACCENT, INK, WARN, pyplot

__all__ = ["draw_comparison"]

STRONG = 8  # runs with a colour of their own; more would not be told apart
LONG = 42  # letters of what differs, beside a run's name


def draw_comparison(found: Comparison, path: Path) -> None:
    """Draws the training loss and the held-out macro F1 by epoch, and every run's gain over the first with its interval.

    Args:
        found: the comparison.
        path: the .png to write.
    """
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(17, max(4.6, 1.6 + 0.34 * len(found.runs))), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for number, one in enumerate(found.runs):
        colour = colours[number % 10] if number < STRONG else "#c9d1d6"
        for axis, key in ((axes[0], "loss"), (axes[1], "macro_f1")):
            epochs, values = mean_curve(one.curves, key)
            axis.plot(
                epochs, values, color=colour, marker="o" if len(epochs) < 12 else None, markersize=4, label=one.run.id
            )
    axes[0].set(title="training loss, mean over folds", xlabel="epoch")
    axes[1].set(title="held-out macro F1 while training", xlabel="epoch")
    for axis in axes[:2]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[1].legend(frameon=False, fontsize=8)
    _draw_gains(axes[2], found)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    plt.close(figure)


def _draw_gains(axis: Any, found: Comparison) -> None:
    """Gains over the first run; what an interval with 0 in it shows is grey."""
    names = []
    for place, one in enumerate(reversed(found.runs)):
        number = found.runs.index(one)
        differ = [f"{key}={values[number]}" for key, values in found.differing.items() if values[number] != values[0]]
        words = "" if number == 0 else " ".join(differ) or "the same settings"
        names.append(f"{one.run.id}  {words if len(words) <= LONG else words[: LONG - 3] + '...'}")
        if one.gain is None:
            continue
        value, span = one.gain
        colour = {"better": ACCENT, "worse": WARN, "noise": "#98a4ab"}[one.verdict]
        axis.errorbar(
            value,
            place,
            xerr=[[max(0.0, value - span.low)], [max(0.0, span.high - value)]],
            fmt="o",
            color=colour,
            capsize=4,
        )
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(title=f"gain over {found.runs[0].run.id},\n95 % interval over people", ylim=(-0.6, len(names) - 0.4))

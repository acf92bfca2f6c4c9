"""Experiments as pictures: learning curves of runs side by side, and every trial of a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.experiments.comparing import Comparison, mean_curve
from orchestrator.pictures import ACCENT, INK, WARN, figure_of, save

if TYPE_CHECKING:
    from orchestrator.experiments.sweeps import Sweep

__all__ = ["draw_comparison", "draw_sweep"]

STRONG = 8  # runs with their own colour; more could not be distinguished
ABREAST = 4  # panels per row of a search's picture
LONG = 42  # characters of the differing settings next to a run's name


def draw_comparison(found: Comparison, path: Path) -> None:
    """Draws the training loss and the held-out macro F1 by epoch, and every run's gain over the first with its interval.

    Args:
        found: the comparison.
        path: the .png to write.
    """
    from matplotlib import colormaps

    colours = colormaps["tab10"]
    figure = figure_of(17, max(4.6, 1.6 + 0.34 * len(found.runs)))
    axes = figure.subplots(1, 3)
    for number, compared in enumerate(found.runs):
        colour = colours(number) if number < STRONG else "#c9d1d6"
        for axis, key in ((axes[0], "loss"), (axes[1], "macro_f1")):
            epochs, values = mean_curve(compared.curves, key)
            axis.plot(
                epochs,
                values,
                color=colour,
                marker="o" if len(epochs) < 12 else None,
                markersize=4,
                label=compared.run.id,
            )
    losses = "\n(losses differ: shapes compare, heights do not)" if "loss" in found.differing else ""
    axes[0].set(title=f"training loss, mean over folds{losses}", xlabel="epoch")
    axes[1].set(title="held-out macro F1 while training", xlabel="epoch")
    for axis in axes[:2]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[1].legend(frameon=False, fontsize=8)
    _draw_gains(axes[2], found)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _draw_gains(axis: Any, found: Comparison) -> None:
    """Draws gains over the first run; gains whose interval contains 0 are grey."""
    names = []
    for place, compared in enumerate(reversed(found.runs)):
        number = found.runs.index(compared)
        differ = [f"{key}={values[number]}" for key, values in found.differing.items() if values[number] != values[0]]
        words = "" if number == 0 else " ".join(differ) or "the same settings"
        names.append(f"{compared.run.id}  {words if len(words) <= LONG else words[: LONG - 3] + '...'}")
        if compared.gain is None:
            continue
        value, span = compared.gain.value, compared.gain.interval
        colour = {"better": ACCENT, "worse": WARN, "noise": "#98a4ab"}[span.verdict]
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
    axis.locator_params(axis="x", nbins=5)
    axis.set(
        title=f"gain over {found.runs[0].run.id}",
        xlabel="macro F1, 95 % interval over people",
        ylim=(-0.6, len(names) - 0.4),
    )


def draw_sweep(found: Sweep, path: Path) -> None:
    """Draws the trials of a search in their order, and by each of their settings.

    Args:
        found: the search.
        path: the .png to write.
    """
    scored = [trial for trial in found.trials if trial.score is not None]
    values = [dict(word.split("=", 1) for word in trial.changes) for trial in scored]
    keys = sorted({key for values_of_trial in values for key in values_of_trial})
    columns = min(ABREAST, 1 + len(keys))
    rows = -(-(1 + len(keys)) // columns)
    figure = figure_of(3.6 * columns, 3.4 * rows + 0.6)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    axes = list(grid.flat)[: 1 + len(keys)]
    for spare in list(grid.flat)[1 + len(keys) :]:
        spare.axis("off")
    scores = [trial.score or 0.0 for trial in scored]
    best = [max(scores[: place + 1]) for place in range(len(scores))]
    axes[0].step([trial.number for trial in scored], best, where="post", color=ACCENT, linewidth=1, label="best so far")
    axes[0].plot([trial.number for trial in scored], scores, "o", color=INK, markersize=4)
    stopped = [trial for trial in found.trials if trial.state == "pruned" and trial.curve]
    if stopped:
        places = [trial.number for trial in stopped], [trial.curve[-1][1] for trial in stopped]
        axes[0].plot(*places, "x", color="#98a4ab", label="pruned there")
    figure.suptitle(f"{found.name}: {len(scored)} complete trials", fontsize=13, color=INK)
    axes[0].set(xlabel="trial", ylabel="out-of-fold macro F1")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    for axis, key in zip(axes[1:], keys, strict=True):
        _draw_setting(axis, key, [(changes.get(key), score) for changes, score in zip(values, scores, strict=True)])
    for axis in axes:
        axis.axhline(found.reference_score, color=WARN, linewidth=1, linestyle="--", label="the recipe as it is")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    save(figure, path)


def _draw_setting(axis: Any, key: str, points: list[tuple[str | None, float]]) -> None:
    """Draws scores by one setting: numbers on a scale, logarithmic beyond a factor of ten; words as categories."""
    tried = [(value, score) for value, score in points if value is not None]
    try:
        numbers = [float(value) for value, _ in tried]
    except ValueError:
        words = sorted({value for value, _ in tried})
        numbers = [float(words.index(value)) for value, _ in tried]
        short = [word.strip('"') if len(word) < 22 else f"{word.strip(chr(34))[:19]}..." for word in words]
        axis.set_xticks(range(len(words)), short, rotation=30, ha="right", fontsize=8)
        axis.set_xlim(-0.5, len(words) - 0.5)
    else:
        if numbers and min(numbers) > 0 and max(numbers) > 10 * min(numbers):
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter("")
    axis.plot(numbers, [score for _, score in tried], "o", color=INK, markersize=4)
    axis.set(xlabel=key)

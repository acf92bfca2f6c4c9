"""Pictures: the people of a data source, a contact sheet of answers, an ensemble's scores at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.core.labels import AGE_BORDERS, CLASSES, LABELS, TASKS
from orchestrator.core.outputs import replace_output
from orchestrator.data.describe import Description
from orchestrator.data.preprocessing import Box, Geometry, decode

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from orchestrator.artifacts.ensembles import EnsembleRecord, RecordedScores
    from orchestrator.bench.growth import GrowthPoint
    from orchestrator.bench.suite import BenchResult
    from orchestrator.inference.cascade_measurement import Measured
    from orchestrator.inference.results import Prediction

__all__ = [
    "ACCENT", "INK", "SHEET", "SOFT", "WARN", "contact_sheet", "draw_bench", "draw_cascade", "draw_evaluation", "draw_faces",
    "draw_pairs",
    "draw_people", "draw_scores", "figure_of", "save", "sheet",
]  # fmt: skip

INK, ACCENT, SOFT, WARN = "#22303c", "#2f7f86", "#bcd7d6", "#b3402a"
SHEET = 35  # photos on a contact sheet: five rows of seven


def contact_sheet(answers: Sequence[Prediction], path: Path, truth: Sequence[int] | None = None) -> None:
    """Draws photos with their answers, at most 35, spread evenly over all of them.

    Args:
        answers: the predictions.
        path: the .png to write.
        truth: true labels, 0..17, to mark wrong answers; None: nothing is marked.
    """
    shown = sorted(set(np.linspace(0, len(answers) - 1, min(SHEET, len(answers))).round().astype(int)))
    figure, axes = sheet(len(shown), len(answers), 2.75)
    for axis, number in zip(axes.flat, shown, strict=False):
        answer = answers[number]
        if answer.label is None:
            axis.text(0.5, 0.5, "could not\nbe read", ha="center", va="center", color=WARN)
            continue
        axis.imshow(Geometry(256, 192).apply(decode(Path(answer.photo))))
        wrong = truth is not None and truth[number] != answer.label
        title = answer.name.replace(" / ", "\n", 1)
        if wrong and truth is not None:
            title += f"\ntruth: {LABELS[truth[number]]}"
        axis.set_title(title, fontsize=8, color=WARN if wrong else INK)
    save(figure, path)


def sheet(shown: int, photos: int, height: float) -> tuple[Figure, Any]:
    """A figure of small axes in rows of seven, each `height` inches high; it says how many photos it leaves out."""
    columns = max(1, min(7, shown))
    rows = max(1, -(-shown // columns))
    figure = figure_of(1.75 * columns, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    if shown < photos:
        figure.suptitle(f"{shown} of {photos:,} photos", fontsize=9, color=INK)
    for axis in axes.flat:
        axis.axis("off")
    return figure, axes


def draw_pairs(pairs: Sequence[tuple[Path, Path, int]], path: Path) -> None:
    """Draws pairs of photos that look the same, side by side, at most 18.

    Args:
        pairs: two photos, and the number of bits in which their hashes differ; the most alike first.
        path: the .png to write.
    """
    shown = pairs[: SHEET // 2 + 1]
    columns = max(1, min(3, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = figure_of(4.2 * columns, 3.1 * rows)
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    figure.suptitle(
        f"{len(shown)} of {len(pairs):,} pairs of different people that look the same", fontsize=9, color=INK
    )
    for axis in axes.flat:
        axis.axis("off")
    for number, (first, second, bits) in enumerate(shown):
        for side, photo in enumerate((first, second)):
            axis = axes[number // columns, 2 * (number % columns) + side]
            axis.imshow(Geometry(256, 192).apply(decode(photo)))
            name = "/".join(photo.parts[-2:])
            axis.set_title(f"{name}\n{f'{bits} of 64 bits differ' if side else ''}", fontsize=6, color=INK)
    save(figure, path)


def draw_faces(paths: Sequence[Path], boxes: Sequence[Box | None], path: Path) -> None:
    """Draws photos with the boxes of their faces, at most 35: first those without one, then others spread evenly.

    Args:
        paths: the photos.
        boxes: each photo's face box; None: no face found.
        path: the .png to write.
    """
    from matplotlib.patches import Rectangle

    without = [row for row, box in enumerate(boxes) if box is None][: SHEET // 2]
    others = [row for row, box in enumerate(boxes) if box is not None]
    spread = np.linspace(0, len(others) - 1, min(SHEET - len(without), len(others))).round().astype(int)
    shown = without + sorted({others[index] for index in spread})
    figure, axes = sheet(len(shown), len(paths), 2.5)
    for axis, row in zip(axes.flat, shown, strict=False):
        photo, box = decode(paths[row]), boxes[row]
        axis.imshow(photo)
        if box is None:
            axis.set_title("no face found", fontsize=8, color=WARN)
            continue
        top, left, height, width = box
        axis.add_patch(Rectangle((left, top), width, height, fill=False, color=ACCENT, linewidth=1.5))
    save(figure, path)


def draw_people(description: Description, path: Path) -> None:
    """Draws the description: people by class, ages with the borders, joint classes.

    Args:
        description: what a source holds.
        path: the .png to write.
    """
    bars = {title: frame for title, frame in description.tables.items() if title.startswith("by ")}
    figure = figure_of(16, 8.4)
    axes = figure.subplots(2, 3)
    figure.suptitle(
        f"{description.photos:,} photos of {description.people:,} people", fontsize=15, color=INK, weight="bold"
    )
    panels = iter(axes.flat)
    if description.ages:
        _draw_ages(next(panels), description.ages)
    for title, frame in bars.items():
        if " x " not in title:
            texts = [
                f" {photos:,} photos, {people:,} people"
                for photos, people in zip(frame["photos"], frame["people"], strict=True)
            ]
            _draw_bars(next(panels), title, list(frame.iloc[:, 0].astype(str)), list(frame["photos"]), texts)
    joint = next((frame for title, frame in bars.items() if " x " in title), None)
    if joint is not None:
        names = list(joint.iloc[:, :-2].astype(str).agg(" / ".join, axis=1))
        _draw_bars(next(panels), "photos of each joint class", names, list(joint["photos"]), [], small=True)
    common = sorted(description.sizes.items(), key=lambda item: -item[1])[:8]
    names = [f"{width} x {height}" for (width, height), _ in common]
    counts = [count for _, count in common]
    _draw_bars(next(panels), "image sizes, width x height", names, counts, [f" {count:,} photos" for count in counts])
    for axis in panels:
        axis.axis("off")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path, dpi=110)


def _draw_ages(axis: Any, ages: Sequence[float]) -> None:
    counts, _, _ = axis.hist(ages, bins=np.arange(int(min(ages)), int(max(ages)) + 2), color=SOFT, edgecolor="white")
    for border in AGE_BORDERS:
        axis.axvline(border, color=ACCENT, linewidth=1.5)
        axis.text(border, counts.max() * 1.02, f" {border}", color=ACCENT, ha="left", va="bottom")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set(title="age of each person, years (lines: class borders)", ylabel="people")


def _draw_bars(
    axis: Any, title: str, names: Sequence[str], values: Sequence[int], texts: Sequence[str], small: bool = False
) -> None:
    """Draws bars from top to bottom, each with a text at its end."""
    axis.barh(range(len(names), 0, -1), values, color=ACCENT if small else SOFT)
    axis.set_yticks(range(len(names), 0, -1), names, fontsize=7 if small else 10)
    for index, (value, text) in enumerate(zip(values, texts, strict=False)):
        axis.text(value, len(names) - index, text, va="center", ha="left", color=INK)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set(title=title)
    if texts:
        axis.set(xlim=(0, max(values) * 1.95), xticks=[])


def draw_evaluation(record: EnsembleRecord, path: Path) -> None:
    """Draws an ensemble's out-of-fold scores: per task with intervals, per label, and the 18-way confusion.

    Args:
        record: an ensemble with scores.
        path: the .png to write.
    """
    assert record.evaluation is not None
    draw_scores(record.id, record.evaluation, path)


def draw_scores(name: str, scores: Mapping[str, RecordedScores], path: Path) -> None:
    """Draws scores: per task with intervals, per label, and the 18-way confusion.

    Args:
        name: of what was scored.
        scores: those of every task and of the label (key `label`).
        path: the .png to write.
    """
    figure = figure_of(16, 6.2)
    axes = figure.subplots(1, 3, width_ratios=[1, 1.1, 1.5])
    label = scores["label"]
    interval = label.intervals["macro_f1"]
    kind = {"out-of-fold": "out of fold", "held-out": "held out"}[label.kind]
    figure.suptitle(
        f"{name}: 18-way macro F1 {label.macro_f1:.3f} ({interval.low:.3f} to {interval.high:.3f}), {kind}, "
        f"{label.photos:,} photos of {label.people:,} people",
        fontsize=14, weight="bold", color=INK,
    )  # fmt: skip
    _draw_tasks(axes[0], scores)
    _draw_labels(axes[1], label)
    _draw_confusion(axes[2], label)
    save(figure, path)


def draw_bench(result: BenchResult, path: Path) -> None:
    """Draws a benchmark: speed relative to the floors and to the naive loop, and how cost grows.

    Args:
        result: what was measured.
        path: the .png to write.
    """
    figure = figure_of(17, 5)
    axes = figure.subplots(1, 3)
    _draw_ratios(axes[0], "speed as a share of the floor's", _efficiencies(result), 1.0)
    engines = result.prediction.measured if result.prediction is not None else {}
    times = {name: engine.times_naive for name, engine in engines.items()}
    _draw_ratios(axes[1], "prediction speed, times the naive loop's", times, 1.0)
    _draw_growth(axes[2], result.growth or ())
    save(figure, path)


def draw_cascade(measured: Measured, path: Path) -> None:
    """Draws what a cascade saves against what it changes, and the macro F1 where labels are known.

    Args:
        measured: the curve, and the point chosen on it.
        path: the .png to write.
    """
    scored = measured.macro_f1 is not None
    figure = figure_of(12 if scored else 6.5, 4.5)
    left, *right = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    asked = [100 * point.asked for point in measured.curve]
    changed = [100 * point.changed for point in measured.curve]
    chosen = (100 * measured.chosen.asked, 100 * measured.chosen.changed)
    left.plot(asked, changed, color=SOFT, marker="o", markersize=4)
    left.plot(*chosen, "o", color=ACCENT, markersize=9)
    left.annotate(
        f"chosen: {chosen[0]:.0f} % asked, {chosen[1]:.2f} % changed",
        chosen, (12, 14), textcoords="offset points", color=INK,
    )  # fmt: skip
    left.axhline(100 * measured.chosen.cascade.rate, color=WARN, linewidth=1, linestyle=":")
    left.set_yscale("symlog", linthresh=0.05)
    left.set(ylim=(-0.005, None), title="labels that differ from the full vote", ylabel="changed, %")
    if measured.macro_f1 is not None:
        (scores,), (full, of_curve) = right, measured.macro_f1
        scores.plot(asked, of_curve, color=ACCENT, marker="o", markersize=4)
        scores.axhline(full, color=INK, linewidth=1, linestyle=":", label="full vote")
        if (span := measured.interval) is not None:
            scores.axhspan(span.low, span.high, color=SOFT, alpha=0.4, label="its 95 % interval over people")
        scores.set(title="18-way macro F1", ylabel="macro F1")
        scores.legend(frameon=False)
    for axis in (left, *right):
        axis.set_xlabel("members asked, % of all")
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _efficiencies(result: BenchResult) -> dict[str, float]:
    values = {f"training {task}": speed.efficiency for task, speed in (result.training or {}).items()}
    if result.prediction is not None:
        values |= {f"predict, {name}": engine.efficiency for name, engine in result.prediction.measured.items()}
    if result.voting is not None:
        values |= {f"{name} vote, of memory": value for name, value in result.voting[-1].efficiency.items()}
    return values


def _draw_ratios(axis: Any, title: str, values: Mapping[str, float], line: float) -> None:
    rows = range(len(values) - 1, -1, -1)
    axis.barh(list(rows), list(values.values()), color=SOFT)
    for row, value in zip(rows, values.values(), strict=True):
        axis.text(0.01, row, f"{value:.2f}", va="center", color=INK, weight="bold")
    axis.set_yticks(list(rows), list(values))
    axis.axvline(line, color=ACCENT, linewidth=1)
    axis.set_title(title)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_growth(axis: Any, growth: Sequence[GrowthPoint]) -> None:
    """Draws time against load, both relative to the smallest: on the dotted line cost is proportional."""
    series: dict[str, list[tuple[float, float]]] = {}
    for point in growth:
        series.setdefault(point.quantity, []).append((point.amount, point.timing.median))
    for quantity, points in series.items():
        if quantity == "jobs":
            continue  # the same work: shown in the table
        first_amount, first_seconds = points[0]
        xs = [(amount / first_amount) ** (2 if quantity == "input" else 1) for amount, _ in points]
        axis.plot(xs, [seconds / first_seconds for _, seconds in points], marker="o", label=_GROWS[quantity])
    limits = [1, 16]
    axis.plot(limits, limits, color=INK, linewidth=0.8, linestyle=":", label="proportional")
    axis.set(xscale="log", yscale="log", xlabel="load, relative", ylabel="time, relative", title="how cost grows")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


_GROWS = {"photos": "photos to predict", "members": "members that answer", "input": "pixels of a training photo"}


def _draw_tasks(axis: Any, scores: Mapping[str, RecordedScores]) -> None:
    names = [*reversed(TASKS)]
    for row, name in enumerate(["label", *names]):
        scored = scores[name]
        value, interval = scored.macro_f1, scored.intervals["macro_f1"]
        axis.barh(row, value, color=ACCENT if name == "label" else SOFT)
        axis.errorbar(
            value, row, xerr=[[max(0, value - interval.low)], [max(0, interval.high - value)]], color=INK, capsize=4
        )
        axis.text(0.02, row, f"{value:.3f}", va="center", color="white" if name == "label" else INK, weight="bold")
    axis.set_yticks(range(len(names) + 1), ["18-way", *names])
    axis.set(title="macro F1, with 95 % intervals over people", xlim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)


def _draw_labels(axis: Any, label: RecordedScores) -> None:
    values = [label.classes[name].f1 for name in LABELS]
    counts = [label.classes[name].photos for name in LABELS]
    rows = range(len(LABELS) - 1, -1, -1)
    axis.barh(list(rows), values, color=SOFT)
    for row, value, count in zip(rows, values, counts, strict=True):
        axis.text(0.01, row, f"{value:.2f}  of {count:,} photos", va="center", fontsize=8, color=INK)
    axis.set_yticks(list(rows), [f"{name} {code}" for code, name in enumerate(LABELS)], fontsize=8)
    axis.set(title="F1 of each label", xlim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)


def _draw_confusion(axis: Any, label: RecordedScores) -> None:
    counts = np.array(label.confusion, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="GnBu", vmin=0, vmax=1)
    for row in range(len(LABELS)):
        for column in range(len(LABELS)):
            if shares[row, column] >= 0.005:
                colour = "white" if shares[row, column] > 0.6 else INK
                axis.text(
                    column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour
                )
    for edge in (5.5, 11.5):
        axis.axhline(edge, color=INK, linewidth=0.8)
        axis.axvline(edge, color=INK, linewidth=0.8)
    axis.set_xticks(range(len(LABELS)))
    axis.set_yticks(range(len(LABELS)))
    axis.tick_params(labelsize=7)
    axis.set(title="answers for each true label, %", xlabel="answered", ylabel="true")
    middles = [2.5, 8.5, 14.5]
    upper = axis.secondary_xaxis("top")
    upper.set_xticks(middles, [name.replace("_", " ") for name in CLASSES["mask"]])
    upper.tick_params(length=0, labelsize=8)


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of a width and a height in inches, for `save`.

    It is not one of pyplot's, which would choose a backend for the whole process, and keep every figure until it is closed.
    """
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def save(figure: Figure, path: Path, dpi: int = 100) -> None:
    """Writes a figure as a .png."""
    with replace_output(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")

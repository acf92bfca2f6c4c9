"""`orch bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import grid, print_json, print_message, stdout_console
from orchestrator.cli.options import DeviceOption, JsonOption
from orchestrator.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from orchestrator.api import BenchResult
    from orchestrator.bench.commands import CommandCosts
    from orchestrator.bench.growth import GrowthPoint
    from orchestrator.bench.prediction import PredictionSpeed
    from orchestrator.bench.training import TrainingSpeed
    from orchestrator.bench.voting import VotingSpeed

__all__ = ["bench"]


def bench(
    parts: Annotated[
        list[str] | None, typer.Argument(help="training, prediction, voting, growth, commands; all if left out.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Photos with labels; synthetic people if left out.")
    ] = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="A folder for bench.json and bench.png.")] = Path("bench"),
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="The recipe of the measured members.")] = DEFAULT_RECIPE,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Number of measurement rounds.")] = 3,
    photos: Annotated[int, typer.Option("--photos", min=16, help="Photos to predict.")] = 256,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps to time.")] = 32,
    votes: Annotated[int, typer.Option("--votes", min=1000, help="Photos to fuse.")] = 10_000_000,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure training, prediction and voting on this machine, each against its lower bound.

    Floors are the arithmetic alone; the naive loop is what most people write. Measurements alternate and are compared
    round by round, because a machine's speed changes from minute to minute: trust the ratios, not the seconds.

    \b
    Examples:
      orch bench
      orch bench prediction --data people/train --photos 512
      orch bench voting --json
    """
    from orchestrator import api
    from orchestrator.cli.display import TrainingDisplay

    display = TrainingDisplay()
    try:
        result = api.bench(
            parts or (), data=data, out=to, recipe=recipe, rounds=rounds, photos=photos, steps=steps, votes=votes,
            device=device, listen=display,
        )  # fmt: skip
    finally:
        display.close()
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
    print_message(f"{to / 'bench.json'}, {to / 'bench.png'}: all results.")


def _print(result: BenchResult) -> None:
    if result.training is not None:
        _print_training(result.training)
    if result.prediction is not None:
        _print_prediction(result.prediction)
    if result.voting is not None:
        _print_voting(result.voting)
    if result.growth is not None:
        _print_growth(result.growth)
    if result.commands is not None:
        _print_commands(result.commands)


def _print_training(speeds: Mapping[str, TrainingSpeed]) -> None:
    """Specialists beside their floors, then stage by stage."""
    table = grid(
        "training",
        "specialist",
        "floor photos/s",
        "loop photos/s",
        "efficiency",
        "TFLOP/s",
        "of matrix rate",
        "peak MB",
    )
    for task, speed in speeds.items():
        rates = [f"{timing.rate:.1f}" for timing in (speed.floor, speed.loop)]
        power = [f"{speed.arithmetic.tflop_per_second:.3g}", f"{speed.arithmetic.share_of_matrix_rate:.3f}"]
        table.add_row(task, *rates, f"{speed.efficiency:.3f}", *power, f"{speed.loop.peak_mb:,.0f}")
    stdout_console().print(table)
    stages = dict.fromkeys(stage for speed in speeds.values() for stage in speed.stages_ms_per_photo)
    table = grid("milliseconds a photo; decoding is paid once, into the store", "stage", *speeds)
    for stage in stages:
        table.add_row(stage, *(f"{speed.stages_ms_per_photo.get(stage, 0):.2f}" for speed in speeds.values()))
    stdout_console().print(table)


def _print_prediction(speed: PredictionSpeed) -> None:
    """Engines beside plain ways to do the same."""
    from orchestrator.api import RefusedEngine

    title = f"prediction: {speed.photos} photos from files, {speed.members} members, {speed.threads} cores"
    table = grid(title, "engine", "photos/s", "of its floor", "times naive", "same label", "vote differs by", "peak MB")
    for name, plain in (
        ("naive loop", speed.naive),
        ("decoding alone", speed.decoding),
        ("torch members, nothing shared", speed.nothing_shared),
    ):
        times = speed.naive.median / plain.median
        table.add_row(name, f"{plain.rate:.1f}", "", f"{times:.2f}", "", "", f"{plain.peak_mb:,.0f}")
    for name, engine in speed.engines.items():
        if isinstance(engine, RefusedEngine):
            table.add_row(name, "refused", *[""] * 5)
            print_message(f"{name} refused: {engine.refused.splitlines()[0]}")
            continue
        table.add_row(
            name, f"{engine.predict.rate:.1f}", f"{engine.efficiency:.3f}", f"{engine.times_naive:.2f}",
            f"{100 * engine.same_labels:.2f} %", f"{engine.difference_of_votes:.1e}", f"{engine.predict.peak_mb:,.0f}",
        )  # fmt: skip
    stdout_console().print(table)


def _print_voting(speeds: Sequence[VotingSpeed]) -> None:
    """Votes beside reading the answers once."""
    headings = [word for name in speeds[0].combiners for word in (f"{name}, s", "of memory's pace")]
    table = grid("voting", "photos", "read once, s", *headings, "peak MB")
    for speed in speeds:
        shares = zip(speed.combiners.values(), speed.efficiency.values(), strict=True)
        cells = [cell for timing, share in shares for cell in (f"{timing.median:.3f}", f"{share:.2f}")]
        peak = max(timing.peak_mb for timing in speed.combiners.values())
        table.add_row(f"{speed.photos:,}", f"{speed.read_once.median:.3f}", *cells, f"{peak:,.0f}")
    stdout_console().print(table)


def _print_growth(points: Sequence[GrowthPoint]) -> None:
    """Prints the seconds, pace and memory of each size of the growth measurement."""
    table = grid("growth", "what", "seconds", "photos/s", "peak MB")
    for point in points:
        timing = point.timing
        table.add_row(point.name, f"{timing.median:.2f}", f"{timing.rate:.1f}", f"{timing.peak_mb:,.0f}")
    stdout_console().print(table)


def _print_commands(commands: CommandCosts) -> None:
    """Commands beside what they import."""
    from orchestrator.bench.commands import PREDICT

    table = grid(
        "commands, as a shell starts them", "command", "seconds", "CPU seconds", "peak MB", "times imports",
        "times smallest",
    )  # fmt: skip
    reference, smallest = commands.times_reference, {**commands.times_smallest, PREDICT: commands.times_exported}
    for name, cost in commands.costs.items():
        times = ["" if share is None else f"{share:.2f}" for share in (reference.get(name), smallest.get(name))]
        table.add_row(name, f"{cost.wall:.2f}", f"{cost.cpu:.2f}", f"{cost.peak_mb:,.0f}", *times)
    stdout_console().print(table)
    print_message(
        "Imports: `import typer, rich, pydantic`. Smallest: for one photo the exported program and `import torch`; for the "
        "others the smallest Typer program of the kind."
    )

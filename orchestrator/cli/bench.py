"""`orch bench`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.console import grid, print_json, print_message, stdout_console
from orchestrator.cli.options import DeviceOption, JsonOption
from orchestrator.recipes.names import DEFAULT_RECIPE

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
        found = api.bench(
            parts or (), data=data, out=to, recipe=recipe, rounds=rounds, photos=photos, steps=steps, votes=votes,
            device=device, listen=display,
        )  # fmt: skip
    finally:
        display.close()
    if json:
        print_json(found)
    else:
        _print(found)
    print_message(f"{to / 'bench.json'}, {to / 'bench.png'}: all results.")


def _print(found: Mapping[str, Any]) -> None:
    for name, show in (
        ("training", _print_training),
        ("prediction", _print_prediction),
        ("voting", _print_voting),
        ("growth", _print_growth),
        ("commands", _print_commands),
    ):
        if name in found:
            show(found[name])


def _print_training(found: Mapping[str, Any]) -> None:
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
    for task, timing in found.items():
        rates = [f"{timing[name]['per_second']:.1f}" for name in ("floor", "loop")]
        done = timing["arithmetic"]
        power = [f"{done['tflop_per_second']:.3g}", f"{done['share_of_matrix_rate']:.3f}"]
        table.add_row(task, *rates, f"{timing['efficiency']:.3f}", *power, f"{timing['loop']['peak_mb']:,.0f}")
    stdout_console().print(table)
    stages = list(dict.fromkeys(stage for timing in found.values() for stage in timing["stages_ms_per_photo"]))
    table = grid("milliseconds a photo; decoding is paid once, into the store", "stage", *found)
    for stage in stages:
        table.add_row(stage, *(f"{timing['stages_ms_per_photo'].get(stage, 0):.2f}" for timing in found.values()))
    stdout_console().print(table)


def _print_prediction(found: Mapping[str, Any]) -> None:
    """Engines beside plain ways to do the same."""
    title = f"prediction: {found['photos']} photos from files, {found['members']} members, {found['threads']} cores"
    table = grid(title, "engine", "photos/s", "of its floor", "times naive", "same label", "vote differs by", "peak MB")
    names = {"naive": "naive loop", "decoding": "decoding alone", "nothing_shared": "torch members, nothing shared"}
    for key, name in names.items():
        plain, times = found[key], found["naive"]["median"] / found[key]["median"]
        table.add_row(name, f"{plain['per_second']:.1f}", "", f"{times:.2f}", "", "", f"{plain['peak_mb']:,.0f}")
    for name, engine in found["engines"].items():
        if "refused" in engine:
            table.add_row(name, "refused", *[""] * 5)
            print_message(f"{name} refused: {engine['refused'].splitlines()[0]}")
            continue
        table.add_row(
            name, f"{engine['predict']['per_second']:.1f}", f"{engine['efficiency']:.3f}", f"{engine['times_naive']:.2f}",
            f"{100 * engine['same_labels']:.2f} %", f"{engine['difference_of_votes']:.1e}",
            f"{engine['predict']['peak_mb']:,.0f}",
        )  # fmt: skip
    stdout_console().print(table)


def _print_voting(found: Mapping[str, Any]) -> None:
    """Votes beside reading the answers once."""
    strategies = list(next(iter(found.values()))["efficiency"])
    headings = [word for name in strategies for word in (f"{name}, s", "of memory's pace")]
    table = grid("voting", "photos", "read once, s", *headings, "peak MB")
    for timing in found.values():
        cells = [
            cell
            for name in strategies
            for cell in (f"{timing[name]['median']:.3f}", f"{timing['efficiency'][name]:.2f}")
        ]
        peak = max(timing[name]["peak_mb"] for name in strategies)
        table.add_row(f"{timing['photos']:,}", f"{timing['read once']['median']:.3f}", *cells, f"{peak:,.0f}")
    stdout_console().print(table)


def _print_growth(found: Mapping[str, Any]) -> None:
    """What more photos take."""
    table = grid("growth", "what", "seconds", "photos/s", "peak MB")
    for name, timing in found.items():
        table.add_row(name, f"{timing['median']:.2f}", f"{timing['per_second']:.1f}", f"{timing['peak_mb']:,.0f}")
    stdout_console().print(table)


def _print_commands(found: Mapping[str, Any]) -> None:
    """Commands beside what they import."""
    from orchestrator.bench.commands import PREDICT

    table = grid(
        "commands, as a shell starts them", "command", "seconds", "CPU seconds", "peak MB", "times imports",
        "times smallest",
    )  # fmt: skip
    for name, cost in found["costs"].items():
        smallest = found["times_exported"] if name == PREDICT else found["times_smallest"].get(name)
        times = ["" if share is None else f"{share:.2f}" for share in (found["times_reference"].get(name), smallest)]
        table.add_row(name, f"{cost['wall']:.2f}", f"{cost['cpu']:.2f}", f"{cost['peak_mb']:,.0f}", *times)
    stdout_console().print(table)
    print_message(
        "Imports: `import typer, rich, pydantic`. Smallest: for one photo the exported program and `import torch`; for the "
        "others the smallest Typer program of the kind."
    )

"""Small commands: what a command costs before it does any work, and what one photo costs.

Each command is its own process, as a shell starts it, measured alternately with its lower bounds. For commands that
need no network these are the import of the command line's libraries, and the smallest Typer program of the same kind,
because Typer imports what checks values and draws tables only when a command runs. For one photo the lower bound is
the exported program and the import of torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.artifacts.workspace import Workspace
from orchestrator.bench.timing import Timing, ratio

__all__ = ["LIGHT", "PREDICT", "bench_commands"]

ORCH = ("-c", "from orchestrator.cli.app import program; program()")
REFERENCE, TORCH = "import typer, rich, pydantic", "import torch"
PREDICT, EXPORTED = "orch predict PHOTO", "exported program PHOTO"
SMALL = """
from pathlib import Path
import typer
app = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
@app.command()
def rows(workspace: Path = Path("runs"), json: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table
    table = Table("name", "score")
    table.add_row("age-0001", "0.5")
    Console().print(table)
@app.command()
def other(workspace: Path = Path("runs")) -> None:
    print(workspace)
app()
"""
"""The smallest Typer program with two commands, of which one prints a table."""

HELP, TABLE, MISTYPED = (f"the smallest Typer program: {case}" for case in ("--help", "a table", "a mistyped option"))
SMALLEST = {
    "orch --help": HELP, "orch train-all --help": HELP, "orch runs list": TABLE, "orch runs show": TABLE,
    "orch submissions diff": TABLE, "a mistyped option": MISTYPED, "a wrong number": MISTYPED, "a wrong recipe name": MISTYPED,
}  # fmt: skip
LIGHT = tuple(SMALLEST)
ROWS = 60

LAUNCHER = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, wall, used.ru_utime + used.ru_stime, used.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)]))
"""
"""Starts a program and prints its cost. It is small, since Linux counts the launcher's memory as the program's."""


@dataclass
class Cost:
    """What a program took: wall-clock and CPU seconds of each round, and its largest resident memory in MB."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """For JSON: medians."""
        return {"wall": median(self.wall), "cpu": median(self.cpu), "peak_mb": round(self.peak_mb, 1)}


def bench_commands(
    workspace: Path, photo: Path, program: Path | None, scratch: Path, rounds: int, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Runs every command in turn.

    Args:
        workspace: a workspace with runs and a current ensemble.
        photo: the photo to predict.
        program: the program of an export; None if none could be made.
        scratch: folder for two submissions.
        rounds: how often everything is run.
        progress: called with (runs done, runs in all).

    Returns:
        `costs` (seconds, MB) of each command; by CPU time, round by round, `times_reference` and `times_smallest` of those that
        need no network, against the libraries' import and the smallest program, and `times_exported` of one photo against the
        exported program and torch's import together.
    """
    first, second = (_submission(scratch / name, step) for name, step in (("one.csv", 1), ("other.csv", 5)))
    in_workspace = ("--workspace", str(workspace))
    lines: dict[str, Sequence[str]] = {
        REFERENCE: ("-c", REFERENCE), TORCH: ("-c", TORCH),
        HELP: ("-c", SMALL, "--help"), TABLE: ("-c", SMALL, "rows"), MISTYPED: ("-c", SMALL, "rows", "--workspce", "x"),
        "orch --help": (*ORCH, "--help"),
        "orch runs list": (*ORCH, "runs", "list", *in_workspace),
        "orch train-all --help": (*ORCH, "train-all", "--help"),
        "orch runs show": (*ORCH, "runs", "show", Workspace(workspace).runs()[0].id, *in_workspace),
        "orch submissions diff": (*ORCH, "submissions", "diff", str(first), str(second)),
        "a mistyped option": (*ORCH, "predict", str(photo), "--starategy", "soft", *in_workspace),
        "a wrong number": (*ORCH, "demo", "--people", "many"),
        "a wrong recipe name": (*ORCH, "train-all", "--data", str(photo.parent), "--recipe", "qick", *in_workspace),
        PREDICT: (*ORCH, "predict", str(photo), *in_workspace),
    }  # fmt: skip
    if program is not None:
        lines[EXPORTED] = (str(program), str(photo))
    costs = {name: Cost() for name in lines}
    for number in range(rounds + 1):
        for position, (name, words) in enumerate(lines.items(), start=1):
            wall, cpu, peak = _run(words, 2 if name.startswith("a ") or name == MISTYPED else 0)
            if number:  # the first fills the disk's cache
                costs[name].wall.append(wall)
                costs[name].cpu.append(cpu)
                costs[name].peak_mb = max(costs[name].peak_mb, peak)
            progress(number * len(lines) + position, (rounds + 1) * len(lines))
    measurements: dict[str, Any] = {
        "costs": {name: cost.as_dict() for name, cost in costs.items()},
        "times_reference": {name: ratio(Timing(costs[name].cpu), Timing(costs[REFERENCE].cpu)) for name in LIGHT},
        "times_smallest": {
            name: ratio(Timing(costs[name].cpu), Timing(costs[smallest].cpu)) for name, smallest in SMALLEST.items()
        },
        "times_exported": None,
    }
    if program is not None:
        floor = [exported + torch for exported, torch in zip(costs[EXPORTED].cpu, costs[TORCH].cpu, strict=True)]
        measurements["times_exported"] = ratio(Timing(costs[PREDICT].cpu), Timing(floor))
    return measurements


def _run(arguments: Sequence[str], expected: int) -> tuple[float, float, float]:
    """Wall-clock and CPU seconds, and the most resident memory in MB, of a run of Python."""
    # Where Python may keep no compiled modules (a container's usual setting) a checkout's own are compiled anew at each start,
    # and those of pip's packages are not: 15 ms, a tenth, that say nothing of the program.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, sys.executable, *arguments],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    code, wall, cpu, peak = json.loads(done.stdout)
    if code != expected:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}, not {expected}")
    return wall, cpu, peak


def _submission(path: Path, step: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (f"{number}.jpg,{number * step % 18}" for number in range(ROWS))
    path.write_text("\n".join(["ImageID,ans", *rows]) + "\n", encoding="utf-8")
    return path

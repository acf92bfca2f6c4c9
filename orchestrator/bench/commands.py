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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.artifacts.workspace import Workspace
from orchestrator.bench.timing import Timing, ratio

__all__ = ["LIGHT", "PREDICT", "CommandCost", "CommandCosts", "bench_commands"]

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


@dataclass(frozen=True)
class CommandCost:
    """What a program took, from its start to its end.

    Attributes:
        wall_rounds: wall-clock seconds of each round.
        cpu_rounds: CPU seconds of each round.
        peak_mb: largest resident memory of any round, MB.
    """

    wall_rounds: Sequence[float]
    cpu_rounds: Sequence[float]
    peak_mb: float

    @property
    def wall(self) -> float:
        """Median wall-clock seconds of a round."""
        return median(self.wall_rounds)

    @property
    def cpu(self) -> float:
        """Median CPU seconds of a round."""
        return median(self.cpu_rounds)

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"wall": self.wall, "cpu": self.cpu, "peak_mb": round(self.peak_mb, 1)}


@dataclass(frozen=True)
class CommandCosts:
    """What commands take, beside their lower bounds, by CPU time, round by round.

    Attributes:
        costs: command or lower bound -> its cost.
    """

    costs: Mapping[str, CommandCost]

    @property
    def times_reference(self) -> dict[str, float]:
        """Command that needs no network -> its CPU time divided by that of the libraries' import."""
        return {name: self._times(name, REFERENCE) for name in LIGHT}

    @property
    def times_smallest(self) -> dict[str, float]:
        """Command that needs no network -> its CPU time divided by that of the smallest program of the same kind."""
        return {name: self._times(name, smallest) for name, smallest in SMALLEST.items()}

    @property
    def times_exported(self) -> float | None:
        """CPU time of one photo divided by that of the exported program and torch's import together; None without an export."""
        return self._times(PREDICT, EXPORTED, TORCH) if EXPORTED in self.costs else None

    def _times(self, name: str, *floor: str) -> float:
        """CPU time of a program divided by that of others together."""
        together = [sum(seconds) for seconds in zip(*(self.costs[part].cpu_rounds for part in floor), strict=True)]
        return ratio(Timing(self.costs[name].cpu_rounds), Timing(together))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "costs": {name: cost.as_dict() for name, cost in self.costs.items()},
            "times_reference": self.times_reference, "times_smallest": self.times_smallest,
            "times_exported": self.times_exported,
        }  # fmt: skip


def bench_commands(
    workspace: Path, photo: Path, program: Path | None, scratch: Path, rounds: int, progress: Callable[[int, int], None]
) -> CommandCosts:
    """Runs every command in turn.

    Args:
        workspace: a workspace with runs and a current ensemble.
        photo: the photo to predict.
        program: the program of an export; None if none could be made.
        scratch: folder for two submissions.
        rounds: how often everything is run.
        progress: called with (runs done, runs in all).
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
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in lines}
    for number in range(rounds + 1):
        for position, (name, words) in enumerate(lines.items(), start=1):
            run = _run(words, 2 if name.startswith("a ") or name == MISTYPED else 0)
            if number:  # the first fills the disk's cache
                runs[name].append(run)
            progress(number * len(lines) + position, (rounds + 1) * len(lines))
    return CommandCosts({name: _cost_of(measured) for name, measured in runs.items()})


def _cost_of(runs: Sequence[tuple[float, float, float]]) -> CommandCost:
    """The cost of a program from what `_run` measured in each round."""
    walls, cpus, peaks = zip(*runs, strict=True)
    return CommandCost(walls, cpus, max(peaks))


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

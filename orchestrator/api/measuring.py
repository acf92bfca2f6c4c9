"""Measuring this machine: the function for `orch bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.events import Listener, ignore_events, progress_callback
from orchestrator.core.outputs import Output, check_outputs
from orchestrator.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from orchestrator.bench.suite import BenchResult

__all__ = ["bench"]


@checks_arguments
def bench(
    parts: Sequence[str] = (),
    *,
    data: PathLike | None = None,
    out: PathLike = "bench",
    recipe: str = DEFAULT_RECIPE,
    rounds: int = 3,
    photos: int = 256,
    steps: int = 32,
    votes: int = 10_000_000,
    device: str = "auto",
    listen: Listener = ignore_events,
) -> BenchResult:
    """Measures training, prediction and voting, each against its lower bound: `orch bench`.

    Args:
        parts: some of `training`, `prediction`, `voting`, `growth`, `commands`; empty: all.
        data: photos with labels; None: synthetic people.
        out: a folder for bench.json and bench.png.
        recipe: the recipe of the measured members.
        rounds: number of measurement rounds.
        photos: number of photos to predict.
        steps: number of training steps to time.
        votes: number of photos to combine.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: an unknown part, recipe or device, a number out of range, or data that cannot be read.
    """
    import tempfile

    from orchestrator.bench.load import PARTS, Load, check_load
    from orchestrator.core.files import write_json
    from orchestrator.specialists import SPECIALISTS

    chosen, out = list(parts or PARTS), Path(out)
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as scratch:
        source = path_or_none(data)
        load = Load(
            source, Path(scratch), recipe, photos=photos, steps=steps, votes=votes, rounds=rounds, device=device
        )
        check_load(chosen, load, SPECIALISTS)
        check_outputs([Output("--out", out, folder=True)])
        from orchestrator.bench.suite import run_parts
        from orchestrator.pictures import draw_bench

        count = progress_callback(listen, "measure")
        count(0, 1)
        result = run_parts(chosen, load, SPECIALISTS, listen, lambda _part, done, of: count(done, of))
    write_json(out / "bench.json", result.as_dict())
    draw_bench(result, out / "bench.png")
    return result

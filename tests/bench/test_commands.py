"""Commands are measured as a shell starts them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.bench.commands import LIGHT, PREDICT, bench_commands
from tests.conftest import Done

Orch = Callable[..., Done]


def test_commands_are_measured_as_a_shell_starts_them(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo, told = next((people / "eval" / "images").iterdir()), []
    found = bench_commands(workspace, photo, None, tmp_path / "scratch", 1, lambda done, of: told.append((done, of)))
    assert told == [(number, 28) for number in range(1, 29)]
    assert found["times_exported"] is None
    assert set(found["times_reference"]) == set(found["times_smallest"]) == set(LIGHT)
    costs = found["costs"]
    assert all(cost["wall"] > 0 and cost["cpu"] > 0 and cost["peak_mb"] > 5 for cost in costs.values())
    assert costs[PREDICT]["peak_mb"] > costs["import torch"]["peak_mb"]  # it does import torch
    assert max(costs[name]["peak_mb"] for name in LIGHT) < 0.75 * costs["import torch"]["peak_mb"]  # and these do not
    with pytest.raises(RuntimeError, match="ended with 2, not 0"):
        bench_commands(workspace, tmp_path / "none.jpg", None, tmp_path / "scratch", 1, lambda done, of: None)
    json.dumps(found, allow_nan=False)

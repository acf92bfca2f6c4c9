"""`orch bench`: every part measures, draws and writes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.bench.arithmetic import count_flops, matrix_rate
from orchestrator.bench.commands import LIGHT, PREDICT, bench_commands
from orchestrator.bench.timing import Timing, in_turn, ratio
from tests.conftest import ROOT, Done

Orch = Callable[..., Done]


def test_things_run_in_turn_and_are_compared_round_by_round() -> None:
    order: list[str] = []
    told: list[tuple[int, int]] = []
    things = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = in_turn(things, 3, {"a": 2.0, "b": 1.0}, lambda done, of: told.append((done, of)))
    assert order == ["a", "b"] * 3
    assert told == [(number, 6) for number in range(1, 7)]
    assert timings["a"].work == 2
    # A machine that halves its pace in the second round: medians of seconds would say 1.5, the rounds say 2.
    assert ratio(Timing([2.0, 4.0, 2.0]), Timing([1.0, 2.0, 1.0])) == 2


def test_memory_of_a_block_is_seen() -> None:
    held: list[object] = []
    timings = in_turn({"large": lambda: held.append(np.ones(30_000_000)), "small": held.clear}, 1)
    assert timings["large"].peak_mb > 150
    assert timings["small"].peak_mb < 100


def test_memory_of_workers_counts_while_they_work() -> None:
    from joblib import Parallel, delayed

    def work(count: int) -> int:
        return Parallel(n_jobs=2)(delayed(_hold)(count) for _ in range(2))[0]

    things = {"work": lambda: work(8_000_000), "idle": lambda: time.sleep(0.3), "again": lambda: work(8_000_000)}
    timings = in_turn(things, 1)
    assert timings["again"].peak_mb > 2 * 64  # its workers were there before it
    assert timings["idle"].peak_mb < 50


def _hold(count: int) -> int:
    held, started = np.ones(count), time.process_time()
    while time.process_time() - started < 0.5:
        held += 1
    return len(held)


def test_a_steps_arithmetic_is_counted_and_matrices_give_a_rate() -> None:
    left, right = torch.ones(8, 16), torch.ones(16, 32, requires_grad=True)
    assert count_flops(lambda: left @ right) == 2 * 8 * 16 * 32
    assert count_flops(lambda: (left @ right).sum().backward()) == 2 * 2 * 8 * 16 * 32  # `left` needs no gradient
    photos = torch.ones(2, 6, 10, 10, requires_grad=True)
    for groups in (1, 2, 6):
        layer = torch.nn.Conv2d(6, 12, 3, groups=groups)  # 8 x 8 places, 12 x 9 x 6 / groups weights
        once = 2 * 2 * 64 * 12 * 9 * 6 // groups
        assert count_flops(lambda layer=layer: layer(photos)) == once
        assert count_flops(lambda layer=layer: layer(photos).sum().backward()) == 3 * once
        layer.weight.requires_grad_(False)
        assert count_flops(lambda layer=layer: layer(photos).sum().backward()) == 2 * once
    turned = torch.nn.ConvTranspose2d(6, 4, 2, stride=2)
    assert count_flops(lambda: turned(photos).sum().backward()) == 3 * 2 * 2 * 100 * 6 * 4 * 4
    threads = torch.get_num_threads()
    assert 1e8 < matrix_rate("cpu", torch.float32, 1) < 1e15
    assert torch.get_num_threads() == threads


def test_commands_are_measured_as_a_shell_starts_them(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo, told = next((people / "eval" / "images").iterdir()), []
    found = bench_commands(workspace, photo, None, tmp_path / "scratch", 1, lambda done, of: told.append((done, of)))
    assert told == [(number, 20) for number in range(1, 21)]
    assert found["times_exported"] is None
    assert set(found["times_reference"]) == set(found["times_smallest"]) == set(LIGHT)
    costs = found["costs"]
    assert all(cost["wall"] > 0 and cost["cpu"] > 0 and cost["peak_mb"] > 5 for cost in costs.values())
    assert costs[PREDICT]["peak_mb"] > costs["import torch"]["peak_mb"]  # it does import torch
    assert max(costs[name]["peak_mb"] for name in LIGHT) < 0.75 * costs["import torch"]["peak_mb"]  # and these do not
    with pytest.raises(RuntimeError, match="ended with 2, not 0"):
        bench_commands(tmp_path / "none", photo, None, tmp_path / "scratch", 1, lambda done, of: None)
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_all_parts_measure_and_are_told(orch: Orch, people: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    lines = ["backbone='test_efficientnet'", "weights='none'", "height=32", "width=32", "epochs=1", "batch_size=16"]
    recipe.write_text("\n".join(lines))
    words = ("--data", people / "train", "--out", tmp_path / "out", "--recipe", recipe, "--rounds", 1)
    done = orch("bench", *words, "--photos", 16, "--steps", 4, "--votes", 20_000)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert set(found["training"]) == {"mask", "gender", "age"}
    assert all(0 < one["efficiency"] < 3 for one in found["training"].values())
    for one in found["training"].values():
        assert 0 < one["arithmetic"]["share_of_matrix_rate"] < 1
    assert {"decode", "augment", "forward", "backward", "optimiser"} <= set(
        found["training"]["age"]["stages_ms_per_photo"]
    )
    engines = found["prediction"]["engines"]
    assert engines["torch fp32"]["same_labels"] == 1
    assert engines["torch fp32"]["difference_of_votes"] < 1e-4
    assert found["prediction"]["decoding"]["per_second"] > engines["torch fp32"]["predict"]["per_second"]
    assert found["prediction"]["nothing_shared"]["per_second"] > 0
    assert found["prediction"]["members"] == 9  # three folds: the smallest class has three people
    assert set(found["voting"]) == {"2000", "20000"}
    assert {name.split()[0] for name in found["growth"]} == {"photos", "members", "input", "jobs"}
    commands = found["commands"]
    assert commands["times_exported"] > 0
    assert set(commands["costs"]) >= {PREDICT, *LIGHT}
    assert (tmp_path / "out" / "bench.png").stat().st_size > 10_000
    assert "of its floor" in done.out
    assert orch("bench", "trainin", "--out", tmp_path / "none").code == 2


def test_every_benchmark_names_its_decision() -> None:
    scripts = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    assert len(scripts) == 2
    for script in scripts:
        assert script.read_text().startswith('"""Decision: ')

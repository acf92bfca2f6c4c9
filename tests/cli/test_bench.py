"""`orch bench`: every part measures, draws and writes; what was measured is printed and written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench.commands import LIGHT, PREDICT
from orchestrator.inference.pools import Pools
from tests.bench.test_suite import result_of_all_parts
from tests.conftest import Done

Orch = Callable[..., Done]
TIMING = {"seconds", "median", "per_second", "peak_mb"}


def assert_keys(results: dict[str, Any]) -> None:
    """The keys of bench.json, part by part: scripts read it."""
    about = {"created", "machine", "versions", "git", "recipe", "data", "rounds", "device"}
    assert set(results) == {*about, "training", "prediction", "voting", "growth", "commands"}
    assert set(results["machine"]) == {"processor", "cores", "system", "gpu"}
    for figures in results["training"].values():
        assert set(figures) == {
            "backbone", "height", "width", "photos", "threads", "device", "floor", "loop", "efficiency", "arithmetic",
            "stages_ms_per_photo",
        }  # fmt: skip
        assert set(figures["floor"]) == set(figures["loop"]) == TIMING
        assert set(figures["arithmetic"]) == {
            "gflop_per_photo", "tflop_per_second", "matrix_tflop_per_second", "share_of_matrix_rate",
        }  # fmt: skip
    prediction = results["prediction"]
    assert set(prediction) == {
        "photos", "members", "threads", "device", "naive", "decoding", "nothing_shared", "engines",
    }  # fmt: skip
    assert set(prediction["naive"]) == set(prediction["decoding"]) == set(prediction["nothing_shared"]) == TIMING
    for figures in prediction["engines"].values():
        if set(figures) == {"refused"}:
            continue
        assert set(figures) == {
            "difference_of_members", "same_labels", "difference_of_votes", "floor", "predict", "efficiency",
            "times_naive",
        }  # fmt: skip
        assert set(figures["floor"]) == set(figures["predict"]) == TIMING
    for number, figures in results["voting"].items():
        assert number == str(figures["photos"])
        votes = set(figures["efficiency"])
        assert votes >= {"soft", "hard"}
        assert set(figures) == {"photos", "gigabytes", "read once", "efficiency", *votes}
        assert set(figures["read once"]) == set(figures["soft"]) == set(figures["hard"]) == TIMING
    for figures in results["growth"].values():
        assert set(figures) == {*TIMING, "work"}
    assert set(results["commands"]) == {"costs", "times_reference", "times_smallest", "times_exported"}
    for cost in results["commands"]["costs"].values():
        assert set(cost) == {"wall", "cpu", "peak_mb"}


@pytest.mark.slow
def test_all_parts_measure_and_are_told(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Pools] = []
    closed: list[Pools] = []
    begin, end = Pools.__init__, Pools.close
    monkeypatch.setattr(
        Pools, "__init__", lambda pools, *arguments: (opened.append(pools), begin(pools, *arguments))[1]
    )
    monkeypatch.setattr(Pools, "close", lambda pools: (closed.append(pools), end(pools))[1])
    recipe = tmp_path / "tiny.toml"
    lines = ["backbone='test_efficientnet'", "weights='none'", "height=32", "width=32", "epochs=1", "batch_size=16"]
    recipe.write_text("\n".join(lines))
    words = ("--data", people / "train", "--out", tmp_path / "out", "--recipe", recipe, "--rounds", 1)
    done = orch("bench", *words, "--photos", 16, "--steps", 4, "--votes", 20_000)
    assert done.code == 0, done.err
    assert len(opened) == 4  # the whole ensemble and three smaller ones; engines share their threads
    assert set(map(id, opened)) == set(map(id, closed))  # each has threads of its own
    results = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert_keys(results)
    assert set(results["training"]) == {"mask", "gender", "age"}
    for figures in results["training"].values():
        assert figures["efficiency"] > 0  # how large says nothing on a busy machine
        assert 0 < figures["arithmetic"]["share_of_matrix_rate"] < 1
    assert {"decode", "augment", "forward", "backward", "optimiser"} <= set(
        results["training"]["age"]["stages_ms_per_photo"]
    )
    engines = results["prediction"]["engines"]
    assert engines["torch fp32"]["same_labels"] == 1
    assert engines["torch fp32"]["difference_of_votes"] < 1e-4
    assert results["prediction"]["decoding"]["per_second"] > engines["torch fp32"]["predict"]["per_second"]
    assert results["prediction"]["nothing_shared"]["per_second"] > 0
    assert results["prediction"]["members"] == 9  # three folds: the smallest class has three people
    assert set(results["voting"]) == {"2000", "20000"}
    assert {name.split()[0] for name in results["growth"]} == {"photos", "members", "input", "jobs"}
    commands = results["commands"]
    assert commands["times_exported"] > 0
    costs = commands["costs"]
    assert set(costs) >= {PREDICT, *LIGHT}
    assert set(commands["times_reference"]) == set(commands["times_smallest"]) == set(LIGHT)
    assert all(cost["wall"] > 0 and cost["cpu"] > 0 and cost["peak_mb"] > 5 for cost in costs.values())
    assert costs[PREDICT]["peak_mb"] > costs["import torch"]["peak_mb"]  # it does import torch
    assert max(costs[name]["peak_mb"] for name in LIGHT) < 0.75 * costs["import torch"]["peak_mb"]  # and these do not
    assert (tmp_path / "out" / "bench.png").stat().st_size > 10_000
    assert "of its floor" in done.out
    assert orch("bench", "trainin", "--out", tmp_path / "none").code == 2


def test_what_was_measured_is_printed_and_written(orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of_all_parts()
    monkeypatch.setattr("orchestrator.bench.suite.run_parts", lambda *_: result)
    done = orch("bench", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert re.search(r"^ *onnx fp32 +refused *$", done.out, re.MULTILINE)
    assert "onnx fp32 refused: its answers differ from torch's by 0.1:\n" in done.err
    assert "photo 3" not in done.err  # the first line says why
    for row in (
        r"age +5\.3 +2\.7 +0\.500", r"torch fp32 +2\.7 +0\.500 +0\.50 +100\.00 % +1\.0e-07 +12",
        r"1,000 +3\.000 +6\.000 +0\.50 +3\.000 +1\.00 +12", r"input x1\.5 +6\.00 +2\.7 +12",
        r"orch --help +0\.30 +0\.20 +50 +1\.00 +1\.00", r"orch predict PHOTO +0\.30 +0\.20 +50 +0\.50",
    ):  # fmt: skip
        assert re.search(rf"^ *{row}", done.out, re.MULTILINE), row
    assert (tmp_path / "out" / "bench.png").stat().st_size > 10_000
    written = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert written == result.as_dict()
    assert_keys(written)
    assert json.loads(orch("bench", "--out", tmp_path / "out", "--json").out) == written

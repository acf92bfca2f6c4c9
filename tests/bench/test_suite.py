"""A benchmark's result is a value: its ratios follow from its rounds, and its JSON is what bench.json holds."""

from dataclasses import replace

import pytest

from orchestrator.artifacts.provenance import Hardware
from orchestrator.bench.commands import EXPORTED, PREDICT, REFERENCE, SMALLEST, TORCH, CommandCost, CommandCosts
from orchestrator.bench.growth import GrowthPoint
from orchestrator.bench.prediction import EngineSpeed, PredictionSpeed, RefusedEngine
from orchestrator.bench.suite import BenchResult
from orchestrator.bench.timing import Timing
from orchestrator.bench.training import Arithmetic, TrainingSpeed
from orchestrator.bench.voting import VotingSpeed

SLOW, FAST = Timing((4.0, 8.0), 12.34, 16), Timing((2.0, 4.0), 0.0, 16)
"""The machine's speed halves in the second round: every ratio is 2 all the same."""


def result_of_all_parts() -> BenchResult:
    """What a benchmark of all parts could return; an engine was refused."""
    engines = {
        "torch fp32": EngineSpeed(0.0, 1.0, 1e-7, FAST, SLOW, 0.5),
        "onnx fp32": RefusedEngine("its answers differ from torch's by 0.1:\nphoto 3"),
    }
    arithmetic = Arithmetic(0.1, 0.02, 0.08, 0.25)
    costs = {
        name: CommandCost((0.3,), (0.2,), 50.0)
        for name in (REFERENCE, TORCH, PREDICT, EXPORTED, *SMALLEST, *SMALLEST.values())
    }
    return BenchResult(
        "2026-01-01T00:00:00+00:00", Hardware("a processor", 2, "Linux"), {"torch": "2.6"}, None, "quick", "60 synthetic people",
        2, "cpu",
        training={"age": TrainingSpeed("lite0", 32, 24, 16, 2, "cpu", FAST, SLOW, arithmetic, {"decode": 0.5})},
        prediction=PredictionSpeed(16, 9, 2, "cpu", SLOW, FAST, FAST, engines),
        voting=[VotingSpeed(number, number / 1e9, FAST, {"soft": SLOW, "hard": FAST}) for number in (100, 1000)],
        growth=[GrowthPoint("photos", 1, FAST), GrowthPoint("input", 1.5, SLOW), GrowthPoint("members", 9, SLOW)],
        commands=CommandCosts(costs),
    )  # fmt: skip


def test_ratios_follow_from_the_rounds() -> None:
    result = result_of_all_parts()
    assert result.training is not None
    assert result.training["age"].efficiency == 0.5
    assert result.prediction is not None
    assert {name: engine.efficiency for name, engine in result.prediction.measured.items()} == {"torch fp32": 0.5}
    assert result.voting is not None
    assert [speed.efficiency for speed in result.voting] == [{"soft": 0.5, "hard": 1.0}] * 2
    assert result.commands is not None
    assert set(result.commands.times_reference.values()) == set(result.commands.times_smallest.values()) == {1.0}
    assert result.commands.times_exported == pytest.approx(0.5)
    without = CommandCosts({name: cost for name, cost in result.commands.costs.items() if name != EXPORTED})
    assert without.times_exported is None
    assert without.as_dict()["times_exported"] is None


def test_json_holds_what_was_measured_and_no_other_part() -> None:
    result = result_of_all_parts()
    value = result.as_dict()
    assert value["machine"] == {"processor": "a processor", "cores": 2, "system": "Linux", "gpu": None}
    assert value["training"]["age"]["loop"] == {
        "seconds": [4.0, 8.0], "median": 6.0, "per_second": 16 / 6, "peak_mb": 12.3,
    }  # fmt: skip
    assert value["prediction"]["engines"]["onnx fp32"] == {
        "refused": "its answers differ from torch's by 0.1:\nphoto 3"
    }
    assert list(value["voting"]) == ["100", "1000"]
    assert list(value["growth"]) == ["photos x1", "input x1.5", "members 9"]
    assert value["growth"]["members 9"]["work"] == 16
    assert value["commands"]["costs"][PREDICT] == {"wall": 0.3, "cpu": 0.2, "peak_mb": 50.0}
    alone = replace(result, training=None, prediction=None, growth=None, commands=None).as_dict()
    assert set(value) - set(alone) == {"training", "prediction", "growth", "commands"}
    assert alone["voting"] == value["voting"]

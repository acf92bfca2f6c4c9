"""A measured program's cost is its own; one that ends otherwise is no measurement. tests/cli/test_bench.py measures commands."""

import pytest

from orchestrator.bench.commands import _run


def test_a_programs_cost_is_its_own() -> None:
    small = _run(("-c", "pass"), 0)
    large = _run(("-c", "held = bytearray(100_000_000)\nfor number in range(3_000_000): pass"), 0)
    assert all(cost > 0 for cost in (*small, *large))
    assert large[1] > small[1]  # CPU seconds
    assert large[2] - small[2] > 80  # MB


def test_a_program_that_ends_otherwise_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="ended with 3, not 0"):
        _run(("-c", "raise SystemExit(3)"), 0)
    assert _run(("-c", "raise SystemExit(3)"), 3)[0] > 0

"""What the benchmark is asked for is judged before anything is drawn or trained."""

from pathlib import Path

import pytest

from orchestrator.bench.load import PARTS, Load, check_load
from orchestrator.core.errors import ConfigError
from orchestrator.specialists import SPECIALISTS


def test_numbers_out_of_range_are_told_all_at_once(tmp_path: Path) -> None:
    check_load(PARTS, Load(None, tmp_path), SPECIALISTS)
    with pytest.raises(ConfigError) as refused:
        check_load(PARTS, Load(None, tmp_path, rounds=0, photos=0, steps=0, votes=0), SPECIALISTS)
    assert refused.value.message.splitlines() == [
        "--rounds 0; allowed: 1 or more.", "--photos 0; allowed: 16 or more.", "--steps 0; allowed: 1 or more.",
        "--votes 0; allowed: 1000 or more.",
    ]  # fmt: skip

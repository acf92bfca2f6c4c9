"""A search's budget is a number of trials, and minutes."""

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.experiments.budget import Budget


def test_a_budget_out_of_range_is_refused_with_all_that_is_wrong() -> None:
    assert Budget(1, 0.0).minutes == 0
    with pytest.raises(ConfigError) as refused:
        Budget(0, -1)
    assert refused.value.message == "--trials 0; allowed: 1 to 10000.\n--minutes -1; allowed: 0 or more."
    with pytest.raises(ConfigError, match=r"--minutes nan; allowed: 0 or more\."):
        Budget(minutes=float("nan"))

"""Intervals of shares hold what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from orchestrator.core.interval import share_interval


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_interval_of_a_share_is_scipys(count: int, part: float) -> None:
    seen = round(part * count)
    interval = share_interval(seen / count, count, z=1.959963984540054)
    expected = binomtest(seen, count).proportion_ci(method="wilson")
    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)


def test_it_holds_the_truth_about_as_often_as_it_says() -> None:
    count, truth = 200, 0.03
    held = sum(
        binom.pmf(seen, count, truth)
        for seen in range(count + 1)
        if share_interval(seen / count, count).low <= truth <= share_interval(seen / count, count).high
    )
    assert 0.93 <= held <= 0.98

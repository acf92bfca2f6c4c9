"""Intervals draw people, and those of differences are narrow."""

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.interval import VERDICTS, Difference, Interval
from orchestrator.ensembling.intervals import difference, intervals


def test_a_difference_on_the_same_people_has_a_narrow_interval() -> None:
    rng = np.random.default_rng(0)
    persons = pd.Series(np.repeat([f"p{n}" for n in range(300)], 4))
    truth = np.repeat(rng.integers(0, 3, 300), 4)
    before = np.where(rng.random(1200) < 0.3, rng.integers(0, 3, 1200), truth)
    after = np.where((before != truth) & (rng.random(1200) < 0.3), truth, before)
    gain = difference(persons, truth, before, after, 3)
    assert 0 < gain.interval.low < gain.value < gain.interval.high < gain.interval.low + 0.05
    assert (gain.verdict, (-gain).verdict) == ("better", "worse")
    assert gain.probability > 0.97
    assert difference(persons, truth, after, before, 3).probability < 0.03
    assert difference(persons, truth, before, before, 3) == Difference(0.0, Interval(0.0, 0.0), 0.5)


def test_intervals_draw_people_not_photos() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.8  # per person: all of a person's photos are right or wrong together
    truth = np.zeros(200 * 7, int)
    persons = pd.Series(np.repeat([f"p{number}" for number in range(200)], 7))
    predicted = np.repeat(np.where(right, 0, 1), 7)
    wide = intervals(persons, truth, predicted, 2)["accuracy"]
    narrow = intervals(pd.Series([str(number) for number in range(1400)]), truth, predicted, 2)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 200)
    assert wide.high - wide.low == pytest.approx(expected, rel=0.15)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(np.sqrt(7), rel=0.15)
    assert wide.low < right.mean() < wide.high
    assert intervals(persons, truth, predicted, 2) == intervals(persons, truth, predicted, 2)


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (0.01, 0.02, "better"), (-0.02, -0.01, "worse"), (-0.01, 0.01, "noise"), (0.0, 0.01, "noise"), (-0.01, 0.0, "noise"),
])  # fmt: skip
def test_a_difference_whose_interval_contains_0_is_not_clear(low: float, high: float, verdict: str) -> None:
    span = Interval(low, high)
    assert span.verdict == verdict
    assert (-span).verdict == {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert VERDICTS["noise"] == "no clear difference"

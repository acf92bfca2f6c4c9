"""Pictures are drawn without a trace in the caller's own matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

from orchestrator.core.interval import Interval
from orchestrator.inference.cascade import EXACT, Cascade, Point
from orchestrator.inference.cascade_measurement import Measured
from orchestrator.pictures import draw_cascade


def test_a_picture_changes_nothing_in_the_callers_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    label = np.zeros(500, np.int64)
    curve = [Point(EXACT, 0.8, 0.0, label), Point(Cascade(0.01, 2.0, {}), 0.6, 0.008, label)]
    for name, scores, interval in (("scored", (0.7, [0.7, 0.69]), Interval(0.6, 0.8)), ("bare", None, None)):
        draw_cascade(Measured(curve[1], curve, 500, scores, interval, {"name": "soft"}), tmp_path / f"{name}.png")
    assert matplotlib.rcParams["backend"] == "svg"
    assert (tmp_path / "scored.png").stat().st_size > (tmp_path / "bare.png").stat().st_size > 5_000

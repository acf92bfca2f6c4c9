"""Submissions are compared with each other by what they answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestrator.ensembling.external import read_external
from orchestrator.experiments.submissions import compare_submissions
from tests.conftest import Done

Orch = Callable[..., Done]


def test_a_submission_with_gaps_is_read_by_all(orch: Orch, tmp_path: Path) -> None:
    """What `orch predict --on-error mark` writes: an empty answer is no answer, neither equal nor different."""
    first, other = tmp_path / "one.csv", tmp_path / "other.csv"
    first.write_text("ImageID,ans\na.jpg,\nb.jpg,2\nc.jpg,3.0\n")
    other.write_text("ImageID,ans\nc.jpg,3\na.jpg,1\nb.jpg,4\n")
    result = compare_submissions(first, other)
    assert (result.rows, result.answered, result.photos, result.unanswered) == (3, 2, (("b.jpg", 2, 4),), (1, 0))
    done = orch("submissions", "diff", first, other)
    assert "1 of 2 answers differ (50.00 %)" in done.out
    assert f"{first}: 1 photo without an answer" in done.err
    assert np.isclose(read_external(first).by_task["mask"].sum(), 2)
    assert read_external(first).photos == 2

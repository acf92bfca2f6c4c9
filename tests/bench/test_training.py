"""Training is measured beside the members that are given, which stay as they are."""

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from orchestrator.bench.training import bench_training
from tests.conftest import hashes
from tests.training.test_loop import Stripes, job_of


class Slow(Stripes):
    """Two milliseconds to read a photo."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * len(rows))
        return super().take(rows)


def test_a_member_that_is_measured_stays_as_it_is(tmp_path: Path) -> None:
    photo, folder = tmp_path / "a.jpg", tmp_path / "run" / "fold-0"
    cv2.imwrite(str(photo), np.zeros((64, 48, 3), np.uint8))
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"of hours")
    before = hashes(tmp_path)
    job = job_of(folder, "epochs=1")
    job = replace(job, pixels=Slow(job.rows.truth))
    measured = bench_training({"mask": job}, [photo] * len(job.rows), 1, lambda _done, _all: None)
    assert measured["mask"].loop.rate > 0
    stages = {"decode", "store read", "augment", "copy and normalise", "forward", "backward", "optimiser"}
    assert set(measured["mask"].stages_ms_per_photo) == stages
    assert 2 <= measured["mask"].stages_ms_per_photo["store read"] < 8  # and not 16 times as much, as for a batch
    assert hashes(tmp_path) == before

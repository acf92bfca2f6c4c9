"""Training is measured beside the members that are given, which stay as they are."""

from pathlib import Path

import cv2
import numpy as np

from orchestrator.bench.training import bench_training
from tests.conftest import hashes
from tests.training.test_loop import job_of


def test_a_member_that_is_measured_stays_as_it_is(tmp_path: Path) -> None:
    photo, folder = tmp_path / "a.jpg", tmp_path / "run" / "fold-0"
    cv2.imwrite(str(photo), np.zeros((64, 48, 3), np.uint8))
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"of hours")
    before = hashes(tmp_path)
    job = job_of(folder, "epochs=1")
    measured = bench_training({"mask": job}, [photo] * len(job.rows), 1, lambda _done, _all: None)
    assert measured["mask"].loop.rate > 0
    stages = {"decode", "store read", "augment", "copy and normalise", "forward", "backward", "optimiser"}
    assert set(measured["mask"].stages_ms_per_photo) == stages
    assert hashes(tmp_path) == before

"""Reading photos for members, and what a profile says of it."""

import time

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.stages import Stages
from orchestrator.data.geometry import Box, Geometry
from orchestrator.inference.reader import Prepared, Reader


class SlowDetector:
    """Finds the same face after a while."""

    def find(self, photo: NDArray[np.uint8]) -> Box:
        time.sleep(0.05)
        return (10, 10, 20, 20)


def test_no_second_of_a_profile_is_counted_twice() -> None:
    reader = Reader((Geometry(16, 16, face=1.5),), SlowDetector())
    stages, started = Stages(on=True), time.perf_counter()
    read = reader.read(np.zeros((64, 48, 3), np.uint8), stages)
    seconds = time.perf_counter() - started
    assert isinstance(read, Prepared)
    assert read.face_found
    assert set(stages.seconds) == {"find faces", "crop and resize"}
    assert stages.seconds["find faces"] >= 0.05
    assert sum(stages.seconds.values()) <= seconds

"""A runtime answers several callers at once, and while another takes its place."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orchestrator.core.errors import ClosedError
from orchestrator.core.labels import JOINT, TASKS
from orchestrator.core.stages import Stages
from orchestrator.data.readers import read
from orchestrator.inference.cascade import EXACT
from orchestrator.inference.engines import torch_runners
from orchestrator.inference.member import load_members, voters_of
from orchestrator.inference.predictor import start_predictor
from orchestrator.inference.reader import Prepared, stacked
from orchestrator.inference.runtime import start_runtime
from tests.conftest import SOFT
from tests.inference.test_predictor import fold
from tests.inference.test_shared_backbone import member, pixels


def test_a_runtime_answers_several_callers_at_once_and_while_another_takes_its_place(
    trained: Path, people: Path
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
    prepared = [predictor.reader.read(path) for path in read(people / "train").paths[:12]]
    seen = stacked([photo for photo in prepared if isinstance(photo, Prepared)])
    expected = predictor.runtime.answers(seen)
    with ThreadPoolExecutor(4) as callers:
        pending = [callers.submit(predictor.runtime.answers, seen) for _ in range(8)]
        other = predictor.runtime.on(torch_runners(predictor.runtime.splits, "cpu", "fp32"))
        again = [*(future.result() for future in pending), other.answers(seen)]
    assert other.pools is predictor.runtime.pools  # the new one needs no threads of its own
    for answers in again:
        assert answers.voters == expected.voters
        for array, same in zip(answers.probabilities, expected.probabilities, strict=True):
            assert np.allclose(array, same, atol=1e-6)
    predictor.close()
    with pytest.raises(ClosedError, match="this predictor was closed"):
        other.answers(seen)


def test_threads_live_as_long_as_the_predictor(trained: Path, people: Path) -> None:
    before = set(threading.enumerate())
    paths = read(people / "train").paths[:40]
    with start_predictor(load_members(fold(trained, 0)), SOFT, threads=2) as predictor:
        list(predictor.predict(paths))
        ours = set(threading.enumerate()) - before
        list(predictor.predict(paths))
        predictor.on(predictor.runtime.runners).answers(paths, stages=Stages(on=True))
        assert set(threading.enumerate()) - before == ours
        assert len(ours) == 2
    assert set(threading.enumerate()) == before


def test_members_that_answer_for_several_tasks_are_not_asked_in_turn() -> None:
    joint = member("test_resnet", 1, 0, JOINT)
    assert [voter.task for voter in voters_of(joint)] == list(TASKS)
    runtime, settled = start_runtime([joint], threads=1), partial(EXACT.settled, combiner=SOFT)
    with pytest.raises(ValueError, match="joint-0001/fold-1: answer for several tasks, and cannot be asked in turn"):
        runtime.begin({joint.preprocess.geometry: pixels()}, settled)
    assert runtime.answers({joint.preprocess.geometry: pixels()}).voters == voters_of(joint)
    runtime.pools.close()

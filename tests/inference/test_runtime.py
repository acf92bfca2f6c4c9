"""A runtime answers several callers at once, and while another takes its place."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from orchestrator.combining.combiners import SoftVote
from orchestrator.data.readers import read
from orchestrator.inference.engines import torch_runners
from orchestrator.inference.member import load_members
from orchestrator.inference.predictor import start_predictor
from orchestrator.inference.reader import stacked
from tests.inference.test_predictor import fold


def test_a_runtime_answers_several_callers_at_once_and_while_another_takes_its_place(
    trained: Path, people: Path
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    prepared = [predictor.reader.read(path) for path in read(people / "train").paths[:12]]
    pixels = stacked([one for one in prepared if not isinstance(one, str)])
    expected = predictor.runtime.answers(pixels)
    with ThreadPoolExecutor(4) as callers:
        pending = [callers.submit(predictor.runtime.answers, pixels) for _ in range(8)]
        other = predictor.runtime.on(torch_runners(predictor.runtime.splits, "cpu", "fp32"))
        again = [*(one.result() for one in pending), other.answers(pixels)]
    predictor.runtime.close()
    for found in [*again, other.answers(pixels)]:  # closing one leaves the other
        assert found.voters == expected.voters
        for one, same in zip(found.probabilities, expected.probabilities, strict=True):
            assert np.allclose(one, same, atol=1e-6)
    other.close()


def test_threads_live_as_long_as_the_predictor(trained: Path, people: Path) -> None:
    before = set(threading.enumerate())
    paths = read(people / "train").paths[:40]
    with start_predictor(load_members(fold(trained, 0)), SoftVote(), threads=2) as predictor:
        list(predictor.predict(paths))
        ours = set(threading.enumerate()) - before
        list(predictor.predict(paths))
        assert set(threading.enumerate()) - before == ours
        assert len(ours) == 2
    assert set(threading.enumerate()) == before

"""Events of trainings in other processes reach the command's listener."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.cards import HISTORY, PROGRESS
from orchestrator.core.epochs import TrainedEpoch
from orchestrator.core.events import EpochEnded, EpochProgress, Event, MemberEnded
from orchestrator.core.files import write_json
from orchestrator.execution import progress_files
from orchestrator.execution.executor import JobResult
from orchestrator.execution.progress_files import Watcher, progress_file
from tests.training.test_loop import job_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_files, "POLL_SECONDS", 0.01)


def wait_for(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def epoch(number: int) -> TrainedEpoch:
    return TrainedEpoch(number, 0.5, 1e-3, 20.0, 1.5)


def epochs(*numbers: int) -> list[dict[str, object]]:
    return [epoch(number).as_dict() for number in numbers]


def test_what_a_worker_writes_reaches_the_listener_in_order(tmp_path: Path) -> None:
    job, events = job_of(tmp_path / "r" / "m"), list[Event]()
    job.folder.mkdir(parents=True)
    write_json(job.folder / HISTORY, epochs(1))  # of an earlier command: not reported again
    with Watcher([job], events.append) as watcher, progress_file(job.folder) as listen:
        listen(EpochProgress("r", 0, 1.5, 20.0))
        wait_for(lambda: EpochProgress("r", 0, 1.5, 20.0) in events)
        write_json(job.folder / HISTORY, epochs(1, 2))
        listen(EpochEnded("r", 0, epoch(2)))
        wait_for(lambda: EpochEnded("r", 0, epoch(2)) in events)
        write_json(job.folder / HISTORY, epochs(1, 2, 3))
        watcher.ended(JobResult("r", 0))
    ends = [event for event in events if not isinstance(event, EpochProgress)]
    assert ends == [EpochEnded("r", 0, epoch(2)), EpochEnded("r", 0, epoch(3)), MemberEnded("r", 0, "done")]
    assert not (job.folder / PROGRESS).exists()
    underway = [event.epochs for event in events if isinstance(event, EpochProgress)]
    assert underway == sorted(underway)  # a display never goes back


def test_a_training_that_starts_over_is_told_from_its_first_epoch(tmp_path: Path) -> None:
    job, events = job_of(tmp_path / "r" / "m"), list[Event]()
    job.folder.mkdir(parents=True)
    write_json(job.folder / HISTORY, epochs(1, 2))
    with Watcher([job], events.append):
        write_json(job.folder / HISTORY, epochs(1))
        wait_for(lambda: events == [EpochEnded("r", 0, epoch(1))])


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"epochs": 1}', '{"epochs": "x", "photos_per_second": 1}'])
def test_a_half_written_progress_is_no_progress(tmp_path: Path, text: str) -> None:
    job, events = job_of(tmp_path / "r" / "m"), list[Event]()
    job.folder.mkdir(parents=True)
    (job.folder / PROGRESS).write_text(text)
    (job.folder / HISTORY).write_text(text)
    with Watcher([job], events.append):
        time.sleep(0.1)
    assert events == []


def test_numbers_that_json_does_not_have_and_a_full_disk_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with progress_file(tmp_path) as listen:
        listen(EpochProgress("r", 0, 1.0, float("inf")))
        assert not (tmp_path / PROGRESS).exists()
        listen(EpochProgress("r", 0, 1.0, 2.0))
        monkeypatch.setattr(Path, "write_text", full)
        listen(EpochProgress("r", 0, 3.0, 2.0))
        assert json.loads((tmp_path / PROGRESS).read_bytes()) == {"epochs": 1.0, "photos_per_second": 2.0}


@pytest.mark.parametrize("ends", [False, True])
def test_what_a_listener_raises_reaches_the_caller(tmp_path: Path, ends: bool) -> None:
    job = job_of(tmp_path / "r" / "m")
    job.folder.mkdir(parents=True)

    def refuse(event: Event) -> None:
        raise LookupError(type(event).__name__)

    with pytest.raises(LookupError, match="EpochProgress"), Watcher([job], refuse) as watcher:
        with progress_file(job.folder) as listen:
            listen(EpochProgress("r", 0, 1.0, 2.0))
            wait_for(lambda: not watcher._thread.is_alive())
        if ends:
            watcher.ended(JobResult("r", 0))

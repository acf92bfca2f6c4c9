"""Jobs on this machine: side by side, each failing for itself, on cores and GPUs that are shared out, until asked to stop."""

import dataclasses
import json
import multiprocessing
import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors import SafetensorError

from orchestrator.artifacts import cards, weights
from orchestrator.artifacts.cards import MemberCard
from orchestrator.core.errors import ConfigError
from orchestrator.core.events import EpochEnded, Event, MemberEnded, ignore_events
from orchestrator.execution.local import LocalExecutor, WhileParentLives, claim_gpu
from orchestrator.training.cancelling import CancelFile
from orchestrator.training.loop import train_fold
from tests.training.test_loop import Stripes, job_of


def test_one_failing_job_never_sinks_the_others(tmp_path: Path) -> None:
    class Broken(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            raise OSError("the disk is gone")

    good = [job_of(tmp_path / "r" / f"fold-{fold}", "epochs=1", fold=fold) for fold in (0, 2)]
    bad = job_of(tmp_path / "r" / "fold-1", "epochs=1", fold=1, pixels=Broken(np.zeros(90)))
    events: list[Event] = []
    results = LocalExecutor().run([good[0], bad, good[1]], 1, events.append)
    assert [result.outcome for result in results] == ["done", "failed", "done"]
    failed = tmp_path / "r" / "fold-1" / "failure.json"
    assert results[1].why == f"mask fold 1: OSError: the disk is gone (traceback: {failed})"
    ends = [event for event in events if isinstance(event, MemberEnded)]
    assert [(end.run, end.fold, end.outcome) for end in ends] == [
        ("r", 0, "done"),
        ("r", 1, "failed"),
        ("r", 2, "done"),
    ]
    (first, *_, last) = [event for event in events if isinstance(event, EpochEnded)]
    assert (first.fold, first.epoch.number, last.fold) == (0, 1, 2)
    assert events.index(first) < events.index(ends[0])  # its epochs before its end
    assert "Traceback" in json.loads(failed.read_text())["traceback"]


def test_a_file_where_a_members_folder_must_be_sinks_no_other_job(tmp_path: Path) -> None:
    good, bad = (job_of(tmp_path / "r" / f"fold-{fold}", "epochs=1", fold=fold) for fold in (0, 1))
    (tmp_path / "r").mkdir()
    bad.folder.touch()
    results = LocalExecutor().run([bad, good], 1, ignore_events)
    assert [result.outcome for result in results] == ["failed", "done"]
    assert "mask fold 1: " in results[0].why
    assert str(bad.folder) in results[0].why


class Deadly(Stripes):
    """Pixels whose reader is killed, as the kernel does when memory runs out."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().take(rows)


@pytest.mark.slow
def test_a_job_whose_worker_dies_twice_is_told_with_the_settings_to_lower(tmp_path: Path) -> None:
    good = job_of(tmp_path / "r" / "fold-0", "epochs=1")
    bad = job_of(tmp_path / "r" / "fold-1", "epochs=1", fold=1, pixels=Deadly(np.zeros(90)))
    results = LocalExecutor().run([bad, good], 2, ignore_events)
    assert [result.outcome for result in results] == ["failed", "done"]
    assert "mask fold 1: its process was killed, most likely because memory ran out" in results[0].why
    assert results[0].why.endswith(bad.memory_advice)
    assert "batch_size (now 16; --set mask.batch_size=8)" in bad.memory_advice


@pytest.mark.slow
def test_a_listener_that_raises_ends_the_other_workers(tmp_path: Path) -> None:
    """Instead of leaving them at work on members that nobody waits for."""
    short = job_of(tmp_path / "r" / "fold-0", "epochs=1")
    long = job_of(tmp_path / "r" / "fold-1", "epochs=10000", fold=1)

    def listen(event: Event) -> None:
        if isinstance(event, MemberEnded):
            raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError):
            LocalExecutor().run([short, long], 2, listen)
    assert not [child for child in psutil.Process().children() if "LokyProcess" in " ".join(child.cmdline())]


def test_cores_are_shared_out_and_wrong_numbers_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.externals.loky.cpu_count", lambda *_, **__: 8)
    assert LocalExecutor(0).parallelism(15, "cpu") == (8, 1)
    assert LocalExecutor(2).parallelism(15, "cpu") == (2, 4)
    assert LocalExecutor(0).parallelism(3, "cpu") == (3, 2)
    assert LocalExecutor(0).parallelism(15, "cuda") == (1, 8)
    with pytest.raises(ConfigError, match="--jobs -1"):
        LocalExecutor(-1).parallelism(3, "cpu")


def test_where_no_process_can_be_started_the_command_trains_itself_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib trains in a daemon's own process, whose parent is not the command: that is no reason to end it."""
    WhileParentLives(os.getpid()).check()
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert LocalExecutor().parallelism(4, "cpu")[0] == 1
    with pytest.raises(ConfigError, match="this process is a daemon's"):
        LocalExecutor(2).parallelism(4, "cpu")
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {})
    monkeypatch.setenv("JOBLIB_MULTIPROCESSING", "0")
    assert LocalExecutor().parallelism(4, "cpu")[0] == 1
    with pytest.raises(ConfigError, match="JOBLIB_MULTIPROCESSING=0"):
        LocalExecutor(2).parallelism(4, "cpu")


def test_gpus_are_claimed_one_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.local.gpu_count", lambda: 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with claim_gpu("cuda") as first, claim_gpu("cuda") as other, claim_gpu("cuda") as third:
        assert (first, other) == ("cuda:0", "cuda:1")
        assert third in ("cuda:0", "cuda:1")
    with claim_gpu("cpu") as device:
        assert device == "cpu"


def test_a_full_disk_is_a_sentence_and_sinks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights.save_file

    def full(tensors: object, path: Path, note: object) -> None:
        if "fold-0" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path, note)

    monkeypatch.setattr(weights, "save_file", full)
    jobs = [job_of(tmp_path / "r" / f"fold-{fold}", "epochs=1", fold=fold) for fold in (0, 1)]
    results = LocalExecutor().run(jobs, 1, ignore_events)
    assert "the disk is full; the file was not written and nothing was damaged" in results[0].why
    assert results[1].outcome == "done"
    assert not list((tmp_path / "r").rglob("*.tmp"))


def test_a_training_that_is_asked_to_stop_keeps_its_epochs_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    """By a file, which other processes and machines see too."""
    whole = train_fold(job_of(tmp_path / "whole", "epochs=4"))
    stop = CancelFile(tmp_path / "stop")
    job = job_of(tmp_path / "r" / "fold-0", "epochs=4", cancel=(stop,))

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnded):
            stop.cancel()

    class Slow(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            time.sleep(0.1)  # the file is looked at once a second
            return super().take(rows)

    slow = dataclasses.replace(job, pixels=Slow(job.rows.truth))
    (result,) = LocalExecutor().run([slow], 1, listen)
    assert (result.outcome, "goes on from there" in result.why) == ("cancelled", True)
    assert not (job.folder / cards.CARD).exists()
    (again,) = LocalExecutor().run([job], 1, ignore_events)
    assert again.outcome == "cancelled"  # still asked to stop: before anything is loaded
    stop.path.unlink()
    events: list[Event] = []
    (done,) = LocalExecutor().run([job], 1, events.append)
    assert done.outcome == "done"
    first = next(event for event in events if isinstance(event, EpochEnded))
    assert first.epoch.number > 1
    assert MemberCard.load(job.folder).sha256 == whole.sha256


@pytest.mark.slow
def test_workers_are_asked_to_stop_by_the_same_file(tmp_path: Path) -> None:
    stop = CancelFile(tmp_path / "stop")
    stop.cancel()
    jobs = [job_of(tmp_path / "r" / f"fold-{fold}", fold=fold, cancel=(stop,)) for fold in (0, 1)]
    assert [result.outcome for result in LocalExecutor().run(jobs, 2, ignore_events)] == ["cancelled"] * 2

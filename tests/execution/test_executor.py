"""Any executor's seam: a job is run by one public function, wherever an executor calls it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.artifacts.run import RunRecord
from orchestrator.core.cores import cores
from orchestrator.core.events import EpochEnded, Event, Listener, MemberEnded, ignore_events
from orchestrator.execution.executor import JobResult, run_job
from orchestrator.execution.local import LocalExecutor
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import train_all
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.cancelling import CancelFile
from orchestrator.training.job import MemberJob
from tests.conftest import TINY, hashes
from tests.training.test_loop import Stripes, job_of


@dataclass(frozen=True)
class Loop:
    """An executor that shares nothing with the local one: a loop."""

    def parallelism(self, jobs: int, device: str, threads: int = 0) -> tuple[int, int]:
        return 1, threads or cores()  # as the local one: other threads add in another order

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        results = []
        for job in jobs:
            results.append(run_job(job, listen))
            listen(MemberEnded(job.run, job.fold, results[-1].outcome, results[-1].why))
        return results


def test_another_executor_trains_the_same_bits(people: Path, tmp_path: Path) -> None:
    files, epochs = [], []
    for executor in (LocalExecutor(1), Loop()):
        workspace, events = tmp_path / type(executor).__name__, list[Event]()
        settings = Settings(
            people / "train", workspace, changes=(*TINY, "epochs=2"), folds=2, device="cpu", executor=executor
        )
        report = train_all(settings, {"mask": SPECIALISTS["mask"]}, events.append)
        assert report.complete
        assert RunRecord.load(workspace / "mask-0001").complete
        members = hashes(workspace / "mask-0001")
        files.append(
            [members[f"fold-{fold}/{name}"] for fold in (0, 1) for name in ("weights.safetensors", "held_out.parquet")]
        )
        epochs.append(
            [(event.fold, event.epoch.number, event.epoch.loss) for event in events if isinstance(event, EpochEnded)]
        )
    assert files[0] == files[1]
    assert epochs[0] == epochs[1]
    assert len(epochs[0]) == 4


def test_every_way_in_which_a_job_ends_is_its_result(tmp_path: Path) -> None:
    class Broken(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            raise OSError("the disk is gone")

    stop, folder = CancelFile(tmp_path / "stop"), tmp_path / "r"
    stop.cancel()
    failed = run_job(job_of(folder / "failed", "epochs=1", pixels=Broken(np.zeros(90))), ignore_events)
    assert (failed.outcome, failed.why.startswith("mask fold 0: OSError: the disk is gone (traceback: ")) == (
        "failed",
        True,
    )
    pruned = run_job(job_of(folder / "pruned", "epochs=2", pruning_thresholds={1: 2.0}), ignore_events)
    assert (pruned.outcome, pruned.why) == ("pruned", "below 2.0000 after epoch 1 of 2")
    cancelled = run_job(job_of(folder / "cancelled", cancel=(stop,)), ignore_events)
    assert (cancelled.outcome, "goes on from there" in cancelled.why) == ("cancelled", True)
    assert run_job(job_of(folder / "done", "epochs=1"), ignore_events) == JobResult("r", 0)

"""Batches are the same bits with DataLoader workers and without, wherever they are started; and every wait for a worker ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from orchestrator.core.cores import cores
from orchestrator.core.errors import ConfigError, PhotoError, TrainingError
from orchestrator.data import loading, sharing
from orchestrator.data.augmentation import Augment, Augmenter
from orchestrator.data.loading import Batches, load, why_no_workers
from orchestrator.execution.local import LocalExecutor
from tests.conftest import ROOT

METHODS = ["fork", "spawn", "forkserver"]
MOUNT = "mount -t tmpfs -o {options} tmpfs /dev/shm && exec {python} -c '{code}'"


class Rows:
    """Pixels that a row's number decides; in a module, so that other processes find it."""

    def __init__(self, fails: int = -1, dies: int = -1, waits: float = 0) -> None:
        self.fails, self.dies, self.waits = fails, dies, waits

    def take(self, rows: np.ndarray) -> np.ndarray:
        if self.fails in rows:
            raise PhotoError("a.jpg", "damaged")
        if self.dies in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.waits)
        return np.stack([np.random.default_rng(row).integers(0, 256, (24, 16, 3), np.uint8) for row in rows])


def digest(workers: int, method: str = "") -> list[tuple[bytes, bytes]]:
    """All bytes of a pass, as a process that is started by `method` would load them."""
    if method:
        multiprocessing.get_all_start_methods = lambda: [method]  # type: ignore[method-assign]  # Python's own way here
    batches = Batches(Rows(), np.arange(50), 8, Augmenter(Augment(flip=0.5, shift=0.1, grey=0.3), 24, 16), 5)
    return [(pixels.numpy().tobytes(), rows.numpy().tobytes()) for pixels, rows in load(batches, workers)]


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_of_joblib_loads_with_processes_of_its_own(method: str) -> None:
    (digests,) = joblib.Parallel(n_jobs=2, backend="loky")([joblib.delayed(digest)(2, method)])
    assert len(digests) == 7
    assert digests == digest(0)


@pytest.mark.parametrize("method", METHODS)
def test_processes_load_the_same_bits_by_every_start_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "start_context", lambda: multiprocessing.get_context(method))
    assert digest(2) == digest(0)


def test_the_start_method_is_pythons_own_unless_one_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, taken in (("spawn", "spawn"), (None, multiprocessing.get_all_start_methods()[0])):
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none, chosen=chosen: chosen)
        assert sharing.start_context().get_start_method() == taken


@pytest.mark.parametrize("room", [0, None])
def test_batches_without_room_in_shared_memory_go_through_pipes(
    room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "shared_room", lambda: room)
    assert digest(2) == digest(0)


def test_what_goes_wrong_in_a_loading_process_is_told_as_it_is() -> None:
    with pytest.raises(PhotoError) as caught:
        list(load(Batches(Rows(fails=20), np.arange(50), 8), 2))
    assert str(caught.value) == "a.jpg: damaged."


def test_a_dead_or_endless_loading_process_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"one of 2 DataLoader workers died.*--set workers=1.*--set workers=0"):
        list(load(Batches(Rows(dies=20), np.arange(50), 8), 2))
    monkeypatch.setattr(loading, "PATIENCE", 1)
    with pytest.raises(TrainingError, match=r"none of 1 DataLoader workers had a batch ready within 1 s.*workers=0"):
        list(load(Batches(Rows(waits=30), np.arange(50), 8), 1))


def children_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("method", METHODS)
def test_loading_processes_end_with_whom_they_load_for(method: str, tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(
        "import multiprocessing, time, numpy as np\n"
        "from orchestrator.data import loading\n"
        "from tests.data.test_loading import Rows\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    batches = loading.load(loading.Batches(Rows(), np.arange(50), 8), 2)\n"
        "    next(batches); print('begun', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    family = children_of(process.pid)
    family += [grandchild for child in family for grandchild in children_of(child)]
    assert len(family) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in family if alive_and_no_zombie(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def alive_and_no_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def with_shared_memory(options: str, code: str) -> str:
    """Runs code where /dev/shm is another one; skips where a process may not mount."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount (unshare -m)")
    line = MOUNT.format(options=options, python=sys.executable, code=code)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", line], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("options", "cause"), [
    ("size=4k", "/dev/shm is full (4 kB in all)"), ("size=64k,ro", "/dev/shm may not be written to"),
])  # fmt: skip
def test_shared_memory_without_room_for_semaphores_is_named(options: str, cause: str) -> None:
    output = with_shared_memory(
        options,
        "import numpy as np\n"
        "from orchestrator.data.loading import Batches, load\n"
        "from orchestrator.core.errors import OrchestratorError\n"
        "from orchestrator.execution.local import LocalExecutor\n"
        "from tests.data.test_loading import Rows\n"
        'for one in (lambda: list(load(Batches(Rows(), np.arange(50), 8), 2)), lambda: LocalExecutor(2).parallelism(4, "cpu")):\n'
        "    try: one()\n"
        "    except OrchestratorError as error: print(error)\n"
        'print(*LocalExecutor(0).parallelism(4, "cpu"), len(list(load(Batches(Rows(), np.arange(50), 8), 0))))\n',
    )
    assert f"workers = 2: processes that work together need semaphores, and {cause}. Containers get more by" in output
    assert "--set workers=0 loads in the training's own process." in output
    assert f"--jobs 2: processes that work together need semaphores, and {cause}." in output
    assert "--jobs 1 trains one member after the other." in output
    # One member at once, with all cores: a thread less would give its weights other bits.
    assert output.strip().endswith(f"1 {cores()} 7")


def test_shared_memory_that_batches_would_fill_is_no_endless_wait() -> None:
    output = with_shared_memory(
        "size=17m",
        "import numpy as np, torch\n"
        "from orchestrator.data.loading import Batches, load\n"
        "class Large:\n"
        "    def take(self, rows): return np.broadcast_to(rows[:, None, None, None], (len(rows), 400, 400, 3)).astype(np.uint8)\n"
        "whole, fits = [[(a.numpy().tobytes(), b.numpy().tobytes()) for a, b in load(Batches(Large(), np.arange(20), 4), n)]\n"
        "               for n in (0, 3)]\n"
        "print(whole == fits, len(whole))\n",
    )
    assert output == "True 5\n"


def test_a_machine_that_gives_no_semaphores_trains_one_job_without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_workers(8) == ""
    for module in ("orchestrator.execution.local", "orchestrator.data.sharing"):
        monkeypatch.setattr(f"{module}.why_no_parallelism", lambda: "they cannot.")
    assert LocalExecutor(0).parallelism(4, "cpu")[0] == 1
    with pytest.raises(ConfigError, match=r"--jobs 2: they cannot\..*--jobs 1 trains"):
        LocalExecutor(2).parallelism(4, "cpu")


def _handlers(ignored: bool, answers: Any) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    loading._begin(0)
    answers.put(
        [signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)]
    )


@pytest.mark.parametrize("ignored", [True, False])
def test_a_loading_process_outlives_a_hang_up_that_its_command_ignores(ignored: bool) -> None:
    """`nohup orch train-all ...`: a closed terminal signals all processes of the command."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_handlers, args=(ignored, answers))
    process.start()
    assert answers.get(timeout=60) == [True, ignored, False]
    process.join(60)

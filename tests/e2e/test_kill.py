"""`orch train-all` killed for real, at random moments, and run again: the same weights, bit for bit."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import tiny
from tests.programs import Program

pytestmark = pytest.mark.slow

RUN, WORKERS = 1, 2
"""`--jobs`: members are trained by the command itself, or by workers of its own."""


def words_of(people: Path, workspace: Path, jobs: int, *more: str) -> list[str]:
    words = [
        "train-all",
        "--data",
        str(people / "train"),
        "--workspace",
        str(workspace),
        "--folds",
        "2",
        "--jobs",
        str(jobs),
    ]
    return [*words, *tiny("epochs=6", "drop_rate=0.2"), *more]


def start(people: Path, workspace: Path, jobs: int, *more: str) -> Program:
    return Program(words_of(people, workspace, jobs, *more), workspace.parent / f"{workspace.name}.log")


def finish(people: Path, workspace: Path, jobs: int) -> None:
    assert start(people, workspace, jobs).wait() == 0, (workspace.parent / f"{workspace.name}.log").read_text()


def results(workspace: Path) -> dict[str, str]:
    return {
        path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("weights.safetensors", "held_out.parquet")
        for path in sorted(workspace.glob(f"*-0001/fold-*/{name}"))
    }


def workers_of(parent: int) -> list[int]:
    """The pids of a command's loky workers, from /proc."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            command_line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"loky" in command_line and b"resource_tracker" not in command_line:
            pids.append(int(process.name))
    return pids


def epochs_done(workspace: Path) -> int:
    return sum(path.stat().st_size > 0 for path in workspace.glob("*-*/fold-*/history.json"))


Whole = Callable[[int], tuple[dict[str, str], float]]


@pytest.fixture(scope="module")
def uninterrupted(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What a command that nobody kills comes to, and its seconds, by `--jobs`: other threads give other bits."""

    @cache
    def whole(jobs: int) -> tuple[dict[str, str], float]:
        workspace = tmp_path_factory.mktemp("whole") / "runs"
        started = time.monotonic()
        finish(people, workspace, jobs)
        expected = results(workspace)
        assert len(expected) == 2 * 3 * 2
        return expected, time.monotonic() - started

    return whole


@pytest.mark.parametrize(("jobs", "most"), [(RUN, 7), (WORKERS, 3)])
def test_killed_at_random_moments_the_weights_are_the_same(
    people: Path, tmp_path: Path, uninterrupted: Whole, jobs: int, most: int
) -> None:
    expected, seconds = uninterrupted(jobs)
    draw, kills, rounds = random.Random(jobs), 0, 0
    while kills < most:
        workspace = tmp_path / f"runs{rounds}"
        rounds += 1
        while kills < most:
            process = start(people, workspace, jobs)
            # From the first word to the last card: every moment may be hit.
            if process.wait(draw.uniform(0.1, 0.7) * seconds) is not None:
                break  # done in spite of the kills: begin anew for those that are left
            process.kill()  # the command alone: its workers must notice by themselves
            kills += 1
        finish(people, workspace, jobs)
        assert results(workspace) == expected
        assert len(list(workspace.glob("*-0001/run.json"))) == len(list(workspace.glob("*-*/run.json"))) == 3
        left = [path for path in workspace.rglob("*") if path.name.endswith((".tmp", ".building"))]
        assert not [*left, *workspace.glob("*-*/fold-*/checkpoint.safetensors")]


def test_ctrl_c_ends_calmly_and_the_same_command_goes_on(people: Path, tmp_path: Path, uninterrupted: Whole) -> None:
    workspace = tmp_path / "runs"
    process = start(people, workspace, WORKERS)
    deadline = time.monotonic() + 120
    while not epochs_done(workspace) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    log = (tmp_path / "runs.log").read_text()
    assert "the same command continues from there" in log
    assert "Traceback" not in log
    finish(people, workspace, WORKERS)
    assert results(workspace) == uninterrupted(WORKERS)[0]


def test_a_worker_that_is_killed_fails_alone_or_is_tried_again(
    people: Path, tmp_path: Path, uninterrupted: Whole
) -> None:
    workspace = tmp_path / "runs"
    process = start(people, workspace, WORKERS)
    deadline = time.monotonic() + 120
    while not epochs_done(workspace) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = workers_of(process.pid)
    assert workers
    os.kill(workers[-1], signal.SIGKILL)  # what the kernel does when memory runs out
    assert process.wait() == 0, (tmp_path / "runs.log").read_text()
    assert results(workspace) == uninterrupted(WORKERS)[0]


def test_two_commands_at_once_never_train_the_same_run(people: Path, tmp_path: Path) -> None:
    workspace, more = tmp_path / "runs", ("--set", "epochs=500")
    first = start(people, workspace, RUN, *more)
    deadline = time.monotonic() + 120
    while not epochs_done(workspace) and time.monotonic() < deadline:
        time.sleep(0.1)
    second = Program(words_of(people, workspace, RUN, *more), tmp_path / "second.log")
    assert second.wait() == 2
    assert first.poll() is None
    first.kill()
    assert "another orch command is training this run" in (tmp_path / "second.log").read_text()

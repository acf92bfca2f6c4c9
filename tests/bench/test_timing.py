"""Things are timed in turn, and their memory is seen."""

import time

import numpy as np

from orchestrator.bench.timing import Timing, in_turn, ratio


def test_things_run_in_turn_and_are_compared_round_by_round() -> None:
    order: list[str] = []
    progress: list[tuple[int, int]] = []
    things = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = in_turn(things, 3, {"a": 2.0, "b": 1.0}, lambda done, of: progress.append((done, of)))
    assert order == ["a", "b"] * 3
    assert progress == [(number, 6) for number in range(1, 7)]
    assert timings["a"].work == 2
    # A machine that halves its pace in the second round: medians of seconds would say 1.5, the rounds say 2.
    assert ratio(Timing([2.0, 4.0, 2.0]), Timing([1.0, 2.0, 1.0])) == 2


def test_memory_of_a_block_is_seen() -> None:
    held: list[object] = []
    timings = in_turn({"large": lambda: held.append(np.ones(30_000_000)), "small": held.clear}, 1)
    assert timings["large"].peak_mb > 150
    assert timings["small"].peak_mb < 100


def test_memory_of_workers_counts_while_they_work() -> None:
    from joblib import Parallel, delayed

    def work(count: int) -> int:
        return Parallel(n_jobs=2)(delayed(_hold)(count) for _ in range(2))[0]

    things = {"work": lambda: work(8_000_000), "idle": lambda: time.sleep(0.3), "again": lambda: work(8_000_000)}
    timings = in_turn(things, 1)
    assert timings["again"].peak_mb > 2 * 64  # its workers were there before it
    assert timings["idle"].peak_mb < 50


def _hold(count: int) -> int:
    held, started = np.ones(count), time.process_time()
    while time.process_time() - started < 0.5:
        held += 1
    return len(held)

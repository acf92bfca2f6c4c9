import threading
import time

import pytest

from orchestrator.core.stages import Stages


def test_stages_add_up_over_threads_and_blocks_that_fail() -> None:
    stages = Stages(True)

    def work() -> None:
        with stages("wait"):
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(RuntimeError), stages("break"):
        time.sleep(0.02)
        raise RuntimeError
    assert 0.2 <= stages.seconds["wait"] < 2
    assert 0.02 <= stages.seconds["break"] < 0.2


def test_iterating_times_the_wait_for_each_item_and_passes_all_on() -> None:
    stages = Stages(True)

    def slow() -> object:
        for number in (0, None, 2):
            time.sleep(0.02)
            yield number

    numbers = []
    for number in stages.each("load", slow()):
        time.sleep(0.05)
        numbers.append(number)
    assert numbers == [0, None, 2]
    assert 0.06 <= stages.seconds["load"] < 0.15


def test_nothing_is_kept_where_nobody_asked() -> None:
    stages = Stages()
    with stages("a"):
        pass
    assert list(stages.each("b", [1, 2])) == [1, 2]
    assert stages.seconds == {}

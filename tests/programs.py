"""`orch` as a process of its own that begins at once: forked from a server that has imported torch and all the rest already.

A command that is started anew imports for 2.5 s of a core before it does anything, which tests that kill it ten times would wait
for ten times. What they kill here is a process as real as that one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Program"]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "orchestrator.cli.train",
        "orchestrator.pipeline.training",
        "orchestrator.execution.local",
        "orchestrator.experiments.sweeps",
    ]
)


def _run(words: list[str], out: Path, log: Path) -> None:
    from orchestrator.cli.app import program

    for path, descriptor in ((out, 1), (log, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["orch", *words]
    program()


class Program:
    """A command at work.

    Args:
        words: of the command line.
        log: where stderr goes, appended.
        out: where stdout goes, appended; None: into the log too.
    """

    def __init__(self, words: Iterable[object], log: Path, out: Path | None = None) -> None:
        self._process = _SERVER.Process(target=_run, args=([*map(str, words)], out or log, log))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it is at work."""
        return self._process.exitcode

    def wait(self, seconds: float = 300) -> int | None:
        """Waits so long at most; the exit code, None while it is still at work."""
        self._process.join(seconds)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it as the kernel does, without a word."""
        self._process.kill()
        self._process.join()

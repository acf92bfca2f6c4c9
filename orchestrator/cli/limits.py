"""A shell's limit on memory (`ulimit -v`), and a command that such a limit ends without a word.

Where libraries in C++ get no memory they end the whole process (SIGABRT, or exit code 127 of the system's loader): nothing in it
can say why. With a limit set, a command therefore runs in a child of its program, which says what became of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

if sys.platform != "win32":
    import resource

__all__ = ["in_child", "is_limited"]

PR_SET_PDEATHSIG = 1  # of sys/prctl.h
WORDLESS = (-signal.SIGABRT, -signal.SIGSEGV, 127)
"""How a process ends that gets no memory where nobody asks whether it did."""


def is_limited() -> bool:
    """Whether this process may map only so much (`ulimit -v`); where that is used up, nothing can be imported any more."""
    return sys.platform != "win32" and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def in_child(told: Callable[[], int]) -> None:
    """Goes on in a child of this process, which waits for it and ends with its exit code.

    Args:
        told: says that the child was out of memory, and gives the exit code for that.
    """
    parent, child = os.getpid(), os.fork()
    if child == 0:
        if sys.platform == "linux":  # who kills the program means the command
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(128 + signal.SIGKILL)
        return

    def pass_on(number: int, _frame: object) -> None:
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` is respected
            signal.signal(number, pass_on)
    # A terminal sends Ctrl-C to the child as well, a program to this process alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN if os.isatty(0) else pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(told() if code in WORDLESS else code if code >= 0 else 128 - code)

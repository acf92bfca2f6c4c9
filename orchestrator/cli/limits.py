"""A shell's limit on memory (`ulimit -v`), and commands that such a limit kills without a message.

C++ libraries that get no memory end the whole process (SIGABRT, or exit code 127 of the system's loader), which then
cannot say why. With a limit set, a command therefore runs in a child process, and its parent reports what happened.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

if sys.platform == "linux":
    import resource

__all__ = ["in_child", "is_limited"]

PR_SET_PDEATHSIG = 1  # of sys/prctl.h
SI_KERNEL = 0x80  # of siginfo.h: sent by the kernel itself, as a terminal's Ctrl-C is
WORDLESS = (-signal.SIGABRT, -signal.SIGSEGV, 127)
"""Exit codes of a process that ran out of memory without an error message."""


def is_limited() -> bool:
    """Whether this process may map only so much (`ulimit -v`); where that is used up, nothing can be imported any more."""
    return sys.platform == "linux" and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def in_child(report: Callable[[], int]) -> None:
    """Continues in a child process; this process waits for it and ends with its exit code.

    Args:
        report: reports that the child ran out of memory, and returns the exit code for that.
    """
    waited_for = {signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        import ctypes  # 2 ms that no command without a limit waits for

        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # killing this program must kill the command
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)
        return
    while True:
        came = signal.sigwaitinfo(waited_for)
        if came.si_signo != signal.SIGCHLD:
            if came.si_code != SI_KERNEL:  # a terminal sends to the child as well, a program to this process alone
                os.kill(child, came.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            os._exit(report() if code in WORDLESS else code if code >= 0 else 128 - code)

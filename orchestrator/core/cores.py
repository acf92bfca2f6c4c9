"""How many cores there are for this process, and threads that take one each."""

from __future__ import annotations

__all__ = ["cores", "one_thread"]


def cores() -> int:
    """The cores that this process may use, by its affinity, its container's share, and LOKY_MAX_CPU_COUNT.

    `joblib.cpu_count` says 1 where processes cannot work together (a read-only /dev/shm), and threads can all the same. Another
    number of threads would give trained weights other bits.
    """
    from joblib.externals.loky import cpu_count

    found: int = cpu_count()
    return found


def one_thread() -> None:
    """Initialiser of a pool's threads: one core per call, so that sums are always in the same order."""
    import torch

    torch.set_num_threads(1)

"""How many cores this process may use, and threads that use one core each."""

from __future__ import annotations

__all__ = ["cores", "one_thread"]


def cores() -> int:
    """The number of cores that this process may use, by its affinity, its container's share, and LOKY_MAX_CPU_COUNT.

    `joblib.cpu_count` is not used: it is 1 where processes cannot work together (a read-only /dev/shm), although threads can, and
    with another number of threads the trained weights would differ in their last bits.
    """
    from joblib.externals.loky import cpu_count

    count: int = cpu_count()
    return count


def one_thread() -> None:
    """Initialises a pool's thread: torch uses one core per call, so that sums are always in the same order."""
    import torch

    torch.set_num_threads(1)

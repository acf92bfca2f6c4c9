"""How much arithmetic a training step is, and how fast a machine multiplies matrices: what share of its power is used."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops", "matrix_rate"]

CPU_SIDE, GPU_SIDE = 2048, 8192
"""Sides of the matrices: large enough that moving them takes no time beside multiplying them."""
ROUNDS = 5


def count_flops(step: Callable[[], object]) -> float:
    """Floating-point operations of what runs, a multiply-add counted as two (torch.utils.flop_counter).

    Matrix products and convolutions only, forward and backward: norms, activations and the optimiser move memory rather than
    compute.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def matrix_rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """Operations a second of a square matrix product, the best of five.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: of the matrices.
        threads: on a CPU.
    """
    on_cpu = device == "cpu"
    side = CPU_SIDE if on_cpu else GPU_SIDE
    before = torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(threads)
    try:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = []
        with nullcontext() if on_cpu else torch.cuda.device(device):
            for _ in range(ROUNDS + 1):
                if not on_cpu:
                    torch.cuda.synchronize()
                started = time.perf_counter()
                torch.mm(left, right)
                if not on_cpu:
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2.0 * side**3 / min(seconds[1:])  # the first warms up

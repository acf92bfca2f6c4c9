"""Floating-point operations of a training step, and the machine's rate of matrix products: the share that is used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops", "matrix_rate"]

CPU_SIDE, GPU_SIDE = 2048, 8192
"""Side lengths of the matrices, large enough that moving them takes no time compared with multiplying them."""
ROUNDS = 5


def count_flops(step: Callable[[], object]) -> float:
    """Floating-point operations of what runs, a multiply-add counted as two (torch.utils.flop_counter).

    Matrix products and convolutions only, forward and backward: norms, activations and the optimiser move memory rather than
    compute.
    """
    formulas = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        step()
    return float(counter.get_total_flops())


def _convolution_backward(
    grad: Sequence[int], photos: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Operations of a convolution's gradients; each gradient costs as much as the forward pass.

    torch's own formula leaves the groups out, and counts a depthwise convolution of 96 channels 96 times (2.15).

    Args:
        grad: shape of the output's gradient.
        photos: shape of the input.
        weight: shape of the weight, (out, in / groups, ...).
        rest: bias, stride, padding, dilation, transposed, output padding, groups, and which gradients are requested.
    """
    transposed, requested = rest[4], rest[7]
    positions = math.prod((photos if transposed else grad)[2:])
    return 2 * grad[0] * positions * math.prod(weight) * (int(requested[0]) + int(requested[1]))


def matrix_rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """Operations a second of a square matrix product, the best of five.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: dtype of the matrices.
        threads: number of threads on a CPU.
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

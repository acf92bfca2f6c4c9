"""Devices, precision and memory: what was asked for becomes what this machine has and does fast."""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from orchestrator.core.device_names import check_device
from orchestrator.core.errors import DeviceError

__all__ = ["autocast", "give_back_freed_memory", "gpu_count", "keep_freed_memory", "precision_of", "resolve_device"]


def gpu_count() -> int:
    """Number of CUDA devices that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve_device(name: str) -> str:
    """The device of a name: for `auto`, `cuda` if there is a GPU and `cpu` otherwise; other names are only checked.

    Raises:
        ConfigError: the name is unknown.
        DeviceError: the device is not there.
    """
    check_device(name)
    count = gpu_count()
    if name == "auto":
        return "cuda" if count else "cpu"
    if name == "cpu":
        return "cpu"
    number = name.partition(":")[2]
    if not count:
        raise DeviceError(
            f"--device {name}: torch {torch.__version__} sees no GPU here. Use --device cpu or auto; if there is one, "
            "check `nvidia-smi`, and that torch was built with CUDA."
        )
    if number and int(number) >= count:
        raise DeviceError(
            f"--device {name}: there {'is' if count == 1 else 'are'} {count}, cuda:0 to cuda:{count - 1}."
        )
    return name


def precision_of(precision: str, device: str) -> torch.dtype:
    """The dtype that matrix work runs in.

    `auto` is fp32 on a CPU: depthwise nets trained under bf16 autocast were 1.4 times slower here (EfficientNet-Lite0 at
    128 x 96, two threads: 50 photos/s against 70), and dense ones can ask for bf16 in their recipe.
    """
    if precision == "auto":
        if device == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "fp16" and device == "cpu":
        return torch.float32  # a member trained in fp16 on a GPU predicts on a CPU in fp32; training so is refused
    return dtypes[precision]


def autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    """The context in which a network's forward pass runs."""
    dtype = precision_of(precision, device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.split(":")[0], dtype=dtype)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
KEPT_BLOCK, KEPT_TOP = 2**30, 2**29
"""Bytes: freed blocks up to KEPT_BLOCK stay with this process, and at most KEPT_TOP of free memory at the heap's end."""


def keep_freed_memory() -> None:
    """Makes glibc keep freed activations for the next batch; elsewhere it does nothing.

    By default every block over 32 MB goes back to the system when it is freed and comes back page by page, zeroed. The
    activations of 64 photos are such blocks: EfficientNet-Lite0 at 128 x 96 spent a quarter to a third of its time in the
    kernel, and answered 1.4 times as many photos a core second with this call; training on 32 photos gained 1.15 times
    (docs/experiments.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK):
            mallopt(M_MMAP_MAX, 0)  # older versions allow no threshold above 32 MB, but such blocks can be turned off
        mallopt(M_TRIM_THRESHOLD, KEPT_TOP)


def give_back_freed_memory() -> None:
    """Gives freed memory back to the system, so that a measurement sees only what is in use; glibc only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)

"""Names of devices, checked as far as that is possible without torch."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.core.errors import ConfigError, DeviceError

__all__ = ["check_device"]

DEVICES = Path("/dev")
GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "kfd", "dxg")
"""Device files that GPU drivers create on Linux: NVIDIA's, those of its embedded boards, AMD's, and Windows' for its Linux."""


def check_device(name: str) -> None:
    """Rejects an unknown device name, and the name of a GPU if no GPU driver is loaded; torch itself is not asked.

    Raises:
        ConfigError: the name is unknown; lists the allowed names.
        DeviceError: there is no GPU.
    """
    kind, colon, number = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and number.isdigit()):
        raise ConfigError(f"--device {name}: allowed: auto, cpu, cuda, cuda:0, cuda:1 ...")
    if kind == "cuda" and sys.platform == "linux" and not any(any(DEVICES.glob(pattern)) for pattern in GPU_FILES):
        raise DeviceError(
            f"--device {name}: orch sees no GPU here: {DEVICES} has no file of a GPU's driver. Use --device cpu or auto; if "
            "there is one, check `nvidia-smi`, and in a container that it was given the GPU (docker run --gpus all)."
        )

"""Options of prediction, and the checks that need no network. Nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from orchestrator.core.errors import ConfigError, check_choice
from orchestrator.core.extras import missing_of, require
from orchestrator.core.labels import JOINT

__all__ = [
    "ENGINES", "FEW_PHOTOS", "PACKAGES", "Precision", "check_cascade", "check_engine",
    "check_rate", "check_threshold", "is_installed",
]  # fmt: skip

Precision = Literal["fp32", "bf16"]

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Engine other than torch -> the packages that it needs; what runs them is in `BACKENDS` (backends.py)."""

ENGINES = ("torch", *PACKAGES)
"""Values of `--engine`, beside `auto`."""

FEW_PHOTOS = 256
"""Up to this many photos stay on torch if the engine is `auto`: fifteen members of EfficientNet-Lite0 answer them in
5 s on 2 cores, and opening eighteen exports alone would take a second or two."""

FEWEST_EVENTS = 3.0
"""Smallest photos x rate for a calibration: no change in n photos means a rate below 3 / n (rule of three, 95 %)."""


def is_installed(engine: str) -> bool:
    """Whether the packages that an engine needs are here."""
    return not missing_of(PACKAGES[engine])


def check_engine(name: str, device: str) -> None:
    """Refuses an engine that is unknown, not installed, or not for the device.

    Args:
        name: `auto` or an engine.
        device: the requested device, or the resolved one.

    Raises:
        ConfigError: with the way out.
    """
    check_choice("--engine", name, ("auto", *ENGINES))
    if name in ("auto", "torch"):
        return
    if device not in ("cpu", "auto"):
        raise ConfigError(
            f"--engine {name} runs on the CPU here, and --device is {device}. Use --device cpu, or torch."
        )
    require(f"--engine {name}", "engines", PACKAGES[name], "use --engine torch")


def check_threshold(threshold: float) -> None:
    """Refuses a threshold of pseudo-labels outside 0.5 up to, not including, 1.

    Raises:
        ConfigError: naming it.
    """
    if not 0.5 <= threshold < 1:
        raise ConfigError(f"--threshold {threshold}; allowed: 0.5 up to, not including, 1.")


def check_rate(rate: float, photos: int | None = None) -> None:
    """Rejects a rate of changed labels that is out of range, or too small for so few photos.

    Args:
        rate: share of labels that may change, 0..1.
        photos: how many there are; None where that is not known yet.

    Raises:
        ConfigError: with values that would work.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"--rate {rate}; allowed: 0 up to, not including, 1.")
    if photos is not None and 0 < photos * rate < FEWEST_EVENTS:
        enough = math.ceil(FEWEST_EVENTS / photos * 1000) / 1000
        higher = f", or --rate {enough:g}" if enough < 1 else ""
        raise ConfigError(
            f"{photos:,} photos cannot show a rate of {rate:g} changed labels: give at least "
            f"{math.ceil(FEWEST_EVENTS / rate):,}{higher}."
        )


def check_cascade(tasks: Iterable[str], external: Sequence[Any] = ()) -> None:
    """Refuses an ensemble whose members cannot be asked one after the other.

    Args:
        tasks: what its members answer for.
        external: its external tables.

    Raises:
        ConfigError: joint networks, or external tables.
    """
    if external or JOINT in set(tasks):
        raise ConfigError(
            "a cascade asks the members of each task in turn; joint networks and external tables answer for all at "
            "once. Predict without --cascade, or build an ensemble of specialists alone."
        )

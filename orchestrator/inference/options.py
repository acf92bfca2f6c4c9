"""Options of prediction, and the checks that need no network. Nothing heavy is imported here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.core.device_names import check_device
from orchestrator.core.errors import ConfigError, Mistakes, check_choice
from orchestrator.core.extras import missing_of, require
from orchestrator.core.labels import JOINT
from orchestrator.core.strategies import Strategy

__all__ = [
    "ENGINES", "EXPORT_CARD", "FEW_PHOTOS", "ON_ERROR", "PACKAGES", "PRECISIONS", "UNFINISHED_EXPORT", "UNFINISHED_MARK",
    "Precision",
    "PredictionOptions",
    "check_cascade", "check_engine", "check_export_folder", "check_rate", "check_threshold", "is_installed", "needs_trial",
]  # fmt: skip

Precision = Literal["fp32", "bf16"]

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Engine other than torch -> the packages that it needs; what runs them is in `BACKENDS` (backends.py)."""

ENGINES = ("torch", *PACKAGES)
"""Values of `--engine`, beside `auto`."""

PRECISIONS = ("auto", "fp32")
"""Values of `--precision`."""

ON_ERROR = ("fail", "mark")
"""Values of `--on-error`."""

FEW_PHOTOS = 256
"""Up to this many photos stay on torch if the engine is `auto`: fifteen members of EfficientNet-Lite0 answer them in
5 s on 2 cores, and opening eighteen exports alone would take a second or two."""

EXPORT_CARD = "card.json"
UNFINISHED_EXPORT = ".unfinished"
UNFINISHED_MARK = ".orch-export"
"""Inside that folder: it is an export's, and not a user's."""
"""Folder inside an export's, while it is written: what an export that was killed leaves may be written over."""

"""The file that makes a folder an export."""

FEWEST_EVENTS = 3.0
"""Smallest photos x rate for a calibration: no change in n photos means a rate below 3 / n (rule of three, 95 %)."""


@dataclass(frozen=True)
class PredictionOptions:
    """How an ensemble is asked, as the commands' options say.

    Attributes:
        strategy: words of `--strategy`; None: the ensemble's own.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        precision: `auto`, or `fp32`: no engine whose answers differ from torch's by over 1e-4.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        on_error: `fail`, or `mark` a photo that cannot be read.
    """

    strategy: str | None = None
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    on_error: str = "fail"

    @property
    def fp32_only(self) -> bool:
        """Whether precisions below fp32 are left out."""
        return self.precision == "fp32"

    def check(self) -> None:
        """Rejects what can be seen to be wrong without torch.

        Raises:
            OrchestratorError: all that is wrong, together.
        """
        mistakes = Mistakes()
        for option, value, allowed in (
            ("--on-error", self.on_error, ON_ERROR),
            ("--precision", self.precision, PRECISIONS),
        ):
            with mistakes.collect():
                check_choice(option, value, allowed)
        with mistakes.collect():
            if self.strategy is not None:
                Strategy.parse(self.strategy)
        with mistakes.collect():
            check_device(self.device)
        with mistakes.collect():
            check_engine(self.engine, self.device)
        mistakes.raise_if_any()


def needs_trial(engine: str, device: str, photos: int | None) -> bool:
    """Whether an engine is opened and compared with torch before the members are put on it; otherwise they stay on torch.

    Args:
        engine: `auto` or an engine.
        device: the resolved device; on a GPU torch alone runs.
        photos: number of photos to come; None: unknown, as in a service.
    """
    if device != "cpu" or engine == "torch":
        return False
    return engine != "auto" or photos is None or photos > FEW_PHOTOS


def is_installed(engine: str) -> bool:
    """Whether the packages that an engine needs are here."""
    return not missing_of(PACKAGES[engine])


def check_engine(name: str, device: str) -> None:
    """Refuses an engine that is unknown, not installed, or not for the device.

    Args:
        name: `auto` or an engine.
        device: the requested device, or the resolved one.

    Raises:
        ConfigError: the engine cannot be used here; the message has the way out.
    """
    check_choice("--engine", name, ("auto", *ENGINES))
    if name in ("auto", "torch"):
        return
    if device not in ("cpu", "auto"):
        raise ConfigError(
            f"--engine {name} runs on the CPU here, and --device is {device}. Use --device cpu, or torch."
        )
    require(f"--engine {name}", "engines", PACKAGES[name], "use --engine torch")


def check_export_folder(folder: Path) -> None:
    """Refuses to export among other files.

    Raises:
        ConfigError: the folder holds something, and no export.
    """
    ours = _has_export_card(folder) or (folder / UNFINISHED_EXPORT / UNFINISHED_MARK).is_file()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ConfigError(f"--out {folder}: holds files that no export has made. Choose a new or empty folder.")


def _has_export_card(folder: Path) -> bool:
    """Whether a folder's card is an export's; other programs call files so too."""
    try:
        card = json.loads((folder / EXPORT_CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and {"format", "ensemble", "members", "programs", "digest"} <= card.keys()


def check_threshold(threshold: float) -> None:
    """Refuses a threshold of pseudo-labels outside 0.5 up to, not including, 1.

    Raises:
        ConfigError: the threshold is outside that range.
    """
    if not 0.5 <= threshold < 1:
        raise ConfigError(f"--threshold {threshold}; allowed: 0.5 up to, not including, 1.")


def check_rate(rate: float, photos: int | None = None) -> None:
    """Rejects a rate of changed labels that is out of range, or too small for so few photos.

    Args:
        rate: share of labels that may change, 0..1.
        photos: number of photos to measure on; None where it is not known yet.

    Raises:
        ConfigError: the rate is out of range, or too small; the message gives values that would work.
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

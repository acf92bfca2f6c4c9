"""The files that an interrupted training resumes from: the checkpoint, and the best epoch so far.

Both are safetensors files, written atomically; nothing is ever unpickled. Both carry the identity of their member and a
digest of their contents, so that damage, or a file of another run, is detected.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.artifacts.weights import save_tensors
from orchestrator.core.errors import first_line
from orchestrator.core.sealed import after_setting_aside, damaged_error
from orchestrator.networks.tensors import unshared

__all__ = [
    "best_tensors", "load_best", "load_checkpoint", "save_best", "save_checkpoint",
]  # fmt: skip


STARTS_OVER = "run the same command again: this fold then starts over."


def _save_sealed(path: Path, identity: str, tensors: Mapping[str, Tensor], note: Any) -> None:
    """Writes tensors and a JSON note, with the member's identity and a digest of everything."""
    flat = unshared(tensors)
    text = json.dumps(note, allow_nan=False)
    save_tensors(path, flat, {"note": text, "identity": identity, "digest": _digest(identity, text, flat)})


def _load_sealed(path: Path, identity: str, way_out: str) -> tuple[dict[str, Tensor], Any]:
    """The tensors and the note that `_save_sealed` wrote for this member.

    Raises:
        DamagedError: the file is missing, damaged, or another member's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)
    except FileNotFoundError:
        raise damaged_error(path, "missing", way_out) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged_error(path, f"damaged ({first_line(error)})", way_out) from None
    if notes.get("digest") != _digest(notes.get("identity", ""), notes.get("note", ""), tensors):
        raise damaged_error(path, "its contents do not match the digest in it: it was damaged", way_out)
    if notes["identity"] != identity:
        raise damaged_error(path, "of another run or fold, or of other settings", way_out)
    return tensors, json.loads(notes["note"])


def _digest(identity: str, note: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, types, shapes and bytes."""
    digest = hashlib.sha256(f"{identity}\n{note}\n".encode())
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    identity: str,
    model: nn.Module,
    optimiser: Optimizer,
    counters: Mapping[str, Any],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes everything that the next epoch depends on.

    Random states are not stored: each epoch seeds its own draws from the run's seed and the epoch's number.

    Args:
        path: the file.
        identity: identity of the member.
        model: network in training.
        optimiser: optimiser of the network.
        counters: progress, as JSON values.
        average: moving average of the weights, if there is one.
    """
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average/{key}": value for key, value in (average or {}).items()}
    state = optimiser.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, entry in state["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{index}/{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    groups = []
    for number, group in enumerate(state["param_groups"]):  # lamb counts its steps in a tensor of the group
        groups.append({key: value for key, value in group.items() if not isinstance(value, Tensor)})
        tensors |= {f"group/{number}/{key}": value for key, value in group.items() if isinstance(value, Tensor)}
    _save_sealed(path, identity, tensors, {"counters": dict(counters), "groups": groups, "numbers": numbers})


def load_checkpoint(
    path: Path, identity: str, model: nn.Module, optimiser: Optimizer, average: nn.Module | None = None
) -> dict[str, Any] | None:
    """Restores a checkpoint in place, as `save_checkpoint` wrote it.

    Returns:
        The counters, or None if there is no checkpoint.

    Raises:
        DamagedError: the checkpoint is damaged, or another member's.
    """
    if not os.path.lexists(path):
        return None
    tensors, note = _load_sealed(path, identity, after_setting_aside(path, STARTS_OVER))
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in note["numbers"].items()}
    for key, tensor in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/", 2)
            state.setdefault(int(index), {})[name] = tensor
        elif key.startswith("group/"):
            _, index, name = key.split("/", 2)
            note["groups"][int(index)][name] = tensor
    for prefix, module in (("model/", model), ("average/", average)):
        if module is not None:
            of_module = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            module.load_state_dict(of_module)
    optimiser.load_state_dict({"state": state, "param_groups": note["groups"]})
    # Files do not store the memory format, on which sums depend (lamb's norms).
    for parameter, entry in optimiser.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return dict(note["counters"])


def save_best(path: Path, identity: str, tensors: Mapping[str, Tensor]) -> None:
    """Writes the tensors of the best epoch, as `best_tensors` gives them."""
    _save_sealed(path, identity, tensors, None)


def load_best(path: Path, identity: str, checkpoint: Path) -> tuple[dict[str, Tensor], Tensor | None]:
    """The best epoch's weights, and its held-out probabilities where there are any.

    Raises:
        DamagedError: the file is missing, damaged or another member's; the fold can only start over without its checkpoint.
    """
    tensors, _ = _load_sealed(path, identity, after_setting_aside(checkpoint, STARTS_OVER))
    return tensors, tensors.pop("held_out", None)


def best_tensors(model: nn.Module, probabilities: torch.Tensor | None) -> dict[str, Tensor]:
    """The network's weights and its held-out probabilities, if any, as tensors for `save_best`."""
    return {**model.state_dict(), **({} if probabilities is None else {"held_out": probabilities})}

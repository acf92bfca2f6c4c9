"""The files of one member, and the checkpoint that an interrupted training goes on from.

A member's folder:

    weights.safetensors     the best epoch's weights
    held_out.parquet        probabilities of every photo of the held-out people (none without a plan)
    history.json            one entry per epoch, as it happens
    member.json             the card, written last: a folder with a card is complete
    checkpoint.safetensors  while training: network, optimiser and counters after the last whole epoch
    best.safetensors        while training: the best epoch's weights and held-out probabilities
    progress.json           while training: for displays only

All are written atomically and all are safetensors, JSON or parquet: nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.data.files import atomic, check_format, read_json, sha256_of
from orchestrator.errors import WeightsError, WorkspaceError

__all__ = [
    "BEST", "CARD", "CARD_FORMAT", "CHECKPOINT", "HELD_OUT", "HISTORY", "LOCK", "PROGRESS", "WEIGHTS",
    "best_tensors", "load_best", "load_checkpoint", "load_weights", "read_card", "save_checkpoint", "save_tensors",
]  # fmt: skip

CARD_FORMAT = 1
WEIGHTS = "weights.safetensors"
HELD_OUT = "held_out.parquet"
HISTORY = "history.json"
CARD = "member.json"
CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
PROGRESS = "progress.json"
LOCK = "member.lock"


def read_card(folder: Path) -> dict[str, Any]:
    """A member's card.

    Raises:
        WorkspaceError: missing, damaged, or written by a newer version.
    """
    path = folder / CARD
    if not path.is_file():
        raise WorkspaceError(
            f"{path}: missing: this member is not complete. Run the training command again to finish it."
        )
    card: dict[str, Any] = read_json(path)
    check_format(path, card, CARD_FORMAT)
    return card


def save_tensors(path: Path, tensors: Mapping[str, Tensor], note: Any = None) -> None:
    """Writes tensors and a JSON note atomically."""
    flat = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(flat, temporary, {"note": json.dumps(note)})


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: Optimizer,
    counters: Mapping[str, Any],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes everything that the next epoch depends on.

    Random states are not among it: each epoch seeds its own draws from the run's seed and the epoch's number.

    Args:
        path: the file.
        model: what learns.
        optimiser: its optimiser.
        counters: JSON.
        average: the moving average of the weights, where there is one.
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
    save_tensors(path, tensors, {"counters": dict(counters), "groups": groups, "numbers": numbers})


def load_checkpoint(
    path: Path, model: nn.Module, optimiser: Optimizer, average: nn.Module | None = None
) -> dict[str, Any] | None:
    """Restores a checkpoint in place, as `save_checkpoint` wrote it.

    Returns:
        The counters, or None when there is no checkpoint.

    Raises:
        WorkspaceError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["note"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dict)
    except (SafetensorError, OSError) as error:
        raise WorkspaceError(f"{path}: damaged ({error}). Delete the file: this fold then starts over.") from None
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
            own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            module.load_state_dict(own)
    optimiser.load_state_dict({"state": state, "param_groups": note["groups"]})
    for (
        parameter,
        entry,
    ) in optimiser.state.items():  # files know no memory format, and sums depend on it (lamb's norms)
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return dict(note["counters"])


def load_weights(path: Path, model: nn.Module, sha256: str = "", adopt: bool = False) -> None:
    """Loads a member's weights, checked against their hash.

    Args:
        path: a safetensors file.
        model: the network; every tensor must fit.
        sha256: what the card says; empty skips the check.
        adopt: put the file's tensors in the place of the network's, instead of copying into them.

    Raises:
        WorkspaceError: the file is missing or not the one that was written.
        WeightsError: the tensors do not fit the network.
    """
    if not path.is_file():
        raise WorkspaceError(f"{path}: the member's weights are missing. Restore the file, or retrain that fold.")
    if sha256 and sha256_of(path) != sha256:
        raise WorkspaceError(
            f"{path}: wrong sha256: {sha256_of(path)[:12]}..., the card says {sha256[:12]}.... The file was changed or "
            "damaged after training. Restore it, or retrain that fold."
        )
    try:
        model.load_state_dict(load_file(path), assign=adopt)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: the weights do not fit the network that the card names ({reason}).") from None


def load_best(path: Path) -> tuple[dict[str, Tensor], Tensor | None, int]:
    """The best epoch's weights, its held-out probabilities where there are any, and its number."""
    with safe_open(path, framework="pt") as file:
        epoch = int(json.loads(file.metadata()["note"]))
    tensors = load_file(path)
    probabilities = tensors.pop("held_out", None)
    return tensors, probabilities, epoch


def best_tensors(model: nn.Module, probabilities: torch.Tensor | None) -> dict[str, Tensor]:
    """What `load_best` reads."""
    return {**model.state_dict(), **({} if probabilities is None else {"held_out": probabilities})}

"""Reads weight files written by other programs: a plain state dict, or one nested in a trainer's checkpoint.

A file may hold nested dictionaries (`state_dict`, `model_ema` and the like), and names may have a prefix (`module.`,
`model.backbone.` ...). The network that is used is not guessed from key names: it is the one whose tensor names fit the
backbone's best. No file is opened in a way that could run code.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from orchestrator.core.errors import WeightsError, first_line
from orchestrator.recipes.schema import check_weights

__all__ = ["read_weights"]

PREFERRED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "params_ema",
    "state_dict",
    "model",
    "model_state_dict",
)
"""Order of preference among networks that fit equally well: averaged weights first, as in timm."""

_ARRAYS = importlib.import_module("numpy._core.multiarray")
TORCH_BEGINS = (b"PK", b"\x80")
"""What torch's files begin with: a zip archive, and before torch 1.6 a pickle."""

HARMLESS: list[Any] = [
    argparse.Namespace, np.dtype, np.ndarray, *[type(np.dtype(kind)) for kind in "?bhilqBHILQefd"],
    *[
        (getattr(_ARRAYS, name), f"numpy.{core}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ],
]  # fmt: skip
"""Types that trainers store with weights (settings, the best score) and that are safe to unpickle."""

DEPTH = 4  # dictionaries in dictionaries


def read_weights(path: Path, expected: Collection[str]) -> dict[str, Tensor]:
    """The network in a file, under a backbone's names as far as they fit.

    Args:
        path: safetensors or torch file.
        expected: tensor names of the backbone, without the head's.

    Raises:
        WeightsError: no such file, an unreadable one, or several networks that fit equally well.
    """
    candidates = list(_networks(_opened(path), ()))
    if not candidates:
        raise WeightsError(f"weights = '{path}': no state dict (name -> tensor) in it.")
    rated = [
        (sum(prefix + key in state for key in expected), keys, prefix, state)
        for keys, state in candidates
        for prefix in _prefixes(state, expected)
    ]
    best = max(fitting for fitting, *_ in rated)
    if 2 * best < len(expected):  # weights of another model: the caller's error describes the largest network
        largest = max((state for _, state in candidates), key=len)
        start = _common(list(largest))
        return {key.removeprefix(start): value for key, value in largest.items()}
    fits = [(keys, prefix, state) for fitting, keys, prefix, state in rated if fitting == best]
    chosen = min(fits, key=lambda fit: _rank(fit[0]))
    rivals = [
        fit
        for fit in fits
        if fit is not chosen and _rank(fit[0]) == _rank(chosen[0]) and not _same(fit, chosen, expected)
    ]
    if rivals:
        names = ", ".join(f"'{'.'.join([*keys, prefix])}'" for keys, prefix, _ in [chosen, *rivals])
        raise WeightsError(
            f"weights = '{path}': holds several networks that fit ({names}). Save only the one that you mean."
        )
    _, prefix, state = chosen
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _common(names: list[str]) -> str:
    """The prefix, up to a dot, that all names share."""
    parts = [name.split(".")[:-1] for name in names]
    alike = [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))]
    return "".join(f"{part}." for part in alike)


def _rank(keys: tuple[str, ...]) -> int:
    return min((PREFERRED.index(name) for name in keys if name in PREFERRED), default=len(PREFERRED))


def _same(
    first: tuple[Any, str, Mapping[str, Tensor]],
    second: tuple[Any, str, Mapping[str, Tensor]],
    expected: Collection[str],
) -> bool:
    """Whether two networks hold the same numbers: some wrappers keep one network under two names."""
    (_, first_prefix, first_state), (_, second_prefix, second_state) = first, second
    return all(
        torch.equal(first_state[first_prefix + key], second_state[second_prefix + key])
        for key in expected
        if first_prefix + key in first_state and second_prefix + key in second_state
    )


def _networks(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dictionary of tensors in a file's content, after the keys that lead to it."""
    if not isinstance(value, Mapping) or len(keys) > DEPTH:
        return
    tensors = {str(key): tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
    if tensors:
        yield keys, tensors
    for key, item in value.items():
        yield from _networks(item, (*keys, str(key)))


def _prefixes(state: Mapping[str, Tensor], expected: Collection[str]) -> set[str]:
    """Prefixes that a backbone's names may have in a file: the rest of each name that ends with one of them."""
    prefixes = {""}
    for probe in list(expected)[:3]:  # the first few names are in every network of this architecture
        prefixes |= {key.removesuffix(probe) for key in state if key.endswith(f".{probe}")}
    return prefixes


def _opened(path: Path) -> Any:
    """A file's content, by what it is and not by its name."""
    check_weights(str(path))
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if not start:
            raise WeightsError(f"weights = '{path}': is empty.")
        if path.suffix != ".safetensors" and start[8:9] != b"{" and not start.startswith(TORCH_BEGINS):
            raise WeightsError(f"weights = '{path}': is not a file of weights, neither torch's nor safetensors.")
        if path.suffix == ".safetensors" or start[8:9] == b"{":  # after eight bytes of length a header in JSON
            return load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch refuses anything but tensors
        match = re.search(r"GLOBAL (\S+)", str(error))
        fault = f"holds {match[1]}, which is more than tensors" if match else "holds more than tensors"
        raise WeightsError(
            f"weights = '{path}': {fault}, and files that could run code are not opened. If you trust it, save its "
            "state_dict() alone, or as safetensors."
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {first_line(error)}"
        if "TorchScript" in str(error):
            fault = "it is a program in TorchScript; save its state_dict() instead"
        raise WeightsError(f"weights = '{path}': cannot be read ({fault}).") from None

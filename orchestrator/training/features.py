"""Features of a frozen backbone: every photo goes through the network once, for all folds and all tasks that share it.

A head on such features learns in seconds. They depend on the photos, the geometry, the backbone and its initial weights, and lie
in the workspace's cache under a digest of these.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.core.errors import ConfigError, DamagedError, WeightsError, quantity
from orchestrator.core.files import atomic, digest_of, remove_own_file, require_free_space, sha256_of
from orchestrator.core.sealed import check_file, read_sealed, write_sealed
from orchestrator.data.preprocessing import Preprocess
from orchestrator.data.store import PixelSource
from orchestrator.networks.backbones import InitialWeights, create, heads_of
from orchestrator.networks.devices import keep_freed_memory
from orchestrator.recipes.schema import Recipe

__all__ = ["Features", "body", "build_features", "check_head_alone"]

log = logging.getLogger(__name__)

FEATURES_FORMAT, KIND = 2, "features"
CALL = 32  # photos per call; each call uses one core, as in prediction


class Features:
    """Memory-mapped features, opened for reading; takes the place of pixels.

    Args:
        path: an .npy file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: NDArray[np.float32] | None = None

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The features of some rows, shape (n, F), float32; opened at first use, so it travels between processes."""
        if self._values is None:
            self._values = np.load(self.path, mmap_mode="r")
        return np.asarray(self._values[rows])

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_values": None}


def body(model: Any, inputs: Tensor) -> Tensor:
    """The input of a timm network's classifier, shape (N, F)."""
    features: Tensor = model.forward_head(model.forward_features(inputs), pre_logits=True)
    return features


def check_head_alone(recipe: Recipe) -> None:
    """Refuses a backbone whose answers are not one classifier on its features.

    Raises:
        ConfigError: there are several classifiers, or the answers are not those of the one; names the way out.
    """
    model = create(recipe.backbone, 2, recipe).eval()
    inputs = torch.zeros(1, 3, recipe.height, recipe.width)
    heads = heads_of(model)
    with torch.inference_mode():
        fits = (
            len(heads) == 1
            and isinstance(heads[0], nn.Linear)
            and torch.allclose(heads[0](body(model, inputs)), model(inputs))
        )
    if not fits:
        raise ConfigError(
            f"train = head: the answers of '{recipe.backbone}' are not one classifier on its features. Use train = network, or "
            "another backbone."
        )


def build_features(
    folder: Path,
    recipe: Recipe,
    initial: InitialWeights,
    preprocess: Preprocess,
    pixels: PixelSource,
    content: str,
    photos: int,
    device: str,
    threads: int,
    progress: Callable[[int, int], None],
) -> Features:
    """Opens the features of all photos, computing them if they are missing or damaged.

    Args:
        folder: folder in the workspace's cache.
        recipe: recipe with the backbone.
        initial: initial weights of the backbone.
        preprocess: conversion from pixels to the backbone's input.
        pixels: source of the photos' pixels, at the recipe's geometry.
        content: digest of the photos.
        photos: number of photos, N.
        device: device to compute on.
        threads: number of concurrent calls on a CPU.
        progress: callback that takes (photos done, photos in all).

    Raises:
        StoreError: the disk has no room.
        WeightsError: features are infinite or NaN.
    """
    key = digest_of(
        [
            recipe.backbone,
            recipe.pooling,
            initial.sha256,
            preprocess.as_dict(),
            content,
            torch.__version__,
            device.split(":")[0],
        ]
    )
    path = folder / f"{key[:20]}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "features.lock"):
        if not _is_intact(path):
            values = _compute(recipe, initial, preprocess, pixels, photos, device, threads, progress)
            require_free_space(
                folder,
                values.nbytes,
                f"the features of {photos:,} photos",
                "Free some room, or use another --workspace.",
            )
            with atomic(path) as temporary, temporary.open("wb") as file:
                np.save(file, values)
            write_sealed(path.with_suffix(".json"), KIND, path.stem, FEATURES_FORMAT, {"sha256": sha256_of(path)})
    return Features(path)


def _is_intact(path: Path) -> bool:
    """Whether features exist as they were written; damaged ones are removed, since they can be computed again."""
    note = path.with_suffix(".json")
    if not os.path.lexists(path) and not os.path.lexists(note):
        return False
    try:
        check_file(path, read_sealed(note, KIND, path.stem, FEATURES_FORMAT, "")["sha256"], "")
    except DamagedError as error:
        log.warning(f"{error.fact}: computed again.")
        remove_own_file(path)
        remove_own_file(note)
        return False
    return True


def _compute(
    recipe: Recipe,
    initial: InitialWeights,
    preprocess: Preprocess,
    pixels: PixelSource,
    photos: int,
    device: str,
    threads: int,
    progress: Callable[[int, int], None],
) -> NDArray[np.float32]:
    keep_freed_memory()
    torch.manual_seed(0)  # random weights, where none are given, are the same for every task
    model = create(recipe.backbone, 2, recipe, initial).to(device).eval()

    def features(start: int) -> NDArray[np.float32]:
        rows = np.arange(start, min(start + CALL, photos))
        with torch.inference_mode():
            inputs = preprocess.normalise(torch.from_numpy(pixels.take(rows)).to(device))
            return np.asarray(body(model, inputs).float().cpu().numpy())

    parts: list[NDArray[np.float32]] = []
    on_cpu = device == "cpu"
    # OpenMP counts threads for each calling thread, so this does not touch the caller's own setting.
    with ThreadPoolExecutor(threads if on_cpu else 1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for part in pool.map(features, range(0, photos, CALL)):
            parts.append(part)
            progress(min(len(parts) * CALL, photos), photos)
    values = np.concatenate(parts)
    wrong = int((~np.isfinite(values).all(axis=1)).sum())
    if wrong:
        raise WeightsError(
            f"the features of '{recipe.backbone}' are infinite or NaN for {wrong:,} of {quantity(photos, 'photo')}: its "
            f"weights ({recipe.weights}) do not work on them. Use other weights, or another backbone."
        )
    return values

"""Face detection: MTCNN's three networks in torch, with the weights that ship in the package `mtcnn` (extra `face`).

The package's own code needs TensorFlow; only its three weight files are read, after a check of their hashes. The
search itself is in finding.py. On a CPU with one thread the same photo gives the same box, in training and in serving.
"""

from __future__ import annotations

import threading
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.core.commands import reinstall_hint
from orchestrator.core.errors import ConfigError
from orchestrator.core.extras import folder_of, import_optional
from orchestrator.core.files import sha256_of
from orchestrator.data.preprocessing import DETECTOR, Box, Pixels
from orchestrator.faces.finding import find_face

__all__ = ["Detector", "detector"]

WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""sha256 of each network's file in mtcnn 1.0.0."""

CROP = "a crop around faces"
"""What needs the extra; what to do without it depends on the command."""


class ProposalNet(nn.Module):
    """First look: how likely each 12 x 12 window of a photo of any size is a face, in steps of 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.PReLU(10), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3), nn.PReLU(16), nn.Conv2d(16, 32, 3), nn.PReLU(32),
        )  # fmt: skip
        self.offsets, self.scores = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)

    def forward(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (1, 4, h, w) and probabilities (1, h, w) of windows."""
        features = self.features(photo)
        return self.offsets(features), self.scores(features).softmax(1)[:, 1]


class RefineNet(nn.Module):
    """Second look, at windows of 24 x 24."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 28, 3), nn.PReLU(28), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3), nn.PReLU(48), nn.MaxPool2d(3, 2), nn.Conv2d(48, 64, 2), nn.PReLU(64),
        )  # fmt: skip
        self.dense = nn.Sequential(nn.Linear(576, 128), nn.PReLU(128))
        self.offsets, self.scores = nn.Linear(128, 4), nn.Linear(128, 2)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (n, 4) and probabilities (n,) of windows (n, 3, 24, 24)."""
        features = self.dense(_flat(self.features(windows)))
        return self.offsets(features), self.scores(features).softmax(1)[:, 1]


class OutputNet(nn.Module):
    """Last look, at windows of 48 x 48."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3), nn.PReLU(32), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3), nn.PReLU(64), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 64, 3), nn.PReLU(64), nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(64, 128, 2), nn.PReLU(128),
        )  # fmt: skip
        self.dense = nn.Sequential(nn.Linear(1152, 256), nn.PReLU(256))
        self.offsets, self.landmarks, self.scores = nn.Linear(256, 4), nn.Linear(256, 10), nn.Linear(256, 2)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (n, 4) and probabilities (n,) of windows (n, 3, 48, 48)."""
        features = self.dense(_flat(self.features(windows)))
        return self.offsets(features), self.scores(features).softmax(1)[:, 1]


def _flat(features: Tensor) -> Tensor:
    """Features flattened column by column, the order that the published weights expect."""
    return features.permute(0, 3, 2, 1).flatten(1)


class Detector:
    """The three networks, `nets`, with their weights.

    Args:
        folder: the folder of the weights; None: that of the installed package.

    Raises:
        ConfigError: the package `mtcnn` is not installed, or its weights are not those that this code was written for.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or _folder()
        self.nets: list[nn.Module] = []
        for name, net in (("pnet", ProposalNet()), ("rnet", RefineNet()), ("onet", OutputNet())):
            _load(net, folder / f"{name}.lz4", WEIGHTS[name])
            self.nets.append(net.eval().requires_grad_(False))

    def find(self, photo: Pixels) -> Box | None:
        """The largest face of a photo (H, W, 3), uint8, RGB, or None: top, left, height, width, as `find_face` gives them."""
        with torch.inference_mode():
            return find_face(photo, [partial(_answer, net) for net in self.nets])


def _answer(net: nn.Module, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    offsets, scores = net(torch.from_numpy(inputs))
    return offsets.numpy(), scores.numpy()


@lru_cache(maxsize=1)
def _shared() -> Detector:
    return Detector()


_LOADING = threading.Lock()


def detector() -> Detector:
    """This process's detector, loaded at first use.

    Raises:
        ConfigError: the package `mtcnn` is not installed, or its weights are not those that this code was written for.
    """
    with _LOADING:
        return _shared()


def _folder() -> Path:
    """The folder of the package's weights; the package itself, which needs TensorFlow, is never imported."""
    return folder_of("mtcnn", CROP, "face") / "assets" / "weights"


def _load(net: nn.Module, path: Path, expected: str) -> None:
    """Loads a file of Keras arrays into the layers, in order."""
    if not path.is_file() or sha256_of(path) != expected:  # before it is read: these files are pickles
        raise ConfigError(
            f"{path}: not the weights of {DETECTOR.rsplit('-', 1)[0]}; boxes would differ from those that members were trained "
            f"with. Reinstall it: `{reinstall_hint('mtcnn')}`."
        )
    lz4 = import_optional("lz4.frame", CROP, "face")
    # Decompressed here: joblib would leave a file open, and Python 3.13 would warn about it at each start.
    arrays: list[Any] = joblib.load(BytesIO(lz4.decompress(path.read_bytes())))
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear, nn.PReLU))]
    values = iter(arrays)
    for layer in layers:
        weight = torch.from_numpy(np.ascontiguousarray(next(values), np.float32))
        if isinstance(layer, nn.Conv2d):
            weight = weight.permute(3, 2, 0, 1)
        elif isinstance(layer, nn.Linear):
            weight = weight.T
        layer.weight = nn.Parameter(weight.reshape(layer.weight.shape).contiguous())
        if not isinstance(layer, nn.PReLU):
            layer.bias = nn.Parameter(torch.from_numpy(np.ascontiguousarray(next(values), np.float32)))

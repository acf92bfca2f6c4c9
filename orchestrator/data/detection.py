"""Where the face is: MTCNN in torch, with the weights that ship in the package `mtcnn` (extra `face`).

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks", 2016. The
package's own code needs TensorFlow; only its three weight files are read, after their hashes were checked.

Portraits need one face, a large one: photos are shrunk first, and of the faces found the largest is taken. On a CPU with
one thread the same photo gives the same box, in training and in serving.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import nms

from orchestrator.data.files import sha256_of
from orchestrator.data.preprocessing import DETECTOR, Box, Pixels
from orchestrator.errors import ConfigError

__all__ = ["Detector", "detector"]

WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
"""sha256 of each network's file in mtcnn 1.0.0."""

SIDE = 240  # pixels that a photo's shorter side is shrunk to; never enlarged
SMALLEST = 36  # pixels of the smallest face looked for after that: 15 % of the shorter side
STEP = 0.709  # between sizes looked for: the paper's, half the area
PAPER, LENIENT = (0.6, 0.7, 0.7), (0.5, 0.5, 0.3)  # probabilities that a window of each network must reach
LOOKS = (
    (1.0, False, PAPER),
    (1.0, True, PAPER),
    (0.8, False, PAPER),
    (0.8, True, PAPER),
    (1.0, False, LENIENT),
    (1.0, True, LENIENT),
)
"""Shrunk by, mirrored, thresholds: the next is tried when one finds nothing. Of 540 real portraits, 450 of them with drawn masks,
the first finds 507, the four of the paper's thresholds 525, all six 534; the last two see a face in 3 of 183 pictures without."""

Windows = NDArray[np.float32]


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
    """Columns first: the order that the published weights were trained with."""
    return features.permute(0, 3, 2, 1).flatten(1)


class Detector:
    """The three networks, with their weights.

    Raises:
        ConfigError: the package `mtcnn` is not installed, or its weights are not those that this was written for.
    """

    def __init__(self) -> None:
        folder = _folder()
        self._nets: list[nn.Module] = []
        for name, net in (("pnet", ProposalNet()), ("rnet", RefineNet()), ("onet", OutputNet())):
            _load(net, folder / f"{name}.lz4", WEIGHTS[name])
            self._nets.append(net.eval().requires_grad_(False))

    def find(self, photo: Pixels) -> Box | None:
        """The largest face of a photo, or None.

        Args:
            photo: shape (H, W, 3), uint8, RGB.

        Returns:
            top, left, height, width in the photo's pixels, from forehead to chin; a face at the edge may reach beyond it.
            Of a face with a mask the box ends about a tenth of its height above the chin.
        """
        for shrink, mirrored, sure in LOOKS:
            factor = shrink * min(1.0, SIDE / min(photo.shape[:2]))
            small = _resized(photo, max(1, round(photo.shape[0] * factor)), max(1, round(photo.shape[1] * factor)))
            level = small[:, ::-1] if mirrored else small
            boxes = self._faces(np.asarray((level.astype(np.float32) - 127.5) / 128, np.float32), sure)
            if len(boxes):
                sides = boxes[:, 2:] - boxes[:, :2]
                left, top, right, bottom = boxes[int((sides[:, 0] * sides[:, 1]).argmax())].tolist()
                if mirrored:
                    left, right = small.shape[1] - right, small.shape[1] - left
                left, top, right, bottom = (round(value / factor) for value in (left, top, right, bottom))
                return top, left, max(1, bottom - top), max(1, right - left)
        return None

    def _faces(self, pixels: NDArray[np.float32], sure: tuple[float, float, float]) -> Windows:
        """All faces, (n, 4): left, top, right, bottom."""
        with torch.inference_mode():
            boxes = self._proposals(pixels, sure[0])
            for net, size, least in ((self._nets[1], 24, sure[1]), (self._nets[2], 48, sure[2])):
                if not len(boxes):
                    break
                square = _square(boxes).round()
                windows = torch.from_numpy(np.stack([_window(pixels, box, size) for box in square]))
                offsets, scores = (answer.numpy() for answer in net(windows.permute(0, 3, 1, 2)))
                moved = square + offsets * np.tile(square[:, 2:] - square[:, :2], 2)
                kept = scores >= least
                boxes = moved[kept][_order(moved[kept], scores[kept], 0.7)]
        return boxes

    def _proposals(self, pixels: NDArray[np.float32], least: float) -> Windows:
        """Windows (n, 4) that may be faces: left, top, right, bottom."""
        found, sure = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        scale = 12 / SMALLEST
        while min(pixels.shape[:2]) * scale >= 12:
            height, width = round(pixels.shape[0] * scale), round(pixels.shape[1] * scale)
            level = torch.from_numpy(_resized(pixels, height, width)).permute(2, 0, 1)[None]
            offsets, scores = (answer[0].numpy() for answer in self._nets[0](level))
            rows, columns = np.nonzero(scores >= least)
            corner = np.stack([columns * 2, rows * 2, columns * 2 + 12, rows * 2 + 12], axis=1).astype(np.float32)
            boxes = (corner + 12 * offsets[:, rows, columns].T) / scale
            best = _order(boxes, scores[rows, columns], 0.5)
            found.append(boxes[best])
            sure.append(scores[rows, columns][best])
            scale *= STEP
        boxes = np.concatenate(found)
        return boxes[_order(boxes, np.concatenate(sure), 0.7)]


@lru_cache(maxsize=1)
def _shared() -> Detector:
    return Detector()


_LOADING = threading.Lock()


def detector() -> Detector:
    """This process's detector, loaded at first use.

    Raises:
        ConfigError: the package `mtcnn` is not installed, or its weights are not those that this was written for.
    """
    with _LOADING:
        return _shared()


def _folder() -> Path:
    """Where the package's weights lie; the package itself, which wants TensorFlow, is never imported."""
    spec = find_spec("mtcnn")
    if spec is None or find_spec("lz4") is None or not spec.submodule_search_locations:
        raise ConfigError(
            "face crops need a detector that is not installed: pip install 'orchestrator[face]', or train without them "
            "(--set face=0)."
        )
    return Path(spec.submodule_search_locations[0]) / "assets" / "weights"


def _load(net: nn.Module, path: Path, expected: str) -> None:
    """Keras's list of arrays, into the layers in their order."""
    if not path.is_file() or sha256_of(path) != expected:  # before it is read: these files are pickles
        raise ConfigError(
            f"{path}: not the weights of {DETECTOR.rsplit('-', 1)[0]}; boxes would differ from those that members were trained "
            "with. Install it anew: pip install --force-reinstall 'orchestrator[face]'."
        )
    arrays: list[Any] = joblib.load(path)
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


def _resized(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    shrink = height <= pixels.shape[0] and width <= pixels.shape[1]
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))


def _window(pixels: NDArray[np.float32], box: Windows, size: int) -> NDArray[np.float32]:
    """A window at a network's size; mid-grey beyond the photo."""
    left, top, right, bottom = (int(value) for value in box)
    window = np.zeros((max(1, bottom - top), max(1, right - left), 3), np.float32)
    part = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    row, column = max(0, -top), max(0, -left)
    window[row : row + part.shape[0], column : column + part.shape[1]] = part
    return np.asarray(_resized(window, size, size))


def _square(boxes: Windows) -> Windows:
    """The squares around boxes, with the same centres."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _order(boxes: Windows, sure: NDArray[np.float32], overlap: float) -> NDArray[np.int64]:
    """The boxes left when those that overlap a surer one are gone, surest first."""
    kept: NDArray[np.int64] = nms(torch.from_numpy(boxes), torch.from_numpy(sure), overlap).numpy()
    return kept

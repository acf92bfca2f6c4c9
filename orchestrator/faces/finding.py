"""How MTCNN finds a face with its three networks, using only NumPy and OpenCV: exports that need it include this file.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks", 2016: a first
network looks at every window of a shrunken photo at many sizes, a second and a third look again at what it proposes.

A portrait has one large face: photos are shrunk first, and the largest face found is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Net", "find_face"]

Net = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""From windows to (corner offsets as shares of the window's sides, probabilities). The first network takes a photo
(1, 3, h, w) and returns (1, 4, h', w') and (1, h', w') for its 12 x 12 windows in steps of 2; the others take windows
(n, 3, 24, 24) or (n, 3, 48, 48) and return (n, 4) and (n,)."""

Boxes = NDArray[np.float32]  # (n, 4): left, top, right, bottom

SIDE = 240  # pixels that a photo's shorter side is shrunk to; never enlarged
SMALLEST = 36  # pixels of the smallest face looked for after that: 15 % of the shorter side
STEP = 0.709  # scale factor between searched sizes, from the paper: half the area
PAPER, LENIENT = (0.6, 0.7, 0.7), (0.5, 0.5, 0.3)  # probabilities that a window of each network must reach
LOOKS = (
    (1.0, False, PAPER), (1.0, True, PAPER), (0.8, False, PAPER), (0.8, True, PAPER), (1.0, False, LENIENT), (1.0, True, LENIENT),
)  # fmt: skip
"""Attempts as (scale, mirrored, thresholds): the next one is made if one finds nothing. Of 540 real portraits, 450 of
them with drawn masks, the first finds 507, the four with the paper's thresholds 525, and all six 534; the last two
report a face in 3 of 183 pictures without one."""


def find_face(photo: NDArray[np.uint8], nets: Sequence[Net]) -> tuple[int, int, int, int] | None:
    """The largest face of a photo, or None.

    Args:
        photo: shape (H, W, 3), uint8, RGB.
        nets: the three networks.

    Returns:
        top, left, height, width in the photo's pixels, from forehead to chin; a face at the edge may extend beyond it.
        For a masked face the box ends about a tenth of its height above the chin.
    """
    for shrink, mirrored, thresholds in LOOKS:
        factor = shrink * min(1.0, SIDE / min(photo.shape[:2]))
        small = _resized(photo, max(1, round(photo.shape[0] * factor)), max(1, round(photo.shape[1] * factor)))
        level = small[:, ::-1] if mirrored else small
        boxes = _faces(np.asarray((level.astype(np.float32) - 127.5) / 128, np.float32), nets, thresholds)
        if len(boxes):
            sides = boxes[:, 2:] - boxes[:, :2]
            left, top, right, bottom = boxes[int((sides[:, 0] * sides[:, 1]).argmax())].tolist()
            if mirrored:
                left, right = small.shape[1] - right, small.shape[1] - left
            left, top, right, bottom = (round(value / factor) for value in (left, top, right, bottom))
            return top, left, max(1, bottom - top), max(1, right - left)
    return None


def _faces(pixels: NDArray[np.float32], nets: Sequence[Net], thresholds: tuple[float, float, float]) -> Boxes:
    boxes = _proposals(pixels, nets[0], thresholds[0])
    for net, size, least in ((nets[1], 24, thresholds[1]), (nets[2], 48, thresholds[2])):
        if not len(boxes):
            break
        square = _square(boxes).round()
        windows = np.stack([_window(pixels, box, size) for box in square])
        offsets, scores = net(np.ascontiguousarray(windows.transpose(0, 3, 1, 2)))
        moved = square + offsets * np.tile(square[:, 2:] - square[:, :2], 2)
        boxes = _apart(moved[scores >= least], scores[scores >= least], 0.7)[0]
    return boxes


def _proposals(pixels: NDArray[np.float32], net: Net, least: float) -> Boxes:
    """Windows that may be faces."""
    boxes_by_scale, scores_by_scale = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    scale = 12 / SMALLEST
    while min(pixels.shape[:2]) * scale >= 12:
        level = _resized(pixels, round(pixels.shape[0] * scale), round(pixels.shape[1] * scale))
        offsets, scores = (answer[0] for answer in net(np.ascontiguousarray(level.transpose(2, 0, 1)[None])))
        rows, columns = np.nonzero(scores >= least)
        corners = np.stack([columns * 2, rows * 2, columns * 2 + 12, rows * 2 + 12], axis=1).astype(np.float32)
        boxes = np.asarray((corners + 12 * offsets[:, rows, columns].T) / scale, np.float32)
        boxes, scores = _apart(boxes, scores[rows, columns], 0.5)
        boxes_by_scale.append(boxes)
        scores_by_scale.append(scores)
        scale *= STEP
    return _apart(np.concatenate(boxes_by_scale), np.concatenate(scores_by_scale), 0.7)[0]


def _resized(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    shrink = height <= pixels.shape[0] and width <= pixels.shape[1]
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))


def _window(pixels: NDArray[np.float32], box: Boxes, size: int) -> NDArray[np.float32]:
    """A window at a network's size; mid-grey beyond the photo."""
    left, top, right, bottom = (int(value) for value in box)
    window = np.zeros((max(1, bottom - top), max(1, right - left), 3), np.float32)
    part = pixels[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    row, column = max(0, -top), max(0, -left)
    window[row : row + part.shape[0], column : column + part.shape[1]] = part
    return _resized(window, size, size)


def _square(boxes: Boxes) -> Boxes:
    """The squares around boxes, with the same centres."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _apart(boxes: Boxes, scores: NDArray[np.float32], overlap: float) -> tuple[Boxes, NDArray[np.float32]]:
    """Non-maximum suppression: boxes and probabilities, highest first, minus those whose IoU with one is too large."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    order, chosen = np.argsort(-scores, kind="stable"), []
    while len(order):
        first, order = order[0], order[1:]
        chosen.append(first)
        low, high = np.maximum(boxes[first, :2], boxes[order, :2]), np.minimum(boxes[first, 2:], boxes[order, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        order = order[shared <= overlap * (area[first] + area[order] - shared)]
    return boxes[chosen], scores[chosen]

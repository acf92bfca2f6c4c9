"""What members of a run answer for photos whose pixels are ready: for other views, and for people who joined later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.cores import cores, one_thread
from orchestrator.inference.engines import Call, Features, torch_runners
from orchestrator.inference.member import Member, check_finite
from orchestrator.inference.runtime import CALL
from orchestrator.inference.shared_backbone import split

if TYPE_CHECKING:
    from orchestrator.data.store import PixelSource

__all__ = ["member_answers"]

GPU_CALL = 256  # photos per call on a GPU, whose time per call hardly depends on their number


def member_answers(
    members: Sequence[Member],
    pixels: PixelSource,
    rows: NDArray[np.int64],
    device: str,
    answered: Callable[[int], None] = lambda _photos: None,
) -> list[NDArray[np.float32]]:
    """The answers of members of one geometry for some photos, each decoded once; layers that members share run once.

    Args:
        members: loaded on the device.
        pixels: the photos at the members' geometry.
        rows: row numbers of n photos, at least one.
        device: `cpu`, `cuda` or `cuda:N`.
        answered: called with the number of photos that were answered since the last call.

    Returns:
        For each member, probabilities of shape (n, C), float32.

    Raises:
        PhotoError: a photo cannot be decoded.
        WorkspaceError: a member's answers are NaN or infinite.
    """
    runners = torch_runners(split(members), device)

    def answer(part: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        photos, shared = pixels.take(part), dict[Call, Features]()
        answers = []
        for runner in runners:
            features: Features = photos
            if runner.shared_backbone is not None:
                if runner.shared_backbone not in shared:
                    shared[runner.shared_backbone] = runner.begin(photos)
                features = shared[runner.shared_backbone]
            answers.append(runner.finish(features))
        return answers

    parts: list[list[NDArray[np.float32]]] = []
    size = CALL if device == "cpu" else GPU_CALL
    stretches = [rows[start : start + size] for start in range(0, len(rows), size)]
    with ThreadPoolExecutor(cores() if device == "cpu" else 1, initializer=one_thread) as pool:
        for stretch, answers in zip(stretches, pool.map(answer, stretches), strict=True):
            for member, of_member in zip(members, answers, strict=True):
                check_finite(member, of_member)
            parts.append(answers)
            answered(len(stretch))
    return [np.concatenate(of_member) for of_member in zip(*parts, strict=True)]

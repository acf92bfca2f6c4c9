"""From a photo to what networks see of it: decoded once, cropped and resized once per geometry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import ConfigError, PhotoError
from orchestrator.core.stages import UNTIMED, Stages
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.faces.detection import Detector
from orchestrator.inference.detector import detector_of
from orchestrator.inference.member import Member

__all__ = ["Photo", "Pixels", "Prepared", "ReadResult", "Reader", "Unreadable", "as_photo", "reader_of", "stacked"]

Photo = Path | bytes | NDArray[np.uint8]
"""A photo as it comes: a file, a file's bytes, or decoded pixels (H, W, 3), RGB, upright."""

Pixels = dict[Geometry, NDArray[np.uint8]]
"""Geometry -> the pixels of n photos, shape (n, height, width, 3)."""


@dataclass(frozen=True)
class Prepared:
    """One photo, ready for every member.

    Attributes:
        pixels: geometry -> (height, width, 3), uint8.
        face_found: whether a face was found to crop around; None where no member crops around faces.
    """

    pixels: Pixels
    face_found: bool | None = None


@dataclass(frozen=True)
class Unreadable:
    """Why a photo cannot be read.

    Attributes:
        reason: a sentence.
        kind: a stable word for machines: one of `KINDS` in data/decoding.py, or `wrong_pixels` for an array that is not a photo.
    """

    reason: str
    kind: str


ReadResult = Prepared | Unreadable
"""A photo that was read, or why it cannot be."""


def as_photo(photo: object, number: int) -> Photo:
    """A photo as the reader takes it.

    Args:
        photo: what a caller gave.
        number: its number among the photos given, for the message.

    Raises:
        ConfigError: something else.
    """
    if isinstance(photo, str | os.PathLike):
        return Path(photo)
    if isinstance(photo, bytes | bytearray | memoryview):
        return bytes(photo)
    if isinstance(photo, np.ndarray):
        return photo
    raise ConfigError(
        f"photo {number} is a {type(photo).__name__}; allowed: a path, a file's bytes, or an array of pixels."
    )


def stacked(photos: Sequence[Prepared]) -> Pixels:
    """The pixels of several photos, at least one, in their order."""
    return {geometry: np.stack([photo.pixels[geometry] for photo in photos]) for geometry in photos[0].pixels}


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads photos for some members; safe to call from several threads at once.

    Attributes:
        geometries: the members' geometries, each once.
        detector: face detector for members that crop around faces; None if none do.
    """

    geometries: tuple[Geometry, ...]
    detector: Detector | None = None

    def prepare(self, photo: NDArray[np.uint8], stages: Stages = UNTIMED) -> Prepared:
        """Decoded pixels (H, W, 3), RGB, at every geometry; the time is added to `stages`."""
        face = None
        if self.detector is not None:
            with stages("find faces"):
                face = self.detector.find(photo)
        with stages("crop and resize"):
            pixels = {geometry: geometry.apply(photo, face) for geometry in self.geometries}
        return Prepared(pixels, None if self.detector is None else face is not None)

    def read(self, photo: Photo, stages: Stages = UNTIMED) -> ReadResult:
        """A photo at every geometry, or why it cannot be read; the time is added to `stages`."""
        if isinstance(photo, np.ndarray):
            if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
                reason = f"pixels of shape {photo.shape}, {photo.dtype}; needed: (H, W, 3), uint8."
                return Unreadable(reason, "wrong_pixels")
            return self.prepare(photo, stages)
        try:
            with stages("decode"):
                pixels = decode(photo)
            return self.prepare(pixels, stages)
        except PhotoError as error:
            return Unreadable(f"{error.what}.", error.kind)


def reader_of(members: Sequence[Member]) -> Reader:
    """The reader for some members. OpenCV is limited to one thread in the whole process, because photos are read in parallel.

    Raises:
        ConfigError: members crop around faces, and the detector is not installed.
        WorkspaceError: members crop around the faces of another detector.
    """
    import cv2  # after torch: without address space torch raises an error, but OpenCV aborts the process

    cv2.setNumThreads(1)
    geometries = tuple(dict.fromkeys(member.preprocess.geometry for member in members))
    return Reader(geometries, detector_of(members))

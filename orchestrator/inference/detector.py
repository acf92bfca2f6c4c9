"""An ensemble's face detector, and its export: ONNX files of three networks and the program that runs them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.core.errors import EngineError, PhotoError, Problem, WorkspaceError
from orchestrator.core.extras import import_optional, require
from orchestrator.core.files import atomic
from orchestrator.data.preprocessing import DETECTOR, Box, decode
from orchestrator.faces import finding
from orchestrator.faces.detection import Detector, detector
from orchestrator.inference.export import CHECK_PHOTOS, quiet
from orchestrator.inference.member import Member

__all__ = ["detector_of", "write_detector"]

PROGRAM = "finding.py"


def write_detector(folder: Path, photos: Sequence[Path]) -> list[str]:
    """Writes the networks and the program, and checks that they find what orch finds.

    Args:
        folder: an existing folder.
        photos: photos to check on; the first readable ones are used.

    Returns:
        The networks' files, in the order of their use.

    Raises:
        EngineError: a face is found elsewhere, or only by one of the two.
    """
    size, count = torch.export.Dim, torch.export.Dim("n", min=1)
    examples = (
        (torch.zeros(1, 3, 50, 40), {2: size("h", min=12), 3: size("w", min=12)}),
        (torch.zeros(2, 3, 24, 24), {0: count}),
        (torch.zeros(2, 3, 48, 48), {0: count}),
    )
    names = []
    for number, (net, (windows, dynamic)) in enumerate(zip(detector().nets, examples, strict=True), start=1):
        with quiet():
            program: Any = torch.onnx.export(
                net, (windows,), dynamo=True, optimize=True, verbose=False, input_names=["windows"],
                output_names=["offsets", "scores"], dynamic_shapes=(dynamic,),
            )  # fmt: skip
        names.append(f"face-{number}.onnx")
        with atomic(folder / names[-1]) as temporary:
            temporary.write_bytes(program.model_proto.SerializeToString())
    with atomic(folder / PROGRAM) as temporary:
        shutil.copyfile(str(finding.__file__), temporary)
    _check([folder / name for name in names], photos)
    return names


def _check(files: Sequence[Path], photos: Sequence[Path]) -> None:
    onnxruntime = import_optional("onnxruntime", "the check of an exported detector", "engines")
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in files]
    nets: list[finding.Net] = [partial(_run, session) for session in sessions]
    problems: list[Problem] = []
    for path, photo in islice(_readable(photos), CHECK_PHOTOS):
        ours, exported = detector().find(photo), finding.find_face(photo, nets)
        if not _same(ours, exported):
            problems.append(Problem(str(path), f"orch finds {ours}, the export {exported}."))
    if problems:
        raise EngineError("the exported detector finds other faces than orch does.", problems)


def _readable(photos: Sequence[Path]) -> Iterator[tuple[Path, NDArray[np.uint8]]]:
    for path in photos:
        try:
            yield path, decode(path)
        except PhotoError:
            continue


def _run(session: Any, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    offsets, scores = session.run(None, {"windows": windows})
    return offsets, scores


def _same(first: Box | None, second: Box | None) -> bool:
    """Whether two boxes are equal up to one pixel of rounding."""
    if first is None or second is None:
        return first is second
    return max(abs(left - right) for left, right in zip(first, second, strict=True)) <= 1


def detector_of(members: Sequence[Member]) -> Detector | None:
    """The face detector for members that crop around faces; None if none do.

    Raises:
        ConfigError: the detector is not installed.
        WorkspaceError: members crop around the faces of another detector.
    """
    detectors = {member: member.preprocess.geometry.detector for member in members}
    problems = [
        Problem(member.name, f"its faces were found by {name}.")
        for member, name in detectors.items()
        if name not in ("", DETECTOR)
    ]
    if problems:
        raise WorkspaceError(
            f"this version finds faces by {DETECTOR}, and members would see other crops than those they were trained on. Use the "
            "version of orchestrator that trained them, or train them again.",
            problems,
        )
    runs = dict.fromkeys(member.run for member, name in detectors.items() if name)
    if not runs:
        return None
    without = "answer with an ensemble of runs that crop without them"
    require(f"the crop of {', '.join(runs)} around faces", "face", otherwise=without)
    return detector()

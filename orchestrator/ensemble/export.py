"""Members as ONNX files: made once for the same weights, checked against torch on real photos before anybody uses them.

An export is the whole function of a member, pixels in and probabilities out (`member.Answers`), so that who runs it
elsewhere cannot normalise in another way. Exports lie in the workspace's cache under the hash of their weights.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.data.files import atomic, digest_of, read_json, sha256_of, write_json
from orchestrator.ensemble.engines import RUNTIME, TOLERANCE, Engine, Pixels, TorchRunner, open_runner, version_of
from orchestrator.ensemble.member import Answers, Member
from orchestrator.errors import EngineError, Problem, WorkspaceError

__all__ = ["CHECK_PHOTOS", "Exports", "write_onnx"]

CHECK_PHOTOS = 64
"""Photos that an export is checked on. A wrong graph shows in every photo, rounding only in some: among 512 photos bf16 differed
by twice what it did among the first 64."""


def write_onnx(members: Mapping[Path, Member]) -> Iterator[Path]:
    """Writes ONNX files: input `photos` (n, H, W, 3) uint8, output `probabilities` (n, C) float32.

    Tracing a network takes seconds; members of one kind share the trace and differ in the weights that are put into it.

    Args:
        members: file -> the member that it shall hold.

    Yields:
        Each file when it is written.

    Raises:
        EngineError: torch cannot export a network.
    """
    import onnx
    from onnx.numpy_helper import from_array
    from onnxscript.optimizer import optimize

    traces: dict[str, Any] = {}
    for path, member in members.items():
        weights = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in Answers(member).state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        trace = traces.get(member.kind)
        if trace is None or not set(weights) <= {one.name for one in trace.graph.initializer}:
            trace = traces[member.kind] = _trace(member)
        for one in trace.graph.initializer:
            if one.name in weights:
                one.CopyFrom(from_array(weights[one.name], one.name))
        copy = onnx.ModelProto()
        copy.CopyFrom(trace)
        try:
            with _quiet():
                done = optimize(copy)  # folds norms into convolutions: ONNX Runtime is 4 times faster with it
            data = done.SerializeToString()
        except Exception as error:  # an optimiser of graphs, and protobuf's limit of 2 GB
            raise EngineError(
                f"{member.name}: its network ({member.backbone}) cannot be written as ONNX ({type(error).__name__}). "
                "Use --engine torch."
            ) from None
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        yield path


def _trace(member: Member) -> Any:
    """The ONNX graph of a member, its weights under their own names."""
    geometry = member.preprocess.geometry
    example = torch.zeros(2, geometry.height, geometry.width, 3, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                Answers(member).eval(), (example,), dynamo=True, optimize=False, verbose=False, input_names=["photos"],
                output_names=["probabilities"], dynamic_shapes={"photos": {0: torch.export.Dim("n", min=1)}},
            )  # fmt: skip
    except Exception as error:  # the exporter fails in as many ways as there are architectures
        words = str(error).strip().splitlines()
        raise EngineError(
            f"{member.name}: its network ({member.backbone}) cannot be exported to ONNX "
            f"({type(error).__name__}: {words[0][:160] if words else ''}). Use --engine torch."
        ) from None
    if program is None:
        raise EngineError(f"{member.name}: torch returned no ONNX program for {member.backbone}. Use --engine torch.")
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its warnings of torch's own internals from the terminal; what counts is the check."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class Exports:
    """The exports in a workspace's cache, with what checks found.

    One object serves one sample of photos: torch's answers for it are kept.

    Args:
        folder: of the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._torch: dict[
            Member, NDArray[np.float32]
        ] = {}  # torch's answers, for all engines that are held against them

    def path(self, member: Member) -> Path:
        """Where a member's export lies, or will; named by its weights, its kind and the exporter's versions."""
        made_by = [version_of(package) for package in ("torch", "timm", "onnx", "onnxscript")]
        return self.folder / f"{member.sha256[:16]}-{digest_of([member.kind, made_by])[:8]}.onnx"

    def make(self, members: Sequence[Member], done: Callable[[int, int], None] = lambda _done, _all: None) -> None:
        """Writes the exports that are not there."""
        missing = {path: member for member in members if not (path := self.path(member)).exists()}
        for number, _ in enumerate(write_onnx(missing), start=1):
            done(number, len(missing))

    def difference(self, member: Member, engine: Engine, pixels: NDArray[np.uint8]) -> float:
        """How far an engine's answers are from torch's in fp32; looked up when this file was checked on as many photos before.

        Raises:
            EngineError: the engine cannot open the export.
        """
        record, key = self.path(member).with_suffix(".json"), self._key(member, engine)
        known = self._known(record)
        if known.get(key, {}).get("photos", 0) < len(pixels):
            runner = open_runner(engine, member, self.path(member), "cpu", 1)
            if member not in self._torch:
                self._torch[member] = TorchRunner(member, "cpu", "fp32")(pixels)
            answers = runner(pixels)
            same = answers.shape == self._torch[member].shape  # another shape is another network's export
            found = float(np.abs(answers - self._torch[member]).max()) if same else float("inf")
            known = {**known, key: {"difference": found, "photos": len(pixels)}}
            write_json(record, known)
        return float(known[key]["difference"])

    def photos(self, member: Member, engine: Engine) -> int:
        """On how many photos an engine was checked for a member."""
        return int(
            self._known(self.path(member).with_suffix(".json")).get(self._key(member, engine), {}).get("photos", 0)
        )

    def check(self, members: Sequence[Member], engine: Engine, pixels: Callable[[Member], Pixels]) -> float:
        """Holds an engine to its tolerance for every member.

        Returns:
            The largest difference found.

        Raises:
            EngineError: members whose answers differ by more, all at once.
        """
        found = {member: self.difference(member, engine, pixels(member)) for member in members}
        limit = TOLERANCE[engine.precision]
        problems = [
            Problem(member.name, f"probabilities differ by up to {difference:.2g}; allowed: {limit:g}.")
            for member, difference in found.items()
            if not difference <= limit  # a difference that is no number is refused too
        ]
        if problems:
            raise EngineError(
                f"{engine} does not give torch's answers for {len(problems)} of {len(members)} members. Use --engine torch"
                f"{' or --precision fp32' if engine.precision == 'bf16' else ''}.",
                problems,
            )
        return max(found.values(), default=0.0)

    def _key(self, member: Member, engine: Engine) -> str:
        """What a check holds for: the engine and its version, and the very file."""
        file = sha256_of(self.path(member))[:12] if engine.name != "torch" else ""
        return f"{engine} {version_of(RUNTIME[engine.name])} {file}".strip()

    def _known(self, record: Path) -> dict[str, dict[str, float]]:
        try:
            return dict(read_json(record)) if record.exists() else {}
        except (WorkspaceError, ValueError, TypeError):
            return {}  # a damaged cache is an empty cache

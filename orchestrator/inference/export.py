"""Members as ONNX files: written once for the same weights, checked against torch on real photos before use.

An export is a part of a member (`shared_backbone.py`). Outside orch it is the whole function, from pixels to
probabilities, so that preprocessing cannot differ. Exports are cached in the workspace under the hash of their
weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.core.errors import EngineError, Problem, first_line
from orchestrator.core.extras import import_optional
from orchestrator.core.files import atomic, digest_of
from orchestrator.inference.cache import CacheFiles, locked
from orchestrator.inference.engines import (
    TOLERANCE,
    Engine,
    Pixels,
    engine_version,
    open_runners,
    torch_runners,
    version_of,
)
from orchestrator.inference.member import Member, check_finite
from orchestrator.inference.shared_backbone import Part, Split, unshared

__all__ = ["CHECK_PHOTOS", "Exports", "quiet", "write_onnx"]

NOTES = "export"

CHECK_PHOTOS = 64
"""Photos that an export is checked on. A wrong graph shows on every photo, rounding only on some: over 512 photos bf16
differed twice as much as over the first 64."""


def write_onnx(parts: Mapping[Path, tuple[Member, Part]]) -> Iterator[Path]:
    """Writes ONNX files, for any number of photos n: of pixels `photos` (n, H, W, 3) uint8 or of `features` float32.

    Tracing a network takes seconds; parts of one kind share a trace, into which their weights are inserted.

    Args:
        parts: file -> the member and its part to write.

    Yields:
        Each file when it is written.

    Raises:
        EngineError: torch cannot export a network.
    """
    onnx, numpy_helper, optimizer = (
        import_optional(module, "an export", "engines", "use --engine torch", EngineError)
        for module in ("onnx", "onnx.numpy_helper", "onnxscript.optimizer")
    )
    traces: dict[str, Any] = {}
    for path, (member, part) in parts.items():
        weights = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in part.module.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        trace = traces.get(part.kind)
        if trace is None or not set(weights) <= {tensor.name for tensor in trace.graph.initializer}:
            trace = traces[part.kind] = _trace(member, part)
        for initial in trace.graph.initializer:
            if initial.name in weights:
                initial.CopyFrom(numpy_helper.from_array(weights[initial.name], initial.name))
        copy = onnx.ModelProto()
        copy.CopyFrom(trace)
        try:
            with quiet():
                done = optimizer.optimize(copy)  # folds norms into convolutions: ONNX Runtime is 4 times faster with it
            data = done.SerializeToString()
        except Exception as error:  # of the graph optimiser, or of protobuf's limit of 2 GB
            raise EngineError(
                f"{member.name}: its network ({member.backbone}) cannot be written as ONNX ({type(error).__name__}). "
                "Use --engine torch."
            ) from None
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        yield path


def _trace(member: Member, part: Part) -> Any:
    """The ONNX graph of a part, its weights under their own names."""
    input_name, output_name = part.names
    try:
        with quiet():
            program = torch.onnx.export(
                part.module, (part.example,), dynamo=True, optimize=False, verbose=False, input_names=[input_name],
                output_names=[output_name], dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            )  # fmt: skip
    except Exception as error:  # the exporter fails in as many ways as there are architectures
        raise EngineError(
            f"{member.name}: its network ({member.backbone}) cannot be exported to ONNX "
            f"({type(error).__name__}: {first_line(error)[:160]}). Use --engine torch."
        ) from None
    if program is None:
        raise EngineError(f"{member.name}: torch returned no ONNX program for {member.backbone}. Use --engine torch.")
    return program.model_proto


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what the exporter logs about torch's internals, and nothing of other threads; exports are checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class Exports:
    """The exports in a workspace's cache, with the results of their checks.

    One object serves one sample of photos, for which torch's answers are kept.

    Args:
        folder: the cache folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, CacheFiles(folder)
        # Torch's answers, with which all engines are compared.
        self._torch: dict[Member, NDArray[np.float32]] = {}

    def path(self, part: Part) -> Path:
        """Path of a part's export, written or not; named by its weights, its kind and the exporter's versions."""
        made_by = [version_of(package) for package in ("torch", "timm", "onnx", "onnxscript")]
        return self.folder / f"{part.digest}-{digest_of([part.kind, made_by])[:8]}.onnx"

    def missing(self, splits: Sequence[Split]) -> dict[Path, tuple[Member, Part]]:
        """The exports that are missing or have changed: file -> the member and its part. Changed ones are deleted."""
        files = {self.path(part): (split.member, part) for split in splits for part in split.parts}
        with locked(self.folder):  # a file that another process has written, and not noted yet, is not a changed one
            return {path: member_and_part for path, member_and_part in files.items() if not self._whole(path)}

    def _whole(self, path: Path) -> bool:
        return self._files.is_whole(path, self._notes(path).get("sha256"))

    def make(self, splits: Sequence[Split], done: Callable[[int, int], None] = lambda _done, _all: None) -> None:
        """Writes the exports that are missing or have changed; what another process is writing is waited for."""
        with locked(self.folder):
            missing = self.missing(splits)
            for number, path in enumerate(write_onnx(missing), start=1):
                self._write_notes(path, {"sha256": self._files.sha256(path), "checks": {}})
                done(number, len(missing))

    def difference(self, split: Split, engine: Engine, pixels: Pixels) -> float:
        """Largest difference of an engine's probabilities from torch's in fp32, for the whole member.

        Looked up if these files have been checked on as many photos already.

        Raises:
            EngineError: the engine cannot open an export.
        """
        record, key = self.path(split.tail), self._key(split, engine)
        checks = self._checks(record)
        if checks.get(key, {}).get("photos", 0) < len(pixels):
            (runner,) = open_runners([split], engine, self.path, "cpu", 1)
            if split.member not in self._torch:
                (reference,) = torch_runners([unshared(split.member)], "cpu", "fp32")
                self._torch[split.member] = reference(pixels)
                check_finite(split.member, self._torch[split.member])
            answers, expected = runner(pixels), self._torch[split.member]
            same = answers.shape == expected.shape  # another shape is another network's export
            difference = float(np.abs(answers - expected).max()) if same else float("inf")
            if not np.isfinite(difference):
                return float("inf")  # JSON cannot hold it
            checks = {key: {"difference": difference, "photos": len(pixels)}}
            with locked(self.folder):  # other processes check this export on other engines
                notes = self._notes(record)
                self._write_notes(record, {**notes, "checks": {**notes.get("checks", {}), **checks}})
        return float(checks[key]["difference"])

    def photos(self, split: Split, engine: Engine) -> int:
        """On how many photos an engine was checked for a member."""
        return int(self._checks(self.path(split.tail)).get(self._key(split, engine), {}).get("photos", 0))

    def check(self, splits: Sequence[Split], engine: Engine, pixels: Callable[[Member], Pixels]) -> float:
        """Checks that an engine is within its tolerance for every member.

        Returns:
            The largest difference found.

        Raises:
            EngineError: members whose answers differ by more, all at once.
        """
        differences = {split.member: self.difference(split, engine, pixels(split.member)) for split in splits}
        limit = TOLERANCE[engine.precision]
        problems = [
            Problem(member.name, f"probabilities differ by up to {difference:.2g}; allowed: {limit:g}.")
            for member, difference in differences.items()
            if not difference <= limit  # NaN is refused too
        ]
        if problems:
            raise EngineError(
                f"{engine} does not give torch's answers for {len(problems)} of {len(splits)} members. Use --engine torch"
                f"{' or --precision fp32' if engine.precision == 'bf16' else ''}.",
                problems,
            )
        return max(differences.values(), default=0.0)

    def _key(self, split: Split, engine: Engine) -> str:
        """Cache key of a check: the engine, its version, and the hashes of the files."""
        files = [self._files.sha256(self.path(part))[:12] for part in split.parts] if engine.name != "torch" else []
        return " ".join([str(engine), engine_version(engine.name), *files])

    def _notes(self, export: Path) -> dict[str, Any]:
        """Notes on an export: its sha256, and the checks of the member whose tail it is."""
        return self._files.notes(export.with_suffix(".json"), NOTES)

    def _write_notes(self, export: Path, body: Mapping[str, Any]) -> None:
        self._files.write_notes(export.with_suffix(".json"), NOTES, body)

    def _checks(self, export: Path) -> dict[str, dict[str, float]]:
        return dict(self._notes(export).get("checks", {}))

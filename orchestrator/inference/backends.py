"""Backends: what runs exported parts, ONNX Runtime and OpenVINO, on a CPU, one core a call.

A new one is an entry in `BACKENDS`, with its packages in `PACKAGES` (options.py) and in the extra `engines`. The choice of
the fastest engine, the check of every answer against torch, caches and benchmarks then use it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.errors import EngineError, first_line
from orchestrator.core.extras import import_optional
from orchestrator.inference.cache import CacheFiles, locked
from orchestrator.inference.options import Precision

__all__ = ["BACKENDS", "COMPILED", "Backend", "OnnxCall", "OpenVinoCall", "cache_files", "openvino_core"]

COMPILED, BLOBS = "openvino", "blobs"
"""Folder of OpenVINO's compiled networks, next to their exports, and the name of the file with their hashes."""


class OnnxCall:
    """A part's export on ONNX Runtime.

    Args:
        path: the export.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = import_optional("onnxruntime", "--engine onnx", "engines", "use --engine torch", EngineError)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._name = self._session.get_inputs()[0].name

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """The part's output for photos or features."""
        try:
            return np.asarray(self._session.run(None, {self._name: inputs})[0])
        except Exception as error:  # onnxruntime has exceptions of its own
            raise EngineError(
                f"onnx could not run an export ({first_line(error)[:160]}). Use --engine torch."
            ) from None


class OpenVinoCall:
    """A part's export on OpenVINO.

    Args:
        path: the export.
        precision: bf16 needs a CPU with bf16 units.
        threads: how many calls may run at once.
    """

    def __init__(self, path: Path, precision: Precision, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "CACHE_DIR": str(path.parent / COMPILED),  # a compiled network opens in 0.04 s instead of 0.3 to 1 s
        }
        self._compiled = openvino_core().compile_model(str(path), "CPU", settings)
        self._own = threading.local()

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """The part's output for photos or features."""
        if not hasattr(self._own, "request"):  # a request may be used by one thread at a time
            self._own.request = self._compiled.create_infer_request()
        try:
            return np.array(self._own.request.infer([inputs], share_inputs=True)[0])
        except Exception as error:  # openvino raises RuntimeError for most things, and others
            raise EngineError(
                f"openvino could not run an export ({first_line(error)[:160]}). Use --engine torch."
            ) from None


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """OpenVINO's runtime, opened once.

    Raises:
        EngineError: OpenVINO is missing or broken.
    """
    return import_optional("openvino", "--engine openvino", "engines", "use --engine torch", EngineError).Core()


def _openvino_precisions() -> Sequence[Precision]:
    supports_bf16 = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", "bf16") if supports_bf16 else ("fp32",)


cache_files = lru_cache(maxsize=8)(CacheFiles)
"""One object for each folder: it hashes a file once, and members are opened one by one."""


@contextmanager
def _compiled_networks(exports: Iterable[Path]) -> Iterator[None]:
    """Keeps OpenVINO's compiled networks, beside their exports, to their hashes while the exports are opened."""
    caches = list(dict.fromkeys(path.parent for path in exports))
    with ExitStack() as stack:
        for cache in caches:
            stack.enter_context(locked(cache))  # what another process has compiled, and not noted yet, is not changed
            _drop_changed(cache / COMPILED)
        yield
        for cache in caches:
            _note_compiled(cache / COMPILED)


def _drop_changed(folder: Path) -> None:
    """Deletes compiled networks that have changed since OpenVINO wrote them: it would run them anyway, or crash."""
    files = cache_files(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        files.is_whole(folder, None)
    if not folder.is_dir():
        return
    hashes = files.notes(folder / f"{BLOBS}.json", BLOBS).get("sha256", {})
    for blob in folder.iterdir():
        if blob.name != f"{BLOBS}.json":
            files.is_whole(blob, hashes.get(blob.name))


def _note_compiled(folder: Path) -> None:
    """Records the hash of each network that OpenVINO has compiled."""
    if not folder.is_dir():
        return
    files, notes = cache_files(folder), folder / f"{BLOBS}.json"
    hashes = {blob.name: files.sha256(blob) for blob in sorted(folder.iterdir()) if blob.suffix == ".blob"}
    if hashes != files.notes(notes, BLOBS).get("sha256"):
        files.write_notes(notes, BLOBS, {"sha256": hashes})


@dataclass(frozen=True)
class Backend:
    """How one backend is used.

    Attributes:
        package: the package whose version decides its answers and its speed.
        open: (export, precision, threads that may call at once) -> the part's call.
        precisions: the precisions that pay on this CPU, fp32 first.
        opening: context in which exports are opened, given their paths.
    """

    package: str
    open: Callable[[Path, Precision, int], Callable[[Any], NDArray[np.float32]]]
    precisions: Callable[[], Sequence[Precision]] = lambda: ("fp32",)
    opening: Callable[[Iterable[Path]], AbstractContextManager[None]] = lambda _: nullcontext()


BACKENDS: Mapping[str, Backend] = {
    "onnx": Backend("onnxruntime", lambda path, _precision, _threads: OnnxCall(path)),
    "openvino": Backend("openvino", OpenVinoCall, _openvino_precisions, _compiled_networks),
}
"""Engine other than torch -> its backend."""

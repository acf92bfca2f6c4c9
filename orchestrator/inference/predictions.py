"""Choosing the engines of a predictor: whether there is a choice, and on which photos it is tried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import DataError, StoreError
from orchestrator.inference.options import FEW_PHOTOS

if TYPE_CHECKING:
    from orchestrator.inference.choice import EngineChoice
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.reader import Photo, ReadResult

__all__ = ["PredictorOnEngines", "choose_engines"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictorOnEngines:
    """A predictor on the engines that were chosen.

    Attributes:
        predictor: the same members on these engines.
        chosen: the engine of each kind of network; empty if they stay on torch as loaded.
        known: results of reading the first photos, so that they are not read again.
    """

    predictor: Predictor
    chosen: Sequence[EngineChoice] = ()
    known: Sequence[ReadResult] = ()


def choose_engines(
    predictor: Predictor,
    photos: Sequence[Photo],
    engine: str,
    fp32_only: bool,
    cache: Path,
    exporting: Callable[[int, int], None] = lambda _done, _all: None,
    more: bool = False,
) -> PredictorOnEngines:
    """Chooses engines for these photos; the first readable ones are used for checks and trials.

    Args:
        predictor: the members.
        photos: the photos to come.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        fp32_only: leave out precisions below fp32.
        cache: folder for exports and trials.
        exporting: called with (exports written, exports to write).
        more: an unknown number of photos will follow, so that the fastest engine is worth its exports.

    Raises:
        EngineError: the engine asked for cannot run a member or gives other answers than torch.
        DataError: no photo of a sample can be read, and an engine was asked for.
    """
    few = not more and len(photos) <= FEW_PHOTOS
    if not fp32_only and (engine == "torch" or (engine == "auto" and few)):
        return PredictorOnEngines(predictor)  # torch, as loaded
    from orchestrator.core.cores import one_thread
    from orchestrator.inference.choice import assign_engines, in_fp32
    from orchestrator.inference.export import CHECK_PHOTOS
    from orchestrator.inference.reader import Prepared

    if fp32_only:
        predictor = replace(predictor, runtime=in_fp32(predictor.runtime))
    known: list[ReadResult] = []
    sample: list[Prepared] = []
    with ThreadPoolExecutor(
        1, initializer=one_thread
    ) as reading:  # as prediction reads: a face's box may depend on threads
        for photo in photos:
            known.append(reading.submit(predictor.reader.read, photo).result())
            sample += [photo for photo in known[-1:] if isinstance(photo, Prepared)]
            if len(sample) == CHECK_PHOTOS:
                break
    if not sample:
        if more and engine != "auto":
            raise DataError(
                f"--engine {engine}: no photo of the sample can be read, so it cannot be checked against torch."
            )
        return PredictorOnEngines(predictor, (), known)
    try:
        runtime, chosen = assign_engines(
            predictor.runtime, sample, None if more else len(photos), engine, fp32_only, cache, exporting
        )
    except (OSError, StoreError):
        if engine != "auto":
            raise
        return PredictorOnEngines(predictor, (), known)  # a cache that cannot be written is no reason to fail
    return PredictorOnEngines(replace(predictor, runtime=runtime), chosen, known)

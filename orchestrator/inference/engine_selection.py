"""Choosing the engines of a predictor: whether there is a choice, on which photos it is tried, and what if it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import DataError, StoreError, first_line
from orchestrator.inference.options import needs_trial

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
        chosen: the engine of each kind of network; empty if they stay on torch.
        first_results: results of reading the first photos, so that they are not read again.
    """

    predictor: Predictor
    chosen: Sequence[EngineChoice] = ()
    first_results: Sequence[ReadResult] = ()


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
        predictor: the members, on torch.
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
    if fp32_only:
        from orchestrator.inference.choice import in_fp32

        predictor = replace(predictor, runtime=in_fp32(predictor.runtime))
    number = None if more else len(photos)
    if not needs_trial(engine, predictor.runtime.device, number):
        return PredictorOnEngines(predictor)
    from orchestrator.inference.choice import assign_engines
    from orchestrator.inference.reader import Prepared

    first_results = _read_sample(predictor, photos)
    sample = [photo for photo in first_results if isinstance(photo, Prepared)]
    if not sample:
        if more and engine != "auto":
            raise DataError(
                f"--engine {engine}: no photo of the sample can be read, so it cannot be checked against torch."
            )
        return PredictorOnEngines(predictor, (), first_results)
    try:
        runtime, chosen = assign_engines(predictor.runtime, sample, number, engine, fp32_only, cache, exporting)
    except (OSError, StoreError) as error:  # a cache that cannot be written is no reason to fail
        if engine != "auto":
            raise
        log.warning(f"{first_line(error)}; members stay on torch.")
        return PredictorOnEngines(predictor, (), first_results)
    return PredictorOnEngines(replace(predictor, runtime=runtime), chosen, first_results)


def _read_sample(predictor: Predictor, photos: Sequence[Photo]) -> list[ReadResult]:
    """The first photos as they are read, up to as many readable ones as engines are checked on."""
    from orchestrator.inference.export import CHECK_PHOTOS
    from orchestrator.inference.read_ahead import ReadAhead
    from orchestrator.inference.reader import Prepared

    first_results: list[ReadResult] = []
    pools = predictor.runtime.pools
    reading = ReadAhead(predictor.reader.read, pools.readers, photos, CHECK_PHOTOS)
    with pools.prediction(), closing(reading.batches()) as batches:
        for _, results in batches:
            first_results += results
            if sum(isinstance(photo, Prepared) for photo in first_results) >= CHECK_PHOTOS:
                break
    return first_results

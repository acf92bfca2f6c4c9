"""Choosing the engine that finishes first on this machine, by a short measured trial whose result is cached.

Only engines that agree with torch within their tolerance take part. An engine's cost is its setup time (exports that
are not in the cache yet) plus the time for all photos at the measured rate, so a handful of photos never waits for an
export, and thousands do. If the number of photos is unknown (a service), only the rate counts.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from orchestrator.core.errors import EngineError
from orchestrator.core.files import digest_of
from orchestrator.inference.cache import CacheFiles, locked
from orchestrator.inference.engines import (
    Engine,
    Pixels,
    Runner,
    capabilities,
    engine_version,
    engines_here,
    open_runners,
    torch_runners,
)
from orchestrator.inference.export import CHECK_PHOTOS, Exports
from orchestrator.inference.member import Member
from orchestrator.inference.reader import Prepared
from orchestrator.inference.runtime import CALL, Runtime
from orchestrator.inference.shared_backbone import Split

__all__ = ["EngineChoice", "assign_engines", "in_fp32", "measured_rate"]

TRACE_SECONDS, FILL_SECONDS = 5.0, 0.6
"""Seconds to trace a network for export, and to insert one member's weights (EfficientNet-Lite0 here)."""
WORTH_SECONDS = 60.0
"""If torch takes less time than this for all photos, no trial is made: it exports one member per kind of network."""
TRIALS = "trials"


@dataclass(frozen=True)
class EngineChoice:
    """The engine for the members of one kind of network.

    Attributes:
        tasks: the members' tasks.
        engine: the engine.
        rate: photos per second and core for one member; 0: not measured.
        difference: largest difference of a probability from torch's in fp32; 0 for torch in fp32.
    """

    tasks: tuple[str, ...]
    engine: Engine
    rate: float
    difference: float

    def __str__(self) -> str:
        details = [f"{self.rate:.0f} photos/s per core and member"] if self.rate else []
        if self.engine != Engine("torch"):
            details.append(f"within {self.difference:.1g} of torch")
        return f"{', '.join(self.tasks)} on {self.engine}" + (f" ({'; '.join(details)})" if details else "")


def in_fp32(runtime: Runtime) -> Runtime:
    """The same members on torch, in float32 throughout."""
    return runtime.on(torch_runners(runtime.splits, runtime.device, "fp32"))


def assign_engines(
    runtime: Runtime,
    sample: Sequence[Prepared],
    photos: int | None,
    name: str,
    fp32_only: bool,
    cache: Path,
    exporting: Callable[[int, int], None] = lambda _done, _all: None,
    rate: Callable[[Split, Engine], float] | None = None,
) -> tuple[Runtime, list[EngineChoice]]:
    """Puts a runtime's members on the engines that will finish first.

    Args:
        runtime: the members' runtime on torch, for which `needs_trial` says yes.
        sample: some of the photos, prepared, for checks and trials.
        photos: number of photos; None: unknown, as in a service.
        name: `auto`, or an engine that `check_engine` has accepted.
        fp32_only: leave out precisions below fp32.
        cache: folder for exports and trials.
        exporting: called with (exports written, exports to write).
        rate: photos per second and core of a member on an engine, 0 where it cannot run; None: as measured here.

    Returns:
        The runtime on these engines, and what was chosen for each kind of network.

    Raises:
        EngineError: the engine asked for cannot run a member or gives other answers than torch.
    """
    trial = _Trial(runtime, sample[:CHECK_PHOTOS], Exports(cache), CacheFiles(cache), exporting, rate)
    by_kind: dict[str, list[Split]] = {}
    for split in runtime.splits:
        by_kind.setdefault(split.member.kind, []).append(split)
    if name == "auto" and not trial.ready(runtime.splits) and not trial.worth(by_kind.values(), photos):
        return runtime, []
    able = [candidate for candidate in engines_here("cpu", name) if not (fp32_only and candidate.precision != "fp32")]
    engines = {kind: trial.fastest(splits, able, photos) for kind, splits in by_kind.items()}
    runners: dict[Split, Runner] = {}
    for engine in dict.fromkeys(engines.values()):  # members of two kinds may share a shared backbone: opened together
        splits = [split for split in runtime.splits if engines[split.member.kind] == engine]
        opened = open_runners(splits, engine, trial.exports.path, "cpu", runtime.threads)
        runners |= dict(zip(splits, opened, strict=True))
    chosen = []
    for kind, splits in by_kind.items():
        engine = engines[kind]
        difference = max((trial.difference(split, engine) for split in splits), default=0.0)
        tasks = tuple(dict.fromkeys(split.member.task for split in splits))
        chosen.append(EngineChoice(tasks, engine, trial.known_rate(splits[0], engine), difference))
    return runtime.on([runners[split] for split in runtime.splits]), chosen


class _Trial:
    """Rates and differences of engines for the members of a runtime, measured when they are asked for."""

    def __init__(
        self,
        runtime: Runtime,
        sample: Sequence[Prepared],
        exports: Exports,
        files: CacheFiles,
        exporting: Callable[[int, int], None],
        rate: Callable[[Split, Engine], float] | None,
    ) -> None:
        self._rate = rate or self._measured
        self._threads, self._sample, self._files, self._exporting = runtime.threads, sample, files, exporting
        self.exports = exports
        self._rates = self._noted_rates()

    def _noted_rates(self) -> dict[str, float]:
        return dict(self._files.notes(self._record, TRIALS).get("rates", {}))

    @property
    def _record(self) -> Path:
        return self._files.folder / f"{TRIALS}.json"

    def pixels(self, member: Member) -> Pixels:
        """The sample at a member's geometry."""
        return np.stack([photo.pixels[member.preprocess.geometry] for photo in self._sample])

    def known_rate(self, split: Split, engine: Engine) -> float:
        """The measured rate, 0 where there is none."""
        return self._rates.get(_key(split, engine), 0.0)

    def _measured(self, split: Split, engine: Engine) -> float:
        """Photos per second of a member on one core; measured once per machine and kind of network. 0: cannot run it."""
        key = _key(split, engine)
        if key not in self._rates:
            try:
                if engine.name != "torch":
                    self.exports.make([split], self._exporting)
                (runner,) = open_runners([split], engine, self.exports.path, "cpu", 1)
                pixels = self.pixels(split.member)
                self._rates[key] = measured_rate(runner, np.resize(pixels, (CALL, *pixels.shape[1:])), split.sharing)
            except EngineError:
                self._rates[key] = 0.0
            if rate := self._rates[key]:
                with locked(self._files.folder):  # other processes try other networks
                    self._files.write_notes(self._record, TRIALS, {"rates": {**self._noted_rates(), key: rate}})
        return self._rates[key]

    def difference(self, split: Split, engine: Engine) -> float:
        """How far an engine's answers are from torch's in fp32."""
        if engine == Engine("torch"):
            return 0.0
        return self.exports.difference(split, engine, self.pixels(split.member))

    def ready(self, splits: Sequence[Split]) -> bool:
        """Whether the members' exports exist already, so that a trial need not make them."""
        return not self.exports.missing(splits)

    def worth(self, kinds: Iterable[Sequence[Split]], photos: int | None) -> bool:
        """Whether torch would take so long that a trial, which needs exports, is worthwhile."""
        return photos is None or sum(self._price(splits, Engine("torch"), photos) for splits in kinds) > WORTH_SECONDS

    def fastest(self, splits: Sequence[Split], able: Sequence[Engine], photos: int | None) -> Engine:
        """The engine that will finish first, among those that agree with torch for all members.

        Raises:
            EngineError: no engine agrees with torch.
        """
        candidates, refused = list(able), EngineError("no engine can run here.")
        while candidates:
            best = min(candidates, key=lambda engine: self._price(splits, engine, photos))
            if best == Engine("torch"):
                return best
            try:
                for tried in (splits[:1], splits):  # the first alone, before the others are exported in vain
                    if best.name != "torch":
                        self.exports.make(tried, self._exporting)
                    self.exports.check(tried, best, self.pixels)
                return best
            except EngineError as error:
                refused = error
                candidates.remove(best)
        raise refused

    def _price(self, splits: Sequence[Split], engine: Engine, photos: int | None) -> float:
        """Seconds for an engine to answer all photos, missing exports included; for one photo without exports if their
        number is unknown."""
        rate = self._rate(splits[0], engine)
        seconds = (photos or 1) * len(splits) / rate / self._threads if rate else float("inf")
        if photos is None:
            return seconds
        missing = 0 if engine.name == "torch" else len(self.exports.missing(splits))
        return seconds + (TRACE_SECONDS + FILL_SECONDS * missing if missing else 0.0)


def measured_rate(runner: Runner, pixels: Pixels, sharing: int) -> float:
    """Photos per second of one runner on one core; a shared backbone's time is divided by the members that share it.

    The best of three calls, after one to warm up.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        features = runner.begin(pixels)
        runner.finish(features)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            features = runner.begin(pixels)
            resumed = time.perf_counter()
            runner.finish(features)
            seconds.append((resumed - started) / sharing + time.perf_counter() - resumed)
    finally:
        torch.set_num_threads(threads)
    return len(pixels) / min(seconds)


def _key(split: Split, engine: Engine) -> str:
    """Cache key of a rate: the network, what of it is shared, the engine and its version, the machine."""
    machine = [capabilities().get("cpu_name"), platform.machine()]
    kinds = [part.kind for part in split.parts]
    return digest_of([kinds, split.sharing, str(engine), engine_version(engine.name), machine])[:16]

"""Prediction against its floor, and against the loop that most people write: a network at a time, photos decoded for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from orchestrator.bench.timing import Timing, in_turn, ratio
from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import soft_combiner
from orchestrator.core.errors import EngineError
from orchestrator.inference.engines import Engine, Runner, engines_here, open_runners, torch_runners
from orchestrator.inference.export import CHECK_PHOTOS, Exports
from orchestrator.inference.member import Member, answers_of
from orchestrator.inference.predictor import Predictor
from orchestrator.inference.reader import Prepared, stacked
from orchestrator.inference.shared_backbone import unshared
from orchestrator.networks.layers import channels_last

__all__ = ["EngineSpeed", "PredictionSpeed", "RefusedEngine", "bench_prediction", "naive_answers"]


@dataclass(frozen=True)
class EngineSpeed:
    """How fast an engine predicts, beside its floor and the naive loop, and how far its answers are from theirs.

    Attributes:
        difference_of_members: largest difference of any member's probabilities from torch's, on a sample of the photos.
        same_labels: share of photos with the naive loop's label, 0..1.
        difference_of_votes: largest difference of the votes' probabilities from the naive loop's.
        floor: cost of the members' computation alone, on pixels in memory.
        predict: cost of the prediction from files.
        times_naive: speed of the prediction divided by the naive loop's, the median of all rounds.
    """

    difference_of_members: float
    same_labels: float
    difference_of_votes: float
    floor: Timing
    predict: Timing
    times_naive: float

    @property
    def efficiency(self) -> float:
        """Speed of the prediction as a share of the floor's, the median of all rounds."""
        return ratio(self.floor, self.predict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "difference_of_members": self.difference_of_members, "same_labels": self.same_labels,
            "difference_of_votes": self.difference_of_votes, "floor": self.floor.as_dict(),
            "predict": self.predict.as_dict(), "efficiency": self.efficiency, "times_naive": self.times_naive,
        }  # fmt: skip


@dataclass(frozen=True)
class RefusedEngine:
    """An engine that was not measured.

    Attributes:
        refused: why: it cannot run the members, or its answers differ too far from torch's.
    """

    refused: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PredictionSpeed:
    """How fast an ensemble predicts: every engine, beside plain ways to do the same.

    Attributes:
        photos: number of photos that are predicted in a round.
        members: number of members.
        threads: number of threads on a CPU.
        device: `cpu`, `cuda` or `cuda:N`.
        naive: cost of the naive loop.
        decoding: cost of reading the photos alone, on all cores.
        nothing_shared: cost of torch's members on pixels in memory, where no layer is shared.
        engines: engine -> its speed, or why it was refused.
    """

    photos: int
    members: int
    threads: int
    device: str
    naive: Timing
    decoding: Timing
    nothing_shared: Timing
    engines: Mapping[str, EngineSpeed | RefusedEngine]

    @property
    def measured(self) -> dict[str, EngineSpeed]:
        """The engines that were not refused."""
        return {name: engine for name, engine in self.engines.items() if isinstance(engine, EngineSpeed)}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "photos": self.photos, "members": self.members, "threads": self.threads, "device": self.device,
            "naive": self.naive.as_dict(), "decoding": self.decoding.as_dict(),
            "nothing_shared": self.nothing_shared.as_dict(),
            "engines": {name: engine.as_dict() for name, engine in self.engines.items()},
        }  # fmt: skip


def bench_prediction(
    predictor: Predictor, paths: Sequence[Path], cache: Path, rounds: int, done: Callable[[int, int], None]
) -> PredictionSpeed:
    """Every engine's prediction from files, compared with its floor and with the naive loop.

    The floor is every member's computation alone, on pixels in memory, by the same calls on the same cores; layers
    that members share count once in both. On a GPU torch runs in fp32 and, as `orch predict` does, in the recipes'
    precision.
    `torch, nothing shared` is the floor of torch with every member whole. The naive loop is `naive_answers`, in fp32.
    Decoding alone, on all cores, bounds whatever the members run on.

    Args:
        predictor: an ensemble's members.
        paths: photos.
        cache: folder for exports.
        rounds: how often all are run in turn.
        done: called with (runs done, runs in all).
    """
    prepared = [photo for path in paths if isinstance(photo := predictor.reader.read(path), Prepared)]
    pixels, exports = stacked(prepared), Exports(cache)
    work = float(len(paths))
    expected = naive_answers(predictor.members, predictor.runtime.device, paths)
    answers = _labels(expected)
    rows: dict[str, Engine | None] = {str(engine): engine for engine in engines_here(predictor.runtime.device)}
    if predictor.runtime.device != "cpu":
        rows["torch, recipes' precision"] = None
    unshared_predictor = predictor.on(_whole(predictor))  # on the same threads
    functions: dict[str, Callable[[], object]] = {
        "naive loop": lambda: naive_answers(predictor.members, predictor.runtime.device, paths),
        "decoding": partial(_decode, predictor, paths),
        "torch, nothing shared": partial(unshared_predictor.runtime.answers, pixels),
    }
    refused: dict[str, RefusedEngine] = {}
    differences: dict[str, tuple[float, float, float]] = {}
    for engine, kind in rows.items():
        try:
            runners, difference = _runners_on(predictor, kind, exports, prepared[:CHECK_PHOTOS])
        except EngineError as error:
            refused[engine] = RefusedEngine(str(error))
            continue
        on_engine = predictor.on(runners)
        of_engine = on_engine.runtime.answers(pixels)
        same_labels = float((_labels(of_engine) == answers).mean())
        differences[engine] = (difference, same_labels, _largest(of_engine, expected))
        functions[f"{engine} floor"] = partial(on_engine.runtime.answers, pixels)
        functions[f"{engine} predict"] = partial(_predict, on_engine, paths)
    timings = in_turn(functions, rounds, work, done)
    measured = {
        name: EngineSpeed(
            *different, timings[f"{name} floor"], timings[f"{name} predict"],
            times_naive=ratio(timings["naive loop"], timings[f"{name} predict"]),
        )
        for name, different in differences.items()
    }  # fmt: skip
    runtime = predictor.runtime
    return PredictionSpeed(
        len(paths), len(predictor.members), runtime.threads, runtime.device,
        naive=timings["naive loop"], decoding=timings["decoding"], nothing_shared=timings["torch, nothing shared"],
        engines={name: refused.get(name) or measured[name] for name in rows},
    )  # fmt: skip


def _predict(predictor: Predictor, paths: Sequence[Path]) -> None:
    for _ in predictor.predict(paths):
        pass


def _whole(predictor: Predictor) -> list[Runner]:
    return torch_runners([unshared(member) for member in predictor.members], predictor.runtime.device, "fp32")


def _decode(predictor: Predictor, paths: Sequence[Path]) -> None:
    with ThreadPoolExecutor(predictor.runtime.threads) as pool:
        for _ in pool.map(predictor.reader.read, paths):
            pass


def _runners_on(
    predictor: Predictor, engine: Engine | None, exports: Exports, sample: Sequence[Prepared]
) -> tuple[Sequence[Runner], float]:
    """All members' runners on one engine, checked, and the largest difference from torch. None: as they were loaded."""
    runtime = predictor.runtime
    if engine is None:
        return runtime.runners, 0.0
    if engine.name != "torch":
        exports.make(runtime.splits)
    difference = 0.0
    if engine != Engine("torch"):
        seen = stacked(sample)
        difference = exports.check(runtime.splits, engine, lambda member: seen[member.preprocess.geometry])
    return open_runners(runtime.splits, engine, exports.path, runtime.device, runtime.threads), difference


def naive_answers(members: Sequence[Member], device: str, paths: Sequence[Path], batch: int = 64) -> Answers:
    """What most people write: a loop per network that opens every photo again, fp32, torch's own settings.

    It crops and resizes as the members were trained, so its answers must be the product's.
    """
    answers: list[NDArray[np.float32]] = []
    for member in members:
        network = member.network.to(memory_format=torch.contiguous_format)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (member.preprocess.mean, member.preprocess.std)
        )
        parts = []
        for start in range(0, len(paths), batch):
            photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths[start : start + batch]]
            pixels = torch.stack(
                [torch.from_numpy(member.preprocess.geometry.apply(photo)).permute(2, 0, 1) for photo in photos]
            )
            with torch.no_grad():
                outputs = network(((pixels.float() / 255 - mean) / std).contiguous().to(device))
                parts.append(member.head.probabilities(outputs).cpu().numpy())
        channels_last(network)
        answers.append(np.concatenate(parts))
    return answers_of(members, answers)


def _labels(answers: Answers) -> NDArray[np.int64]:
    return soft_combiner(list(answers.classes)).combine(answers).label


def _largest(first: Answers, second: Answers) -> float:
    """The largest difference of the votes' probabilities."""
    left, right = (soft_combiner(list(first.classes)).combine(answers).decisions for answers in (first, second))
    return max(float(np.abs(left[task].shares - right[task].shares).max()) for task in first.classes)

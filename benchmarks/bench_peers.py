"""Decision: a prediction path of our own instead of fastai's or timm's.

Predicts the same photos by the same fifteen members (or however many the ensemble has): by `Predictor` on torch and on ONNX
Runtime, by fastai's `Learner.get_preds`, and by a loop over `timm.data.create_loader` like timm's own validate.py. The peers get
a network at a time, as they are made to. Everything is run in turn; prints photos a second and how many times the peer each is.

    pip install -e '.[peers]'
    python benchmarks/bench_peers.py --workspace runs --photos people/eval/images --count 256
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.data.readers.reader import Reader

from orchestrator.artifacts.workspace import Workspace
from orchestrator.bench.prediction import naive_answers
from orchestrator.bench.timing import in_turn, ratio
from orchestrator.data.photo_files import find_photos
from orchestrator.inference.engines import Engine, open_runners
from orchestrator.inference.export import Exports
from orchestrator.inference.member import Member
from orchestrator.inference.opening import open_predictor


class Listed(Reader):
    """timm's reader of files, over a list."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self.paths = list(paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.paths[index].open("rb"), 0

    def __len__(self) -> int:
        return len(self.paths)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return str(self.paths[index])


def by_timm(members: Sequence[Member], paths: Sequence[Path]) -> None:
    """As timm's validate.py: its own transforms (another crop than the members learnt), its loader, a network at a time."""
    for member in members:
        geometry = member.preprocess.geometry
        loader = create_loader(
            ImageDataset("", reader=Listed(paths)), (3, geometry.height, geometry.width), 64, use_prefetcher=False,
            mean=member.preprocess.mean, std=member.preprocess.std, num_workers=2, crop_pct=geometry.crop,
            persistent_workers=False,
        )  # fmt: skip
        network = member.network.to(memory_format=torch.contiguous_format)
        with torch.no_grad():
            for inputs, _ in loader:
                member.head.probabilities(network(inputs))
        network.to(memory_format=torch.channels_last)


def by_fastai(members: Sequence[Member], paths: Sequence[Path]) -> list[np.ndarray]:
    """As fastai has it: a Learner per network, `get_preds` over a test loader."""
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        IntToFloatTensor,
        Learner,
        Normalize,
        PILImage,
        TransformBlock,
    )

    answers = []
    for member in members:
        preprocess = member.preprocess

        def seen(path, preprocess=preprocess):  # no types: fastai dispatches on annotations
            """The members' own crop, so that the answers can be compared."""
            return PILImage.create(preprocess.geometry.apply(np.asarray(Image.open(path).convert("RGB"))))

        block = DataBlock(
            blocks=(TransformBlock(type_tfms=[seen], batch_tfms=[IntToFloatTensor]), CategoryBlock(vocab=["a"])),
            get_y=lambda _: "a", batch_tfms=[Normalize.from_stats(preprocess.mean, preprocess.std)],
            splitter=lambda items: ([0], [0]),
        )  # fmt: skip
        loaders = block.dataloaders(list(paths), bs=64, num_workers=2)
        network = member.network.to(memory_format=torch.contiguous_format)
        learner = Learner(loaders, network, loss_func=torch.nn.CrossEntropyLoss())
        with learner.no_bar(), learner.no_logging():
            outputs, _ = learner.get_preds(dl=loaders.test_dl(list(paths), num_workers=2), act=torch.nn.Identity())
        answers.append(member.head.probabilities(outputs).numpy())
        network.to(memory_format=torch.channels_last)
    return answers


def main() -> None:
    """Prints a line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    workspace = Workspace(options.workspace)
    predictor = open_predictor(workspace, workspace.ensemble(), "cpu")
    paths = find_photos([options.photos])[: options.count]
    with tempfile.TemporaryDirectory() as scratch:
        exports = Exports(Path(scratch))
        runtime = predictor.runtime
        exports.make(runtime.splits)
        on_onnx = predictor.on(open_runners(runtime.splits, Engine("onnx"), exports.path, "cpu", runtime.threads))
        things: dict[str, Callable[[], object]] = {
            "orch, torch": lambda: list(predictor.predict(paths)),
            "orch, onnx": lambda: list(on_onnx.predict(paths)),
            "naive loop": lambda: naive_answers(predictor.members, "cpu", paths),
            "timm": lambda: by_timm(predictor.members, paths),
        }
        try:
            import fastai  # noqa: F401  # only to see whether it is there

            things["fastai"] = lambda: by_fastai(predictor.members, paths)
            naive = naive_answers(predictor.members, "cpu", paths)
            theirs = by_fastai(predictor.members, paths)
            ours = naive.probabilities
            print(
                f"fastai's answers differ by up to {max(np.abs(a - b).max() for a, b in zip(theirs, ours, strict=True)):.1e}"
            )
        except ImportError:
            print("fastai is not installed: left out")
        timings = in_turn(things, options.rounds, len(paths))
    for name, timing in timings.items():
        times = ratio(timing, timings["orch, torch"])
        print(
            f"{name:<14} {timing.rate:7.1f} photos/s   {times:5.2f} times the seconds of orch on torch   {timing.peak_mb:,.0f} MB"
        )


if __name__ == "__main__":
    main()

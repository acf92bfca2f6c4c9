"""Photos in, predictions out: each photo is decoded once, prepared once per geometry, seen by every member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from orchestrator.data.preprocessing import Geometry, Preprocess, decode
from orchestrator.ensemble.voting import Fused, Strategy, fuse
from orchestrator.errors import PhotoError, Problem, WeightsError, WorkspaceError
from orchestrator.labels import CLASSES, TASKS
from orchestrator.training.backbones import create
from orchestrator.training.checkpoints import CARD, WEIGHTS, load_weights, read_card
from orchestrator.training.devices import autocast, keep_freed_memory
from orchestrator.training.heads import Head, head_from_dict

__all__ = ["Batch", "MemberFiles", "Predictor"]

BATCH = 64


@dataclass(frozen=True)
class MemberFiles:
    """Where a member's files are.

    Attributes:
        folder: holds the card and the weights.
        sha256: of the weights, as the ensemble recorded it; empty trusts the card.
    """

    folder: Path
    sha256: str = ""


@dataclass(frozen=True)
class Member:
    """One loaded member."""

    folder: Path
    task: str
    network: nn.Module
    head: Head
    preprocess: Preprocess
    precision: str


@dataclass(frozen=True)
class Batch:
    """Answers for a stretch of photos.

    Attributes:
        paths: the photos that were read, in order.
        fused: their votes and labels; None when no photo of the stretch could be read.
        failed: photos that could not be read, with the reason.
        order: for every photo of the stretch, its row in `fused`, or -1 when it failed.
    """

    paths: list[Path]
    fused: Fused | None
    failed: list[tuple[Path, str]]
    order: list[int]


class Predictor:
    """The members of an ensemble, loaded and ready.

    Args:
        members: task -> its members' files; all three tasks.
        strategy: how members of a task vote.
        device: `cpu`, `cuda` or `cuda:N`.
        loaded: called with (members loaded, members in all).

    Raises:
        WorkspaceError: files that are missing, not those that were written, or do not fit their card's network; all at once.
    """

    def __init__(
        self,
        members: Mapping[str, Sequence[MemberFiles]],
        strategy: Strategy,
        device: str = "cpu",
        loaded: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        keep_freed_memory()
        self.strategy, self.device = strategy, device
        self.members: list[Member] = []
        problems: list[Problem] = []
        files = [(task, one) for task in TASKS for one in members[task]]
        for number, (task, one) in enumerate(files, start=1):
            try:
                self.members.append(_load(task, one, device))
            except (WorkspaceError, WeightsError) as error:
                where, what = error.message.split(": ", 1)
                problems.append(Problem(where, what))
            loaded(number, len(files))
        if problems:
            raise WorkspaceError(f"{len(problems)} of the ensemble's {len(files)} members cannot be used:", problems)
        self.geometries = list(dict.fromkeys(member.preprocess.geometry for member in self.members))

    def prepare(self, photo: NDArray[np.uint8]) -> dict[Geometry, NDArray[np.uint8]]:
        """One decoded photo at every geometry that some member needs."""
        return {geometry: geometry.apply(photo) for geometry in self.geometries}

    def probabilities(
        self, prepared: Sequence[Mapping[Geometry, NDArray[np.uint8]]]
    ) -> dict[str, list[NDArray[np.float32]]]:
        """Every member's class probabilities for prepared photos: task -> M arrays (n, C).

        Raises:
            WorkspaceError: a member answers with what is no number.
        """
        answers: dict[str, list[NDArray[np.float32]]] = {task: [] for task in TASKS}
        batches = {
            geometry: torch.from_numpy(np.stack([one[geometry] for one in prepared])).to(self.device)
            for geometry in self.geometries
        }
        inputs: dict[Preprocess, torch.Tensor] = {}
        with torch.inference_mode():
            for member in self.members:
                if member.preprocess not in inputs:
                    inputs[member.preprocess] = member.preprocess.normalise(batches[member.preprocess.geometry])
                with autocast(member.precision, self.device):
                    outputs = member.network(inputs[member.preprocess])
                found = member.head.probabilities(outputs).cpu().numpy()
                if not np.isfinite(found).all():
                    raise WorkspaceError(
                        f"{member.folder}: this member's answers are no numbers. Retrain that fold; if it was trained in fp16, "
                        "with precision = bf16 or fp32."
                    )
                answers[member.task].append(found)
        return answers

    def predict(self, paths: Sequence[Path], skip_unreadable: bool = False, batch: int = BATCH) -> Iterator[Batch]:
        """Answers for files, a batch at a time, in order; the next batch is decoded meanwhile.

        Args:
            paths: photos.
            skip_unreadable: report photos that cannot be read in `failed` instead of raising.
            batch: photos at a time; bounds the memory.

        Raises:
            PhotoError: a photo cannot be read, and `skip_unreadable` is off.
        """
        cv2.setNumThreads(1)
        parts = [paths[start : start + batch] for start in range(0, len(paths), batch)]
        with ThreadPoolExecutor(2) as pool:
            ahead: list[list[Future[dict[Geometry, NDArray[np.uint8]] | str]]] = []
            for number, part in enumerate(parts):
                while len(ahead) < 2 and number + len(ahead) < len(parts):
                    ahead.append([pool.submit(self.read, path) for path in parts[number + len(ahead)]])
                results = [future.result() for future in ahead.pop(0)]
                failed = [(path, one) for path, one in zip(part, results, strict=True) if isinstance(one, str)]
                if failed and not skip_unreadable:
                    rest = [path for later in parts[number + 1 :] for path in later]
                    answers = zip(rest, pool.map(self.read, rest), strict=True)
                    failed += [(path, one) for path, one in answers if isinstance(one, str)]
                    raise PhotoError(
                        f"{len(failed)} of {len(paths)} photos cannot be read; with --on-error mark their rows stay empty.",
                        [Problem(str(path), reason) for path, reason in failed],
                    )
                yield self._answer(list(part), results, failed)

    def read(self, path: Path) -> dict[Geometry, NDArray[np.uint8]] | str:
        """One file at every geometry, or why it cannot be read."""
        try:
            return self.prepare(decode(path))
        except PhotoError as error:
            return error.message.removeprefix(f"{path}: ")

    def _answer(
        self,
        part: list[Path],
        results: Sequence[dict[Geometry, NDArray[np.uint8]] | str],
        failed: list[tuple[Path, str]],
    ) -> Batch:
        prepared = [one for one in results if not isinstance(one, str)]
        read = [path for path, one in zip(part, results, strict=True) if not isinstance(one, str)]
        places = iter(range(len(prepared)))
        order = [-1 if isinstance(one, str) else next(places) for one in results]
        fused = next(fuse(self.probabilities(prepared), self.strategy)) if prepared else None
        return Batch(read, fused, failed, order)


def _load(task: str, files: MemberFiles, device: str) -> Member:
    card = read_card(files.folder)
    if card["task"] != task or tuple(card["classes"]) != CLASSES[task]:
        raise WorkspaceError(
            f"{files.folder / CARD}: a member for {card['task']} with the classes {', '.join(card['classes'])}; "
            f"needed: {task} with {', '.join(CLASSES[task])}."
        )
    if not timm.is_model(card["backbone"].split(".")[0]):
        raise WorkspaceError(
            f"{files.folder / CARD}: its backbone '{card['backbone']}' is unknown to timm {timm.__version__}; it was trained "
            f"with timm {card.get('versions', {}).get('timm', '?')}. Install that version."
        )
    head = head_from_dict(card["head"])
    preprocess = Preprocess.from_dict(card["preprocess"])
    network = create(card["backbone"], head.outputs, geometry=preprocess.geometry)
    load_weights(files.folder / WEIGHTS, network, files.sha256 or card["sha256"][WEIGHTS])
    network.requires_grad_(False)
    return Member(
        files.folder,
        task,
        network.to(device).eval(),
        head,
        preprocess,
        card["recipe"]["precision"],
    )

"""The files of a member's folder, and the card that describes the member. Reads only files: no network, no table.

    weights.safetensors     the best epoch's weights
    held_out.parquet        probabilities of every photo of the held-out people (none without a plan)
    member.json             the card, written last: a folder with a card is complete
    history.json            for users: one entry per epoch, written as training runs; the card holds it too
    checkpoint.safetensors  while training: network, optimiser and counters after the last whole epoch
    best-N.safetensors      while training: the best epoch's weights and held-out probabilities
    progress.json           while training: for displays only

A card's id is the identity of its member, a digest of all that the weights depend on: it detects the card, or the
checkpoint, of another run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.commands import orch
from orchestrator.core.epochs import History, MemberScores, TrainedEpoch
from orchestrator.core.files import digest_of
from orchestrator.core.sealed import check_file, damaged_error, is_there, read_sealed, write_sealed
from orchestrator.core.typed import check_types

__all__ = [
    "CARD", "CHECKPOINT", "HELD_OUT", "HISTORY", "LOCK", "PROGRESS", "WEIGHTS", "MemberCard", "Origin", "ScoredOn", "TrainedOn",
    "best_file", "check_files", "check_identity", "history_of", "missing_file", "retrain_advice",
]  # fmt: skip

CARD_FORMAT = 3
KIND = "member"
WEIGHTS = "weights.safetensors"
HELD_OUT = "held_out.parquet"
HISTORY = "history.json"
CARD = "member.json"
CHECKPOINT = "checkpoint.safetensors"
PROGRESS = "progress.json"
LOCK = "member.lock"


def best_file(epoch: int | str) -> str:
    """The file of the best epoch so far; the checkpoint says which epoch that is. `*` gives a pattern of all of them."""
    return f"best-{epoch}.safetensors"


@dataclass(frozen=True)
class Origin:
    """What a member comes from: its run, plan, data and versions.

    Attributes:
        run: id of the run that trained it.
        plan_digest: digest of the fold plan; None without one.
        data_fingerprint: fingerprint of photos and labels.
        extra_fingerprint: fingerprint of the extra photos; None without any.
        versions: package -> version.
        record: record of the run at that time, from which `orch workspace repair` restores a lost one.
    """

    run: str
    plan_digest: str | None
    data_fingerprint: str
    extra_fingerprint: str | None
    versions: Mapping[str, str]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ScoredOn:
    """What a member was scored on: nothing without a held-out fold.

    Attributes:
        photos: number of photos.
        people: number of people on them.
    """

    photos: int
    people: int


@dataclass(frozen=True)
class TrainedOn:
    """What a member was trained on.

    Attributes:
        photos: number of photos, extra ones included.
        people: number of people on them.
        extra: number of extra photos.
    """

    photos: int
    people: int
    extra: int


@dataclass(frozen=True)
class MemberCard(Origin):
    """What `member.json` holds.

    Attributes:
        id: the member's identity (`Ingredients.member_id`).
        task: task of its specialist, or `joint`.
        fold: held-out fold; None: no fold.
        classes: class names in code order.
        backbone: timm's name of the backbone.
        pooling: pooling of the features; empty: the backbone's own.
        views: views of each photo that are averaged together with the photo itself.
        parameters: number of parameters, frozen ones included.
        head: meaning of its outputs, for `heads.head_from_dict`.
        preprocess: conversion from a decoded photo to the network's input, for `Preprocess.from_dict`.
        recipe: all settings of the recipe.
        seed: seed of the training.
        initial_weights_sha256: sha256 of its initial weights; empty: random weights.
        train: what it was trained on.
        held_out: what it was scored on.
        photos_per_epoch: number of photos that an epoch trained on.
        epochs: number of epochs trained.
        best_epoch: epoch that the weights are from, counted from 1.
        scores: scores on the held-out photos; None without a held-out fold.
        confusion: counts, true class by predicted class; empty without a held-out fold.
        history: its trained epochs.
        seconds: wall-clock time of its training.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads.
        sha256: file beside the card -> its hash.
    """

    id: str
    task: str
    fold: int | None
    classes: tuple[str, ...]
    backbone: str
    pooling: str
    views: tuple[str, ...]
    parameters: int
    head: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seed: int
    initial_weights_sha256: str
    train: TrainedOn
    held_out: ScoredOn
    photos_per_epoch: int
    epochs: int
    best_epoch: int
    scores: MemberScores | None
    confusion: Sequence[Sequence[int]]
    history: History
    seconds: float
    device: str
    threads: int
    sha256: Mapping[str, str]

    @property
    def function(self) -> str:
        """Digest of the function that the member computes: members with equal digests give equal answers."""
        parts = (
            self.task,
            self.fold,
            self.classes,
            self.backbone,
            self.pooling,
            self.views,
            self.head,
            self.preprocess,
        )
        return digest_of([*parts, self.precision, self.sha256[WEIGHTS]])

    @property
    def precision(self) -> str:
        """The precision that the member was trained in: `fp32`, `bf16` or `fp16`."""
        return str(self.recipe["precision"])

    def save(self, folder: Path) -> None:
        """Writes the card into the member's folder: from now on the member is complete."""
        values = {
            **asdict(self),
            "scores": asdict(self.scores) if self.scores else {},
            "history": [epoch.as_dict() for epoch in self.history],
        }
        write_sealed(folder / CARD, KIND, values.pop("id"), CARD_FORMAT, values)

    @classmethod
    def load(cls, folder: Path) -> MemberCard:
        """Reads the card of the member in a folder.

        Raises:
            DamagedError: the card is missing, damaged, or of another format.
        """
        way_out = retrain_advice(folder)
        value = read_sealed(folder / CARD, KIND, None, CARD_FORMAT, way_out)
        try:
            typed = {
                "classes": tuple(value["classes"]),
                "views": tuple(value["views"]),
                "train": TrainedOn(**value["train"]),
                "held_out": ScoredOn(**value["held_out"]),
                "scores": MemberScores(**value["scores"]) if value["scores"] else None,
                "history": tuple(map(TrainedEpoch.from_dict, value["history"])),
            }
            card = cls(**{**value, **typed})
            check_types(card)
            return card
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged_error(folder / CARD, f"not the card of a member ({error})", way_out) from None


def retrain_advice(folder: Path) -> str:
    """The way out for damaged files of a member, to complete a sentence."""
    run = folder.parent
    return f"run `{orch('resume', run.name, workspace=run.parent)}`, which trains this fold again."


def missing_file(folder: Path, weights: bool = True) -> Path | None:
    """A member's card, or its weights, if it is not there; whether they are as written shows when they are read.

    Args:
        folder: the member's folder.
        weights: whether weights are looked for.
    """
    files = (folder / CARD, folder / WEIGHTS) if weights else (folder / CARD,)
    return next((path for path in files if not is_there(path)), None)


def check_files(folder: Path, card: MemberCard) -> None:
    """Checks the files of a member against the hashes in its card.

    Raises:
        DamagedError: a file is missing or not the one that was written.
    """
    for name, digest in card.sha256.items():
        check_file(folder / name, digest, retrain_advice(folder))


def history_of(folder: Path) -> History:
    """A member's trained epochs: those in its card if it is complete, else those written so far.

    Raises:
        DamagedError: the card is damaged.
    """
    if (folder / CARD).is_file():
        return MemberCard.load(folder).history
    try:
        history = tuple(map(TrainedEpoch.from_dict, json.loads((folder / HISTORY).read_text(encoding="utf-8"))))
        for epoch in history:
            check_types(epoch)
        return history
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()  # this file is only for users while training runs: the checkpoint holds the history too


def check_identity(folder: Path, identity: str, expected: str) -> None:
    """Refuses a member whose identity is not the one that its run implies.

    Raises:
        DamagedError: the identities differ; names the card.
    """
    if identity != expected:
        fault = f"the card of a member of another run or fold (identity {identity[:12]}, expected {expected[:12]})"
        raise damaged_error(folder / CARD, fault, retrain_advice(folder))

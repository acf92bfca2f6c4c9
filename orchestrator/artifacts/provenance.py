"""What a run came from, as its record holds it: data, initial weights, machine and code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Environment", "ExtraPhotos", "Hardware", "TrainingData", "WeightsSource"]


@dataclass(frozen=True)
class ExtraPhotos:
    """Extra photos that a run was trained on.

    Attributes:
        sources: their tables.
        fingerprint: digest of photos and labels.
        photos: number of photos.
    """

    sources: tuple[str, ...]
    fingerprint: str
    photos: int


@dataclass(frozen=True)
class TrainingData:
    """What a run was trained from.

    Attributes:
        source: the folder or the manifest.
        layout: `contest` or `manifest`.
        columns: our name of a column -> the manifest's name.
        distinct_people: whether names that differ only in spelling are different people.
        fingerprint: digest of photos, people, and those labels that it has learned from.
        photo_set: digest of photos and people, whatever their labels.
        table: digest of photos, people and all labels: the name of the table that the workspace keeps.
        read: when it was read, local time, ISO 8601: a copy of a run, as with views, has its run's.
        photos: number of photos.
        people: number of people.
        extra: its extra photos; None without any.
    """

    source: str
    layout: str
    columns: Mapping[str, str]
    distinct_people: bool
    fingerprint: str
    photo_set: str
    table: str
    read: str
    photos: int
    people: int
    extra: ExtraPhotos | None

    @property
    def extra_tables(self) -> list[Path]:
        """The tables of its extra photos; empty without any."""
        return [] if self.extra is None else [Path(source) for source in self.extra.sources]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TrainingData:
        """What a run was trained on, from the JSON values of its record."""
        extra = value["extra"]
        extra_photos = None if extra is None else ExtraPhotos(**{**extra, "sources": tuple(extra["sources"])})
        return cls(**{**value, "extra": extra_photos})


@dataclass(frozen=True)
class WeightsSource:
    """Where the initial weights of a run came from.

    Attributes:
        source: `packaged`, `hub`, `none`, or a file.
        sha256: hash of the weights; empty for random ones.
    """

    source: str
    sha256: str


@dataclass(frozen=True)
class Hardware:
    """The machine that a run was trained on.

    Attributes:
        processor: its name.
        cores: number of cores.
        system: the operating system.
        gpu: name of the GPU; None where none is used.
    """

    processor: str
    cores: int
    system: str
    gpu: str | None = None


@dataclass(frozen=True)
class Environment:
    """Where a run was trained.

    Attributes:
        versions: package -> version.
        hardware: the machine.
        git: revision of the folder in which the command ran; None outside a repository.
        git_of_orchestrator: revision of orchestrator's own code; None outside a repository.
    """

    versions: Mapping[str, str]
    hardware: Hardware
    git: str | None
    git_of_orchestrator: str | None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Environment:
        """An environment from JSON values."""
        return cls(**{**value, "hardware": Hardware(**value["hardware"])})

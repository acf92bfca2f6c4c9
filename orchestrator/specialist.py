"""What a folder in `models/` must provide: a `Specialist`, and recipes as TOML.

A specialist is what is true of one task; a recipe is every number of one way to train it. Both are data: what differs
between the tasks is a value in `models/<task>/`, everything common exists once in `orchestrator/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.data.augmentation import Augment
from orchestrator.data.files import digest_of
from orchestrator.data.preprocessing import Geometry
from orchestrator.data.sampling import Draw, Sampling
from orchestrator.errors import nearest

__all__ = ["Recipe", "Scale", "Specialist", "loss_terms"]

Codes = NDArray[np.int64]


SUMMED, ALONE = ("cross_entropy", "focal", "f1"), ("corn", "soft_age")
"""Losses on class outputs, which can be summed, and those whose outputs mean something else."""


def loss_terms(text: str) -> dict[str, float]:
    """The terms of a loss: `0.4 f1 + 0.6 focal` is {"f1": 0.4, "focal": 0.6}.

    Raises:
        ValueError: an unknown name, a weight that is no positive number, a name twice, or a sum with one that stands alone.
    """
    allowed = (*SUMMED, *ALONE)
    terms: dict[str, float] = {}
    for part in text.split("+"):
        *weight, name = part.split() or [""]
        if name not in allowed:
            raise ValueError(f"'{name}' is no loss; allowed: {', '.join(allowed)}.{nearest(name, allowed)}")
        if name in terms:
            raise ValueError(f"{name} stands twice; add its weights up")
        try:
            terms[name] = float(" ".join(weight)) if weight else 1.0
        except ValueError:
            terms[name] = 0.0
        if not 0 < terms[name] < float("inf"):
            raise ValueError(f"'{part.strip()}': write a positive weight before {name}, as in 0.4 f1 + 0.6 focal")
    alone = [name for name in ALONE if name in terms]
    if alone and terms != {alone[0]: 1.0}:
        raise ValueError(f"{alone[0]} stands alone, without weights or other terms; sums are of {', '.join(SUMMED)}")
    return terms


class Recipe(BaseModel):
    """Every number of one way to train a specialist. `orch recipes show` prints each with its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = Field("", description="one line on what the recipe is for")

    backbone: str = Field(description="any timm model name")
    weights: str = Field(
        "hub",
        description="initial weights: hub, packaged (a pip package), none, or a .safetensors / .pth file",
    )
    train: Literal["network", "head"] = Field(
        "network",
        description="network, or head: the backbone stays as it comes, its features are computed once for all folds and tasks",
    )
    frozen_stages: int = Field(0, ge=0, description="first stages kept as they come (the stem is the first)")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth")

    height: int = Field(ge=16, le=2048, description="input rows, pixels")
    width: int = Field(ge=16, le=2048, description="input columns, pixels")
    crop: float = Field(1.0, gt=0, le=1, description="crop box as a share of the largest box of the input's shape")
    anchor: float = Field(0.5, ge=0, le=1, description="where the crop box stands: 0 top, 0.5 centre, 1 bottom")

    sampling: Sampling = Field(description="per_person: one photo a person and epoch; per_photo: every photo")
    draw_by: Draw = Field(
        "photo",
        description="per_person draws one of a person's photos (photo), or a mask state of theirs first (mask); else no matter",
    )
    augment: Augment = Field(default_factory=Augment, description="random changes of training photos")

    mixup: float = Field(
        0.0, ge=0, le=10, description="blend photos in pairs, shares from Beta(mixup, mixup) (0.3 is mild); 0: never"
    )

    loss: str = Field(
        "cross_entropy",
        description="cross_entropy, focal, f1 or a weighted sum of them (0.4 f1 + 0.6 focal); corn: ordered classes; "
        "soft_age: a distribution over years, summed into bands",
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="focal: how much less counts what is known well; 0: not at all"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of a class in the loss: 1 / share ^ class_balance; 0: all photos weigh the same",
    )
    soft_age_sigma: float = Field(3.0, gt=0, le=20, description="soft_age: standard deviation of the target, years")
    train_border: int | None = Field(
        None,
        description="last age border while training (the contest's 58 rule); scores keep the true border",
    )

    optimiser: Literal["adamw", "adam", "nadamw", "sgd", "lion"] = Field(
        "adamw", description="the optimiser, from timm"
    )
    lr: float = Field(1e-3, gt=0, le=10, description="peak learning rate")
    backbone_lr_scale: float = Field(
        1.0, ge=0, le=10, description="the backbone's learning rate, relative to the head's"
    )
    weight_decay: float = Field(0.02, ge=0, le=1, description="weight decay; never on biases and norms")
    warmup: float = Field(0.15, ge=0, lt=1, description="share of all steps over which the rate rises to its peak")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: no clipping")
    epochs: int = Field(ge=1, le=10_000, description="passes over the sampled photos")
    batch_size: int = Field(32, ge=2, le=8192, description="photos a step")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 or fp16 on a GPU, fp32 on a CPU (bf16 slows depthwise nets down there)",
    )
    evaluate_every: int = Field(1, ge=1, description="epochs between scores on the held-out people")
    patience: int = Field(0, ge=0, description="scores without a new best before training stops; 0: never stops early")
    workers: int = Field(-1, ge=-1, le=256, description="loading processes a job; -1: 0 on a CPU, 8 on a GPU")

    @field_validator("loss")
    @classmethod
    def _plain(cls, text: str) -> str:
        """The one spelling of a loss, so that equal losses have equal digests."""
        terms = loss_terms(text)
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in terms.items())

    @property
    def geometry(self) -> Geometry:
        """Crop and size of the network's input."""
        return Geometry(self.height, self.width, self.crop, self.anchor)

    def digest(self) -> str:
        """sha256 (hex) of everything that changes the result; `about` and `workers` do not."""
        return digest_of(self.model_dump(mode="json", exclude={"about", "workers"}))


@dataclass(frozen=True)
class Scale:
    """Ordered classes that are cut from a number at half-open borders.

    Attributes:
        column: the number's column.
        borders: first value of each class but the lowest: (30, 60) puts 29 below, 30 and 59 between, 60 above.
        low: smallest value that a distribution over the scale reaches.
        high: its largest value.
    """

    column: str
    borders: tuple[int, ...]
    low: int = 0
    high: int = 100

    def classes(self, values: NDArray[np.floating[Any]], borders: tuple[int, ...] | None = None) -> Codes:
        """Class codes of values; any shape, int64 out."""
        return np.asarray(np.digitize(values, borders or self.borders), dtype=np.int64)


@dataclass(frozen=True)
class Specialist:
    """What is true of one task.

    Attributes:
        name: the task.
        classes: class names in code order.
        columns: columns of the photo table that the label needs.
        label: the truth: class codes (N,) int64 of a table of photos. Nothing moves it.
        recipes: the folder of this specialist's recipes.
        defaults: recipe values that come from the task itself (sampling, crop, augmentation).
        scale: the number behind ordered classes, where there is one.
    """

    name: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    label: Callable[[pd.DataFrame], Codes]
    recipes: Path
    defaults: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale | None = None

    def training_label(self, table: pd.DataFrame, recipe: Recipe) -> Codes:
        """The classes to train on: the truth, or with the last border moved to `recipe.train_border`."""
        if recipe.train_border is None or self.scale is None:
            return self.label(table)
        values = table[self.scale.column].to_numpy(dtype=float)
        return self.scale.classes(values, (*self.scale.borders[:-1], recipe.train_border))

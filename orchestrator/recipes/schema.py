"""A recipe: every number of one way to train a specialist, as a checked value."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.core.errors import WeightsError, nearest
from orchestrator.core.files import digest_of
from orchestrator.data.augmentation import Augment
from orchestrator.data.geometry import DETECTOR, Geometry
from orchestrator.data.sampling import Draw, Sampling
from orchestrator.data.spelling import clean
from orchestrator.recipes.names import View

__all__ = [
    "OF_NETWORK", "OF_PROBABILITIES", "WEIGHTS_WORDS", "ZOOM", "Optimiser", "Recipe", "Schedule", "check_weights", "loss_terms",
]  # fmt: skip

Optimiser = Literal[
    "adabelief", "adam", "adamp", "adamw", "adan", "adopt", "lamb", "laprop", "lion", "madgrad", "momentum", "nadam", "nadamw",
    "radam", "rmsproptf", "sgd", "sgdp",
]  # fmt: skip
"""Optimisers under timm's names; a test trains with each of them, kills the training and resumes it."""

ZOOM = 0.9
"""Share of height and width that the views `zoom` and `zoom_flip` show."""

Schedule = Literal["cosine", "one_cycle", "step", "plateau", "constant"]
SUMMED, ALONE = ("cross_entropy", "focal", "f1"), ("corn", "soft_age")
"""Losses on class outputs, which can be summed, and those whose outputs mean something else."""

SHORT = {"ce": "cross_entropy"}
"""Aliases of losses."""


def loss_terms(text: str) -> dict[str, float]:
    """The terms of a loss: `0.4 f1 + 0.6 focal` is {"f1": 0.4, "focal": 0.6}.

    Raises:
        ValueError: an unknown name, a weight that is not positive, a repeated name, or a sum with a loss of `ALONE`.
    """
    allowed = (*SUMMED, *ALONE)
    terms: dict[str, float] = {}
    for part in text.split("+"):
        *weight, name = part.split() or [""]
        name = SHORT.get(name, name)
        if name not in allowed:
            raise ValueError(f"'{name}' is not a loss; allowed: {', '.join(allowed)}.{nearest(name, allowed)}")
        if name in terms:
            raise ValueError(f"{name} appears twice; add its weights up")
        try:
            terms[name] = float(" ".join(weight)) if weight else 1.0
        except ValueError:
            terms[name] = 0.0
        if not 0 < terms[name] < float("inf"):
            raise ValueError(f"'{part.strip()}': write a positive weight before {name}, as in 0.4 f1 + 0.6 focal")
    unsummable = [name for name in ALONE if name in terms]
    if unsummable and terms != {unsummable[0]: 1.0}:
        raise ValueError(f"{unsummable[0]} takes no weight and no other terms; sums are of {', '.join(SUMMED)}")
    return terms


WEIGHTS_WORDS = ("hub", "packaged", "none")
"""Allowed initial weights, other than a file."""


def check_weights(source: str) -> None:
    """Refuses initial weights that are neither in `WEIGHTS_WORDS` nor an existing file.

    Raises:
        WeightsError: not an allowed value, or no such file.
    """
    if source not in WEIGHTS_WORDS and not Path(source).is_file():
        raise WeightsError(
            f"weights = '{source}': no such file; allowed: {', '.join(WEIGHTS_WORDS)}, or a .safetensors / .pth file."
            f"{nearest(source, WEIGHTS_WORDS)}"
        )


OF_NETWORK = frozenset({
    "backbone", "weights", "pooling", "train", "frozen_stages", "drop_rate", "drop_path_rate", "height", "width",
    "small_epochs", "small_size", "sam", "checkpointing", "precision", "workers",
})  # fmt: skip
"""Settings that only torch can judge."""

OF_PROBABILITIES = frozenset({
    "sampling", "draw_by", "sample_balance", "sample_factor", "extra_factor", "mixup", "cutmix", "loss", "focal_gamma",
    "label_smoothing", "class_balance", "soft_age_sigma", "train_border",
})  # fmt: skip
"""Settings that change what a member's probabilities mean, so that log losses of two values do not compare."""


class Recipe(BaseModel):
    """Every number of one way to train a specialist. `orch recipes show` prints each with its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    about: str = Field("", description="one line on what the recipe is for")

    backbone: str = Field(description="any timm model name")
    weights: str = Field(
        "hub", description="initial weights: hub, packaged (a pip package), none, or a .safetensors / .pth file"
    )
    pooling: str = Field(
        "",
        description="how the last map becomes features: avg, max, avgmax, catavgmax ...; empty: as the backbone does",
    )
    train: Literal["network", "head"] = Field(
        "network",
        description="network, or head: the backbone is fixed, its features are computed once for all folds and tasks",
    )
    frozen_stages: int = Field(0, ge=0, description="number of first stages that are not trained (the stem counts)")
    unfreeze_after: int = Field(0, ge=0, description="epochs after which the frozen stages learn too; 0: never")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth")

    height: int = Field(ge=16, le=2048, description="input rows, pixels")
    width: int = Field(ge=16, le=2048, description="input columns, pixels")
    crop: float = Field(1.0, gt=0, le=1, description="crop box as a share of the largest box of the input's shape")
    anchor: float = Field(0.5, ge=0, le=1, description="where the crop box stands: 0 top, 0.5 centre, 1 bottom")
    face: float = Field(
        0.0,
        ge=0,
        le=2,
        description="crop around the detected face, with this share of its height as margin (0.3); crop and anchor "
        "then apply to photos without a face (anchor = 1: lower centre); 0: no face detection",
    )
    small_epochs: int = Field(0, ge=0, description="first epochs on shrunken photos; scores are always on whole ones")
    small_size: float = Field(0.5, ge=0.25, lt=1, description="small_epochs: size, as a share of height and width")

    views: tuple[View, ...] = Field(
        (),
        description="views whose answers are averaged with the photo's own, in scores and predictions: flip, zoom, zoom_flip",
    )

    sampling: Sampling = Field(description="per_person: one photo a person and epoch; per_photo: every photo")
    draw_by: Draw = Field(
        "photo",
        description="per_person: draw one of a person's photos (photo), or first one of their mask states (mask)",
    )
    sample_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a class is drawn share ^ -sample_balance times as often; 1: all classes equally often",
    )
    sample_factor: dict[str, float] = Field(
        default_factory=dict,
        description="class -> how many times as often its photos are drawn: 2 over-samples, 0.5 drops half",
    )
    extra_factor: float = Field(
        1.0, gt=0, le=10, description="how many times as often photos of --extra are drawn as a photo of the data"
    )
    drop_people: tuple[str, ...] = Field((), description="people that are never trained on, but are still scored")
    augment: Augment = Field(default_factory=Augment, description="random changes of training photos")

    mixup: float = Field(
        0.0, ge=0, le=10, description="blend photos in pairs, shares from Beta(mixup, mixup) (0.3 is mild); 0: never"
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="paste a box of another photo, its area from Beta(cutmix, cutmix); with mixup: one of the two",
    )

    loss: str = Field(
        "cross_entropy",
        description="cross_entropy, focal, f1 or a weighted sum of them (0.4 f1 + 0.6 focal); corn: ordered classes; "
        "soft_age: a distribution over years, summed into bands",
    )
    focal_gamma: float = Field(
        2.0, ge=0, le=10, description="focal: how much less well-classified photos count; 0: not at all"
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
        None, description="last age border while training (the contest's 58 rule); scores keep the true border"
    )

    optimiser: Optimiser = Field("adamw", description="the optimiser, from timm; sgd has Nesterov's momentum of 0.9")
    sam: float = Field(
        0.0,
        ge=0,
        le=1,
        description="sharpness-aware minimisation: length of the uphill step (0.05); takes twice the time; 0: off",
    )
    lr: float = Field(1e-3, gt=0, le=10, description="peak learning rate")
    backbone_lr_scale: float = Field(
        1.0, ge=0, le=10, description="the backbone's learning rate, relative to the head's"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="each layer's learning rate, relative to the one after it (0.7 to 0.9 for transformers)",
    )
    weight_decay: float = Field(0.02, ge=0, le=1, description="weight decay; never on biases and norms")
    schedule: Schedule = Field(
        "cosine", description="how the rate falls after warm-up; one_cycle rises over `warmup` by a cosine too"
    )
    lr_factor: float = Field(0.5, gt=0, lt=1, description="step, plateau: factor on the rate at each fall")
    step_every: int = Field(1, ge=1, description="step: epochs between falls")
    plateau_patience: int = Field(1, ge=0, description="plateau: scores in a row without a new best that are tolerated")
    warmup: float = Field(0.15, ge=0, lt=1, description="share of all steps over which the rate rises to its peak")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: no clipping")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of a moving average of the weights, which then scores and predicts (0.99); 0: none",
    )
    epochs: int = Field(ge=1, le=10_000, description="passes over the sampled photos")
    batch_size: int = Field(32, ge=2, le=8192, description="photos per forward pass")
    accumulate: int = Field(
        1, ge=1, le=1024, description="forward passes per step: the effective batch is batch_size x accumulate"
    )
    checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, a third more time"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 or fp16 on a GPU, fp32 on a CPU (bf16 slows depthwise nets down there)"
    )
    evaluate_every: int = Field(1, ge=1, description="epochs between scores on the held-out people")
    patience: int = Field(0, ge=0, description="scores without a new best before training stops; 0: never stops early")
    workers: int = Field(-1, ge=-1, le=256, description="DataLoader workers per job; -1: 0 on a CPU, up to 8 on a GPU")

    @field_validator("loss")
    @classmethod
    def _plain(cls, text: str) -> str:
        """The one spelling of a loss, so that equal losses have equal digests."""
        terms = loss_terms(text)
        return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in terms.items())

    @field_validator("drop_people")
    @classmethod
    def _cleaned(cls, people: tuple[str, ...]) -> tuple[str, ...]:
        """Names as they are read from tables."""
        return tuple(dict.fromkeys(clean(person) for person in people))

    @field_validator("views")
    @classmethod
    def _once(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        """Each view once, sorted: their mean does not depend on the order."""
        return tuple(sorted(set(views)))

    @property
    def draws_by_mask(self) -> bool:
        """Whether an epoch's photo of a person is drawn by the states of the mask, so that their labels matter."""
        return self.sampling == "per_person" and self.draw_by == "mask"

    @property
    def geometry(self) -> Geometry:
        """Crop and size of the network's input."""
        return Geometry(
            self.height, self.width, self.crop, self.anchor, self.face, DETECTOR if self.face else ""
        )  # fmt: skip

    @property
    def small(self) -> tuple[int, int]:
        """Height and width of the first `small_epochs` epochs' photos, in pixels."""
        return max(1, round(self.height * self.small_size)), max(1, round(self.width * self.small_size))

    @property
    def chosen(self) -> list[str]:
        """The settings that are not at their defaults, as `lr` and `augment.flip`; those without a default count as chosen.

        `about` and `workers`, which change no result, are left out.
        """
        return [
            head + key
            for settings, head in ((self, ""), (self.augment, "augment."))
            for key, field in type(settings).model_fields.items()
            if key not in ("about", "workers", "augment")
            and getattr(settings, key) != field.get_default(call_default_factory=True)
        ]

    def digest(self) -> str:
        """sha256 (hex) of everything that changes the result; `about` and `workers` do not."""
        return digest_of(self.model_dump(mode="json", exclude={"about", "workers"}))

    def network_digest(self) -> str:
        """sha256 (hex) of the settings that only torch can judge: networks with the same one need one check."""
        return digest_of(self.model_dump(mode="json", include=set(OF_NETWORK)))

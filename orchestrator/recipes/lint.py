"""Problems of a recipe whose values are each allowed: settings that are ignored, contradictory, or harmful for faces.

Fatal problems are refused wherever a recipe is read; others are reported before training and by `orch recipes lint`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from orchestrator.core.errors import Problem, nearest
from orchestrator.recipes.schema import ZOOM, Recipe, loss_terms
from orchestrator.specialist import Specialist

__all__ = ["REFUSED", "lint"]

GEOMETRY = "height, width, crop and anchor are one geometry for training, scoring and prediction: it cannot differ between them."
UPRIGHT = "Faces are upright in all new photos; an upside-down face teaches nothing."
REFUSED = {
    **dict.fromkeys(("vertical_flip", "flip_vertical", "vflip"), UPRIGHT),
    **dict.fromkeys(
        ("train_height", "train_width", "train_crop", "test_height", "test_width", "test_crop", "eval_height", "eval_width",
         "eval_crop", "val_height", "val_width", "val_crop", "crop_pct"), GEOMETRY,
    ),
}  # fmt: skip
"""Keys that users expect but that are deliberately missing, each with the reason."""

SMALL_BATCH = 32  # below, soft macro F1 sees few photos of a rare class in a batch
FAR = 0.3
TURNED = 30  # degrees; no camera is held at such an angle


def lint(specialist: Specialist, recipe: Recipe) -> list[Problem]:
    """All problems of a recipe for a specialist; the `where` of each is the recipe's key."""
    return [*_ignored(recipe), *_impossible(specialist, recipe), *_harmful(specialist, recipe)]


def _is_set(recipe: Recipe, key: str) -> bool:
    return bool(getattr(recipe, key) != Recipe.model_fields[key].get_default(call_default_factory=True))


def _ignored(recipe: Recipe) -> Iterator[Problem]:
    """Settings that other settings make ineffective, which is hardly what the user intended."""
    terms = set(loss_terms(recipe.loss))
    scheduled = recipe.schedule in ("step", "plateau")
    ignores = f"loss = {recipe.loss} ignores it"
    for key, used, by in (
        ("label_smoothing", bool({"cross_entropy", "focal"} & terms), f"cross_entropy and focal; {ignores}"),
        ("focal_gamma", "focal" in terms, f"focal; {ignores}"),
        ("soft_age_sigma", "soft_age" in terms, f"soft_age; {ignores}"),
        ("lr_factor", scheduled, f"schedule = step and plateau; {recipe.schedule} ignores it"),
        ("step_every", recipe.schedule == "step", f"schedule = step; {recipe.schedule} ignores it"),
        ("plateau_patience", recipe.schedule == "plateau", f"schedule = plateau; {recipe.schedule} ignores it"),
        ("unfreeze_after", recipe.frozen_stages > 0, "frozen_stages, and this recipe freezes none"),
        ("small_size", recipe.small_epochs > 0, "small_epochs, and this recipe has none"),
    ):  # fmt: skip
        if _is_set(recipe, key) and not used:
            yield Problem(key, f"{key} = {getattr(recipe, key):g} is for {by}.", _leave(key))
    if recipe.train == "head":
        for key in (
            "frozen_stages", "drop_rate", "drop_path_rate", "backbone_lr_scale", "layer_decay", "small_epochs", "cutmix",
            "checkpointing", "views",
        ):  # fmt: skip
            if _is_set(recipe, key):
                what = f"{key} changes how a network trains, and train = head does not train the network."
                yield Problem(key, what, f"{_leave(key)[:-1]}, or --set train=network.")


def _leave(key: str) -> str:
    default: Any = Recipe.model_fields[key].default
    plain = "[]" if default == () else str(default).lower() if isinstance(default, bool) else f"{default:g}"
    return f"Use --set {key}={plain}."


def _impossible(specialist: Specialist, recipe: Recipe) -> Iterator[Problem]:
    """Settings that contradict each other or the specialist."""
    if recipe.train == "head" and recipe.weights == "none":
        what = "train = head needs a pretrained backbone, and weights = none gives a random one."
        yield Problem("weights", what, "Use --set weights=hub, packaged or a file, or --set train=network.")
    if recipe.layer_decay < 1 and recipe.backbone_lr_scale != 1:
        what = "layer_decay and backbone_lr_scale both set the backbone's learning rate."
        yield Problem("layer_decay", what, "Use --set backbone_lr_scale=1, or --set layer_decay=1.")
    for key in ("unfreeze_after", "small_epochs"):
        if getattr(recipe, key) >= recipe.epochs:
            what = f"{key} = {getattr(recipe, key)}; the recipe has {recipe.epochs} epochs, so at most {recipe.epochs - 1}."
            yield Problem(key, what)
    for name, factor in recipe.sample_factor.items():
        if name not in specialist.classes:
            what = f"sample_factor: '{name}' is not a class; allowed: {', '.join(specialist.classes)}."
            yield Problem("sample_factor", what + nearest(name, specialist.classes))
        elif not 0 < factor <= 100:
            yield Problem("sample_factor", f"sample_factor of '{name}' = {factor:g}; allowed: above 0, at most 100.")
    yield from _impossible_years(specialist, recipe)


def _impossible_years(specialist: Specialist, recipe: Recipe) -> Iterator[Problem]:
    """Settings on years that contradict each other or the specialist."""
    if specialist.scale is None:
        for key, used in (
            ("loss", recipe.loss in ("soft_age", "corn")),
            ("train_border", recipe.train_border is not None),
        ):
            if used:
                what = f"{key} = {getattr(recipe, key)} is for the age specialist, whose classes are cut from years."
                yield Problem(key, what)
        return
    scale = specialist.scale
    low = scale.borders[-2] if len(scale.borders) > 1 else scale.low
    if recipe.train_border is not None and not low < recipe.train_border <= scale.high:
        yield Problem("train_border", f"train_border = {recipe.train_border}; allowed: {low + 1} to {scale.high}.")
    if recipe.loss == "soft_age" and recipe.train_border is not None:
        what = "train_border moves a class border, and soft_age trains on exact years, which have none."
        yield Problem(
            "train_border", what, f"Use --set {specialist.name}.loss=cross_entropy with it, or leave train_border out."
        )


def _harmful(specialist: Specialist, recipe: Recipe) -> Iterator[Problem]:
    """Settings that work and lose scores on faces."""
    if specialist.keeps is not None:
        top = (1 - recipe.crop) * recipe.anchor
        shows = f"crop = {recipe.crop:g} at anchor = {recipe.anchor:g}"
        yield from _cuts(
            specialist, recipe, "crop", shows, (top, top + recipe.crop), specialist.keeps, "a photo's height"
        )
    if specialist.keeps_of_face is not None and recipe.face:
        shown_rows, kept_rows = (-recipe.face, 1 + recipe.face), specialist.keeps_of_face
        yield from _cuts(
            specialist, recipe, "face", f"face = {recipe.face:g}", shown_rows, kept_rows, "the height of a face's box"
        )
    augment = recipe.augment
    for key, harms, why in (
        ("augment.rotate", augment.rotate > TURNED, f"new photos have no faces turned by more than {TURNED} degrees."),
        ("augment.shift", augment.shift > FAR, f"shifts by more than {FAR:g} of the side push faces out of the photo."),
        ("augment.grey", augment.grey > 0.5, "most training photos lose their colour, but new photos have colour."),
        ("augment.canny", augment.canny + augment.sobel > 0.5, "most training photos are edges, new ones are not."),
        ("augment.cutout", augment.cutout > 0 and specialist.keeps is not None,
         f"a blank box can hide what tells the {specialist.name} classes apart."),
        ("loss", "f1" in loss_terms(recipe.loss) and recipe.batch_size < SMALL_BATCH,
         f"f1 is computed over a batch, and one of {recipe.batch_size} photos has few of a rare class; {SMALL_BATCH} or more."),
        ("class_balance", recipe.class_balance > 0 and recipe.sample_balance > 0,
         "weights are computed after sampling, so class_balance does not correct again what sample_balance has corrected."),
    ):  # fmt: skip
        if harms:
            yield Problem(key, why, kind="harms", fatal=False)


def _cuts(
    specialist: Specialist,
    recipe: Recipe,
    key: str,
    shows: str,
    shown: tuple[float, float],
    keeps: tuple[float, float],
    of: str,
) -> Iterator[Problem]:
    """A crop that can remove rows which the specialist needs.

    Args:
        specialist: specialist of the recipe.
        recipe: recipe, whose augmentation and views act on the cropped photo.
        key: name of the crop's setting.
        shows: this setting and its value, as text.
        shown: (from, to) of the rows that the crop shows.
        keeps: (from, to) of the rows that it must show.
        of: unit of the rows, as text.
    """
    (top, bottom), span = shown, shown[1] - shown[0]
    if any("zoom" in view for view in recipe.views):
        edge = span * (1 - ZOOM) / 2
        if top + edge > keeps[0] or bottom - edge < keeps[1]:
            what = f"views: zoom shows {top + edge:.2f} to {bottom - edge:.2f} of {of}: it cuts away"
            yield Problem("views", f"{what} rows that tell the {specialist.name} classes apart.", "Leave zoom out.")
    rows = f"the rows from {keeps[0]:g} to {keeps[1]:g} of {of}, which tell the {specialist.name} classes apart"
    if top > keeps[0] or bottom < keeps[1]:
        what = f"{shows} shows {top:.2f} to {bottom:.2f}: it cuts away {rows}."
        yield Problem(key, what, "Use a larger crop, or another anchor." if key == "crop" else "Use a larger margin.")
        return
    augment = recipe.augment
    # The flattest random crop of the smallest area; then the furthest shift of the largest scale.
    kept_share = math.sqrt((1 - augment.resized_crop) * 0.9) if augment.resized_crop else 1.0
    shifted_share = 0.5 * (1 - 1 / (1 + augment.scale)) + augment.shift
    highest, lowest = top + span * kept_share * (1 - shifted_share), bottom - span * kept_share * (1 - shifted_share)
    if lowest > keeps[0] or highest < keeps[1]:
        what = f"augment: resized_crop, shift and scale together can cut away {rows}."
        yield Problem("augment.resized_crop", what, f"Lower them, or show more of the photo by {key}.")

"""Every setting says what it decides."""

from typing import get_args

from orchestrator.data.augmentation import Augment
from orchestrator.recipes.schema import Kind, Recipe, settings_of_kind


def test_every_setting_says_what_it_decides() -> None:
    of_kind = {kind: settings_of_kind(kind) for kind in get_args(Kind)}
    assert sum(map(len, of_kind.values())) == len(Recipe.model_fields) > 50
    assert {"backbone", "weights", "height", "precision"} <= of_kind["network"]
    told = {"loss", "train_border", "sampling", "draw_by", "extra_factor", "mixup"}
    assert told <= of_kind["probabilities"]
    assert of_kind["network"].isdisjoint(Augment.model_fields)  # words name settings by the last part of their keys

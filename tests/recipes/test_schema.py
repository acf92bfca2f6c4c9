"""Each setting of a recipe is known to be judged by torch, to change what probabilities mean, or to do neither."""

from typing import Any

from orchestrator.networks.backbones import check_backbone, load_state
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import OF_NETWORK, OF_PROBABILITIES, Recipe
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.features import check_head_alone
from tests.conftest import TINY

NEUTRAL = {
    "about", "unfreeze_after", "crop", "anchor", "face", "views", "drop_people", "augment", "optimiser", "lr",
    "backbone_lr_scale", "layer_decay", "weight_decay", "schedule", "lr_factor", "step_every", "plateau_patience",
    "warmup", "clip_norm", "ema", "epochs", "batch_size", "accumulate", "evaluate_every", "patience",
}  # fmt: skip


def test_every_setting_is_in_one_list() -> None:
    """A new one is decided upon: otherwise a wrong network is refused late, or a tuning compares what does not compare."""
    lists = (OF_NETWORK, OF_PROBABILITIES, NEUTRAL)
    assert sorted(name for names in lists for name in names) == sorted(Recipe.model_fields)


def test_a_network_depends_on_the_settings_of_networks_alone() -> None:
    """Recipes that differ in other settings share its check, and its initial weights."""
    read = set[str]()

    class Watched(Recipe):
        def __getattribute__(self, name: str) -> Any:
            if name in Recipe.model_fields:
                read.add(name)
            return super().__getattribute__(name)

    changes = [*TINY, "drop_rate=0.1", "small_epochs=1"]
    recipe = load_recipes({"age": SPECIALISTS["age"]}, ["quick"], changes)["age"]
    watched = Watched.model_validate(recipe.model_dump())
    read.clear()
    load_state(watched, check_backbone(watched))
    check_head_alone(watched)
    assert read <= OF_NETWORK
    assert {"backbone", "weights", "height", "drop_rate", "small_size"} <= read
    assert recipe.network_digest() == recipe.model_copy(update={"lr": 0.5}).network_digest()
    assert recipe.network_digest() != recipe.model_copy(update={"drop_rate": 0.5}).network_digest()

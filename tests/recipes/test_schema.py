"""Each setting of a recipe is known to be judged by torch, to change what probabilities mean, or to do neither."""

from orchestrator.recipes.schema import OF_NETWORK, OF_PROBABILITIES, Recipe

NEUTRAL = {
    "about", "unfreeze_after", "crop", "anchor", "face", "views", "drop_people", "augment", "optimiser", "lr",
    "backbone_lr_scale", "layer_decay", "weight_decay", "schedule", "lr_factor", "step_every", "plateau_patience",
    "warmup", "clip_norm", "ema", "epochs", "batch_size", "accumulate", "evaluate_every", "patience",
}  # fmt: skip


def test_every_setting_is_in_one_list() -> None:
    """A new one is decided upon: otherwise a wrong network is refused late, or a tuning compares what does not compare."""
    lists = (OF_NETWORK, OF_PROBABILITIES, NEUTRAL)
    assert sorted(name for names in lists for name in names) == sorted(Recipe.model_fields)

"""What harms in a recipe is reported and not refused."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.recipes.lint import lint
from orchestrator.recipes.load import load_recipes, recipe_files
from orchestrator.specialists import SPECIALISTS
from tests.conftest import Done


def test_what_harms_is_told_and_not_refused() -> None:
    changes = [
        "augment.rotate=45", "augment.grey=0.9", "augment.canny=0.4", "augment.sobel=0.2", "mask.augment.cutout=0.5",
        "batch_size=16", "age.class_balance=0.5", "age.sample_balance=0.5", "mask.loss=f1",
    ]  # fmt: skip
    recipes = load_recipes(SPECIALISTS, ["quick"], [*changes, "mask.label_smoothing=0"])
    messages = {task: " ".join(map(str, lint(SPECIALISTS[task], recipe))) for task, recipe in recipes.items()}
    assert all(
        "faces turned by more than 30 degrees" in message and "photos are edges" in message
        for message in messages.values()
    )
    assert "a blank box can hide what tells the mask classes apart" in messages["mask"]
    assert "one of 16 photos has few of a rare class" in messages["mask"]
    assert "what sample_balance has corrected" in messages["age"]
    assert "sample_balance" not in messages["gender"]
    assert not any(problem.fatal for task, recipe in recipes.items() for problem in lint(SPECIALISTS[task], recipe))
    for task, specialist in SPECIALISTS.items():
        for name in recipe_files(specialist):
            assert lint(specialist, load_recipes({task: specialist}, [name])[task]) == [], f"{task} {name}"


def test_a_file_whose_network_cannot_be_built_is_not_in_order(orch: Callable[..., Done], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('backbone = "test_vit"\nweights = "none"\nheight = 50\nwidth = 50\nepochs = 1\n')
    done = orch("recipes", "lint", "age", mine)
    assert done.code == 1
    assert "backbone: backbone = 'test_vit'" in done.out
    mine.write_text(mine.read_text().replace("50", "64"))
    assert orch("recipes", "lint", "age", mine).code == 0

"""Data and recipes as values."""

from pathlib import Path

import pytest

from orchestrator import api


def test_a_source_is_checked_described_and_split_as_values(people: Path, tmp_path: Path) -> None:
    findings = api.check_data(people / "train", folds=3)
    assert (findings.fatal, findings.opened, len(findings.photos)) == ([], 168, 168)
    description = api.describe_data(people / "train", picture=tmp_path / "people.png")
    assert (description.photos, description.people) == (168, 24)
    assert (tmp_path / "people.png").stat().st_size > 5_000
    planned = api.plan_folds(people / "train", folds=3, seed=1)
    assert (planned.plan.k, planned.as_dict()["seed"]) == (3, 1)
    with pytest.raises(api.OrchestratorError, match="--folds 0 means no plan"):
        api.plan_folds(people / "train", folds=0)
    drawn = api.synthesise(tmp_path / "drawn", people=6)
    assert drawn.train == tmp_path / "drawn" / "train"
    assert drawn.most_folds == 1
    assert api.check_data(drawn.train, folds=0).photos.table["person"].nunique() == 6


def test_recipes_are_listed_compared_and_copied_as_values(tmp_path: Path) -> None:
    assert {named.task for named in api.list_recipes()} == {"age", "gender", "mask", "joint"}
    changed = api.compare_recipes("age", "quick", second="demo")
    recipe = api.load_recipe("age", "demo")
    assert changed["epochs"][1] == recipe.epochs
    assert set(changed) <= set(api.setting_help())
    api.copy_recipe("age", "demo", to=tmp_path / "mine.toml")
    assert api.load_recipe("age", str(tmp_path / "mine.toml")).digest() == recipe.digest()
    assert api.check_recipe("age", "quick") == []
    with pytest.raises(api.OrchestratorError, match="is there already"):
        api.copy_recipe("age", "demo", to=tmp_path / "mine.toml")


def test_submissions_are_compared_as_values(tmp_path: Path) -> None:
    first, other = tmp_path / "one.csv", tmp_path / "other.csv"
    first.write_text("ImageID,ans\na.jpg,1\nb.jpg,2\n")
    other.write_text("ImageID,ans\nb.jpg,5\na.jpg,1\n")
    differences = api.compare_submissions(first, other)
    assert (differences.rows, differences.photos) == (2, (("b.jpg", 2, 5),))
    with pytest.raises(api.OrchestratorError, match="drawn from --eval DIR"):
        api.compare_submissions(first, other, picture=tmp_path / "d.png")

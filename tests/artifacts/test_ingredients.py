"""A run's key and its members' identities tell apart whatever they are made of."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts.ingredients import Ingredients
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from tests.conftest import edit_sealed

INGREDIENTS = Ingredients("age", "recipe", "weights", "data", "plan", None)


@pytest.mark.parametrize("name", [field.name for field in fields(Ingredients)])
def test_another_ingredient_is_another_run_and_another_member(name: str) -> None:
    other = replace(INGREDIENTS, **{name: "other"})
    assert other.run_key([0, 1], 3, "cpu", None) != INGREDIENTS.run_key([0, 1], 3, "cpu", None)
    assert other.member_id(0, 3) != INGREDIENTS.member_id(0, 3)


@given(st.integers(0, 3), st.sampled_from(["cpu", "cuda:0", "cuda:1"]), st.sampled_from([None, "age-0001"]))
def test_a_run_is_another_by_its_seed_folds_device_and_parent(seed: int, device: str, parent: str | None) -> None:
    key = INGREDIENTS.run_key([0, 1], seed, device, parent)
    assert key != INGREDIENTS.run_key([0], seed, device, parent)
    assert key != INGREDIENTS.run_key([0, 1], seed + 1, device, parent)
    assert key != INGREDIENTS.run_key([0, 1], seed, device, "age-0002")
    assert (key == INGREDIENTS.run_key([0, 1], seed, "cuda", parent)) == (device != "cpu")  # all GPUs count as one


def test_a_trained_run_is_made_of_what_its_record_says(workspace: Path) -> None:
    run = Workspace(workspace).run("age-0001")
    assert run.ingredients is not None
    assert [run.identity(fold) for fold in run.folds] == [
        run.ingredients.member_id(fold, run.seed) for fold in run.folds
    ]
    edit_sealed(run.folder / "run.json", recipe={**run.recipe, "of a later version": 1})
    later = RunRecord.load(run.folder)
    assert later.ingredients is None
    assert later.key == ""

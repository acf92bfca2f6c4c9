import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS


def test_there_are_three_and_their_classes_are_the_labels() -> None:
    assert tuple(SPECIALISTS) == TASKS
    for task, specialist in SPECIALISTS.items():
        assert specialist.name == task
        assert specialist.classes == CLASSES[task]


@pytest.mark.parametrize(("age", "band"), [(18, 0), (29, 0), (29.99, 0), (30, 1), (59, 1), (60, 2), (75, 2)])
def test_age_borders_are_half_open(age: float, band: int) -> None:
    assert SPECIALISTS["age"].label(pd.DataFrame({"age": [age]})).tolist() == [band]


def test_words_become_codes() -> None:
    table = pd.DataFrame({"gender": ["female", "male"], "mask": ["not_wear", "wear"]})
    assert SPECIALISTS["gender"].label(table).tolist() == [1, 0]
    assert SPECIALISTS["mask"].label(table).tolist() == [2, 0]


@given(st.integers(31, 100), st.lists(st.integers(0, 100), min_size=1))
def test_the_training_border_moves_training_and_never_the_truth(border: int, ages: list[int]) -> None:
    age = SPECIALISTS["age"]
    recipe = load_recipes({"age": age}, ["quick"], ["loss=cross_entropy", f"train_border={border}"])["age"]
    table = pd.DataFrame({"age": np.array(ages, float)})
    assert age.training_label(table, recipe).tolist() == [0 if a < 30 else 1 if a < border else 2 for a in ages]
    assert age.label(table).tolist() == [0 if a < 30 else 1 if a < 60 else 2 for a in ages]


def test_crops_are_the_published_ones_unless_a_recipe_says_otherwise() -> None:
    """Age sees the centre, gender the lower centre; `quick` chose its own by measuring (docs/experiments.md)."""
    plain = load_recipes(SPECIALISTS, ["standard"])
    assert (plain["age"].anchor, plain["gender"].anchor) == (0.5, 1.0)
    assert plain["mask"].augment.resized_crop > 0

"""Heads: losses by hand, probabilities that sum to one, and the recipe's choice."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.labels import CLASSES, JOINT, TASKS, decompose, joint_probabilities
from orchestrator.networks import losses
from orchestrator.networks.heads import (
    ClassHead,
    CornHead,
    JointHead,
    SoftAgeHead,
    head_from_dict,
    head_of,
    photo_weights,
)
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS, TRAINABLE

ONE = torch.ones(1)
AGES = SoftAgeHead(0, 100, (30, 60), sigma=2.0)


def test_cross_entropy_with_smoothing_by_hand() -> None:
    outputs = torch.tensor([[2.0, 0.0, -1.0]])
    logs = [value - math.log(sum(math.exp(v) for v in (2.0, 0.0, -1.0))) for value in (2.0, 0.0, -1.0)]
    expected = -(0.9 + 0.1 / 3) * logs[1] - 0.1 / 3 * (logs[0] + logs[2])
    assert ClassHead(3, 0.1).loss(outputs, torch.tensor([1]), ONE).item() == pytest.approx(expected, rel=1e-5)


def test_soft_age_by_hand() -> None:
    outputs = torch.randn(2, 101, generator=torch.Generator().manual_seed(0))
    ages = [29.0, 61.5]
    expected = 0.0
    for row, age in zip(outputs.double().numpy(), ages, strict=True):
        weights = np.array([math.exp(-0.5 * ((year - age) / 2.0) ** 2) for year in range(101)])
        logs = row - np.log(np.exp(row).sum())
        expected -= float((weights / weights.sum() * logs).sum()) / 2
    assert AGES.loss(outputs, torch.tensor(ages), torch.ones(2)).item() == pytest.approx(expected, rel=1e-5)


def test_soft_age_sums_years_into_half_open_bands() -> None:
    for year, band in ((0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (100, 2)):
        outputs = torch.full((1, 101), -50.0)
        outputs[0, year] = 50.0
        assert AGES.probabilities(outputs)[0].tolist() == pytest.approx([float(band == code) for code in range(3)])


@given(st.integers(0, 2**31 - 1))
def test_probabilities_are_rows_that_sum_to_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for head in (AGES, ClassHead(4, 0.1), CornHead(3), CornHead(5)):
        probabilities = head.probabilities(3 * torch.randn(5, head.outputs, generator=generator))
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(5), atol=1e-5)
        assert torch.equal(
            head_from_dict(head.as_dict()).probabilities(torch.zeros(1, head.outputs)),
            head.probabilities(torch.zeros(1, head.outputs)),
        )


def test_the_recipe_chooses_the_head_and_its_targets() -> None:
    age = SPECIALISTS["age"]
    table = pd.DataFrame({"age": [29.0, 58.0, 60.0]})
    soft = load_recipes({"age": age}, ["quick"], ["loss=soft_age"])["age"]
    assert head_of(age, soft).targets(age, table, soft).tolist() == [29, 58, 60]
    hard = load_recipes({"age": age}, ["quick"], ["loss=cross_entropy", "train_border=58"])["age"]
    assert head_of(age, hard).targets(age, table, hard).tolist() == [0, 2, 2]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50), st.floats(0, 1))
def test_class_balance_weighs_classes_by_their_share_and_keeps_the_mean(classes: list[int], balance: float) -> None:
    codes = np.array(classes)
    weights = photo_weights(codes, balance)
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    totals = {code: weights[codes == code].sum() for code in set(classes)}
    if balance == 0:
        assert np.allclose(weights, 1)
    for code in totals:
        for other in totals:
            counts = (codes == code).sum() / (codes == other).sum()
            assert totals[code] / totals[other] == pytest.approx(counts ** (1 - balance), rel=1e-3)


def test_a_recipes_sum_of_losses_is_the_heads() -> None:
    mask = SPECIALISTS["mask"]
    changes = ["loss=0.6  focal + 0.4 f1", "label_smoothing=0.1", "focal_gamma=1.5"]
    recipe = load_recipes({"mask": mask}, ["quick"], changes)["mask"]
    assert recipe.loss == "0.6 focal + 0.4 f1"
    head = head_of(mask, recipe)
    outputs, codes, weights = torch.randn(8, 3), torch.arange(8) % 3, torch.rand(8)
    expected = 0.6 * losses.focal(outputs, codes, weights, 1.5, 0.1) + 0.4 * losses.soft_f1(outputs, codes, weights)
    assert torch.allclose(head.loss(outputs, codes, weights), expected)
    age = SPECIALISTS["age"]
    ordered = head_of(age, load_recipes({"age": age}, ["quick"], ["loss=corn"])["age"])
    assert (ordered, ordered.outputs) == (CornHead(3), 2)


def test_a_head_survives_its_card_and_an_unknown_one_is_refused() -> None:
    for head in (ClassHead(3), CornHead(3), SoftAgeHead(0, 99, (30, 60)), JointHead((ClassHead(3), ClassHead(2)))):
        assert head_from_dict(head.as_dict()).as_dict() == head.as_dict()
    with pytest.raises(ValueError, match="a head of the kind 'evidential', which this version does not know"):
        head_from_dict({"kind": "evidential", "classes": 3})


def test_corn_answers_by_hand() -> None:
    """Reaches 30 with 0.8, and 60 of those with 0.25: 0.2 below, 0.6 between, 0.2 above."""
    outputs = torch.logit(torch.tensor([[0.8, 0.25]]))
    assert CornHead(3).probabilities(outputs)[0].tolist() == pytest.approx([0.2, 0.6, 0.2], abs=1e-6)


def test_a_band_without_years_teaches_the_band() -> None:
    head = SoftAgeHead(0, 100, (30, 60))
    outputs = torch.randn(3, 101, generator=torch.manual_seed(0))
    weights = torch.tensor([1.0, 2.0, 0.5])
    bands = head.probabilities(outputs)
    by_hand = -(bands[0, 0].log() * 1.0 + bands[2, 2].log() * 0.5)
    exact = head.loss(outputs[1:2], torch.tensor([44.0]), torch.ones(1)) * 2.0
    loss = head.loss(outputs, torch.tensor([-1.0, 44.0, -3.0]), weights)
    assert loss.item() == pytest.approx(((by_hand + exact) / 3).item(), rel=1e-5)


def test_the_heads_losses_add_up_and_their_probabilities_multiply() -> None:
    head = JointHead((ClassHead(3, 0.1), ClassHead(2, 0.1), ClassHead(3, 0.1)))
    outputs, labels = torch.randn(18, 8, generator=torch.manual_seed(0)), torch.arange(18)
    weights = torch.linspace(0.5, 1.5, 18)
    digits = {task: torch.from_numpy(code) for task, code in decompose(np.arange(18)).items()}
    parts = dict(zip(TASKS, outputs.split([3, 2, 3], dim=1), strict=True))
    expected = sum(ClassHead(len(CLASSES[task]), 0.1).loss(parts[task], digits[task], weights) for task in TASKS)
    assert head.loss(outputs, labels, weights).item() == pytest.approx(float(expected), rel=1e-6)
    product = joint_probabilities({task: parts[task].softmax(dim=1).numpy() for task in TASKS})
    assert np.allclose(head.probabilities(outputs).numpy(), product, atol=1e-6)
    assert head.outputs == 8
    again = head_from_dict(head.as_dict())
    assert np.allclose(again.probabilities(outputs).numpy(), product, atol=1e-6)
    recipe = load_recipes({JOINT: TRAINABLE[JOINT]}, ["quick"], ["loss=0.4 f1 + 0.6 focal"])[JOINT]
    joint = head_of(TRAINABLE[JOINT], recipe)
    assert isinstance(joint, JointHead)
    assert [head.terms for head in joint.heads] == [(("f1", 0.4), ("focal", 0.6))] * 3

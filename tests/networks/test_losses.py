"""Losses against references and values worked out by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from orchestrator.networks.heads import ClassHead, CornHead, Head, SoftAgeHead
from orchestrator.networks.losses import corn, cross_entropy, focal, soft_f1
from orchestrator.recipes.schema import SUMMED

GAMMAS = [0.0, 0.1, 0.5, 1.0, 2.0, 10.0]
batches = st.tuples(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(2, 5))


def draw(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    seed, photos, classes = shape
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(classes, (photos,), generator=generator)
    return 2 * torch.randn(photos, classes, generator=generator), codes, torch.rand(photos, generator=generator) + 0.1


@given(batches, st.floats(0, 0.5))
def test_focal_without_focus_is_cross_entropy(shape: tuple[int, int, int], smoothing: float) -> None:
    outputs, codes, weights = draw(shape)
    expected = (F.cross_entropy(outputs, codes, label_smoothing=smoothing, reduction="none") * weights).mean()
    assert torch.allclose(cross_entropy(outputs, codes, weights, smoothing), expected, atol=1e-6)
    assert torch.allclose(focal(outputs, codes, weights, 0.0, smoothing), expected, atol=1e-5)


def test_focal_by_hand() -> None:
    """Probabilities 0.7, 0.2, 0.1 and the first class true: (1 - 0.7)^2 of -log 0.7."""
    outputs = torch.tensor([[0.7, 0.2, 0.1]]).log()
    weight = torch.ones(1)
    assert focal(outputs, torch.tensor([0]), weight, 2.0).item() == pytest.approx(-(0.3**2) * math.log(0.7), rel=1e-5)
    smooth = [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]
    expected = -sum(q * (1 - p) ** 2 * math.log(p) for q, p in zip(smooth, (0.7, 0.2, 0.1), strict=True))
    assert focal(outputs, torch.tensor([0]), weight, 2.0, 0.1).item() == pytest.approx(expected, rel=1e-5)
    sure, unsure = (
        focal(torch.tensor([[4.0, 0.0]]), torch.tensor([0]), weight, 2.0),
        focal(outputs, torch.tensor([1]), weight, 2.0),
    )
    assert sure < 1e-4 * unsure


@given(batches)
def test_f1_of_certain_answers_is_scikit_learns(shape: tuple[int, int, int]) -> None:
    outputs, codes, _ = draw(shape)
    answers = outputs.argmax(dim=1)
    certain = 100 * F.one_hot(answers, shape[2]).float()
    held = sorted(set(codes.tolist()))
    expected = f1_score(codes, answers, labels=held, average="macro", zero_division=0)
    assert soft_f1(certain, codes, torch.ones(shape[1])).item() == pytest.approx(1 - expected, abs=1e-5)


@given(batches)
def test_f1_counts_a_photo_of_weight_two_twice(shape: tuple[int, int, int]) -> None:
    outputs, codes, _ = draw(shape)
    twice = soft_f1(torch.cat([outputs, outputs[:1]]), torch.cat([codes, codes[:1]]), torch.ones(shape[1] + 1))
    weights = torch.ones(shape[1])
    weights[0] = 2
    assert torch.allclose(soft_f1(outputs, codes, weights), twice, atol=1e-6)


def test_corn_by_hand() -> None:
    """Three classes, two questions. Class 0 answers no to the first; class 2 yes to both; the second is not asked of class 0."""
    outputs = torch.logit(torch.tensor([[0.3, 0.9], [0.8, 0.6]]))
    terms = [-math.log(1 - 0.3), -math.log(0.8), -math.log(0.6)]
    assert corn(outputs, torch.tensor([0, 2]), torch.ones(2)).item() == pytest.approx(sum(terms) / 3, rel=1e-5)
    last_terms = [-math.log(0.8), -math.log(1 - 0.6)]
    assert corn(outputs[1:], torch.tensor([1]), torch.ones(1)).item() == pytest.approx(sum(last_terms) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "head", [*(ClassHead(3, terms=((name, 1.0),)) for name in SUMMED), CornHead(3)], ids=[*SUMMED, "corn"]
)
def test_every_loss_over_classes_can_be_learnt_from(head: Head) -> None:
    torch.manual_seed(0)
    codes = torch.arange(60) % 3
    inputs = F.one_hot(codes, 3).float() + 0.3 * torch.randn(60, 3)
    layer = torch.nn.Linear(3, head.outputs)
    optimiser = torch.optim.Adam(layer.parameters(), 0.1)
    losses = []
    for _ in range(60):
        loss = head.loss(layer(inputs), codes, torch.ones(60))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


certain = st.sampled_from([-1e4, -100.0, -17.0, -1.0, 0.0, 1e-3, 17.0, 100.0, 1e4])


@given(
    st.lists(st.tuples(certain, certain, certain), min_size=1, max_size=6), st.integers(0, 2), st.sampled_from(GAMMAS),
    st.sampled_from([0.0, 0.1, 0.99]), st.sampled_from([1e-6, 1.0, 100.0]),
)  # fmt: skip
def test_losses_and_their_gradients_are_numbers_however_certain_the_answers(
    rows: list[tuple[float, ...]], code: int, gamma: float, smoothing: float, weight: float
) -> None:
    codes, weights = torch.full((len(rows),), code), torch.full((len(rows),), weight)
    ages = SoftAgeHead(0, 2, (1, 2), 0.1)
    for function, width in (
        (lambda outputs: cross_entropy(outputs, codes, weights, smoothing), 3),
        (lambda outputs: focal(outputs, codes, weights, gamma, smoothing), 3),
        (lambda outputs: soft_f1(outputs, codes, weights), 3),
        (lambda outputs: corn(outputs, codes, weights), 2),
        (lambda outputs: ages.loss(outputs, codes.float(), weights), 3),
        (lambda outputs: ages.loss(outputs, -1.0 - codes, weights), 3),
    ):  # fmt: skip
        outputs = torch.tensor(rows)[:, :width].clone().requires_grad_()
        loss = function(outputs)
        loss.backward()
        assert torch.isfinite(loss)
        assert outputs.grad is not None
        assert torch.isfinite(outputs.grad).all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focals_gradient_is_nothing_where_all_is_known(gamma: float) -> None:
    outputs = torch.tensor([[200.0, 0.0, 0.0]]).requires_grad_()
    focal(outputs, torch.tensor([0]), torch.ones(1), gamma).backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().max() == 0


@given(batches, st.sampled_from(GAMMAS), st.sampled_from([0.0, 0.2]))
def test_focals_gradient_is_the_slope(shape: tuple[int, int, int], gamma: float, smoothing: float) -> None:
    outputs, codes, weights = draw(shape)
    assert torch.autograd.gradcheck(
        lambda values: focal(values, codes, weights.double(), gamma, smoothing), outputs.double().requires_grad_()
    )


def test_a_photo_whose_age_is_known_by_its_class_teaches_however_wrong_the_answer_is() -> None:
    outputs = torch.tensor([[100.0, 0.0, 0.0]]).requires_grad_()
    SoftAgeHead(0, 2, (1, 2)).loss(outputs, torch.tensor([-3.0]), torch.ones(1)).backward()
    assert outputs.grad is not None
    assert outputs.grad[0].tolist() == pytest.approx([1, 0, -1], abs=1e-6)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

from orchestrator.core.metrics import confusion, log_losses, macro_f1, score


@given(st.integers(2, 18), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_scores_equal_scikit_learns(classes: int, photos: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, (2, photos))
    names = list(range(classes))
    expected = f1_score(truth, predicted, labels=names, average="macro", zero_division=0)
    scores = score(truth, predicted, classes)
    assert macro_f1(truth, predicted, classes) == pytest.approx(expected, abs=1e-12)
    assert scores.macro_f1 == pytest.approx(expected, abs=1e-12)
    assert scores.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert np.array_equal(scores.counts, confusion_matrix(truth, predicted, labels=names))
    reference = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    for own, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), reference, strict=True):
        assert np.allclose(own, theirs)
    assert scores.absent == sorted(set(names) - set(truth.tolist()))


def test_macro_f1_over_all_rows_is_not_the_mean_over_batches() -> None:
    # 90 photos of class 0 and 10 of class 1, all right: 1.0. Ten batches of ten, each of one class only, give 0.5.
    truth = np.repeat([0, 1], [90, 10])
    assert macro_f1(truth, truth, 2) == 1.0
    means = [macro_f1(part, part, 2) for part in np.split(truth, 10)]
    assert np.mean(means) == pytest.approx(0.5)


@pytest.mark.parametrize(("truth", "predicted"), [([0, 3], [0, 0]), ([0, -1], [0, 0]), ([0, 1], [0, 3])])
def test_codes_outside_the_classes_are_refused(truth: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.2"):
        confusion(np.array(truth), np.array(predicted), 3)


def test_different_lengths_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="3.*2"):
        confusion(np.zeros(3, int), np.zeros(2, int), 3)


def test_the_log_loss_is_scikit_learns_and_bounded() -> None:
    rng = np.random.default_rng(0)
    truth, answers = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    assert log_losses(truth, answers).shape == (200,)
    assert log_losses(truth, answers).mean() == pytest.approx(log_loss(truth, answers, labels=[0, 1, 2]))
    sure = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert log_losses(np.array([0, 0]), sure) == pytest.approx([0.0, -np.log(1e-7)])

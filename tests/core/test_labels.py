"""Labels and the classes that they are made of, both ways."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.core.labels import (
    CLASSES,
    LABELS,
    TASKS,
    compose,
    decompose,
    differing,
    joint_probabilities,
    marginals,
    read_label,
)


def test_the_code_is_the_contests() -> None:
    assert compose(0, 0, 0) == 0
    assert compose(1, 1, 2) == 11
    assert compose(2, 1, 2) == 17
    assert LABELS[0] == "wear / male / <30"
    assert LABELS[11] == "incorrect / female / >=60"
    assert len(set(LABELS)) == 18


def test_labels_and_class_codes_are_a_bijection() -> None:
    labels = np.arange(18)
    digits = decompose(labels)
    assert np.array_equal(compose(*(digits[task] for task in TASKS)), labels)
    assert len({tuple(int(digits[task][label]) for task in TASKS) for label in labels}) == 18


@given(arrays(np.int64, st.integers(0, 20), elements=st.integers(-3, 25)))
def test_codes_outside_the_classes_are_refused(labels: np.ndarray) -> None:
    if labels.size and (labels.min() < 0 or labels.max() > 17):
        with pytest.raises(ValueError, match="labels must lie in 0..17"):
            decompose(labels)
    else:
        assert np.array_equal(compose(*decompose(labels).values()), labels)


@pytest.mark.parametrize(("codes", "task"), [((3, 0, 0), "mask"), ((0, 2, 0), "gender"), ((0, 0, -1), "age")])
def test_a_wrong_digit_names_its_task(codes: tuple[int, int, int], task: str) -> None:
    with pytest.raises(ValueError, match=task):
        compose(*codes)


@given(st.integers(0, 2**32 - 1))
def test_joint_probabilities_sum_to_one_and_peak_at_the_composed_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    by_task = {task: rng.dirichlet(np.ones(len(CLASSES[task])), 5) for task in TASKS}
    joint = joint_probabilities(by_task)
    assert joint.shape == (5, 18)
    assert np.allclose(joint.sum(axis=1), 1)
    assert np.array_equal(joint.argmax(axis=1), compose(*(by_task[task].argmax(axis=1) for task in TASKS)))
    digits = decompose(np.arange(18))
    assert np.allclose(joint[:, digits["age"] == 1].sum(axis=1), by_task["age"][:, 1])


@given(arrays(np.float64, (5, 8), elements=st.floats(0, 1)))
def test_marginals_are_the_inverse_of_the_product(numbers: np.ndarray) -> None:
    by_task, start = {}, 0
    for task in TASKS:
        part = numbers[:, start : start + len(CLASSES[task])] + 0.01
        start += len(CLASSES[task])
        by_task[task] = part / part.sum(axis=1, keepdims=True)
    recovered = marginals(joint_probabilities(by_task))
    for task in TASKS:
        assert np.allclose(recovered[task], by_task[task], atol=1e-12)
    certain = np.eye(len(LABELS))
    for task, digits in decompose(np.arange(len(LABELS))).items():
        assert (marginals(certain)[task].argmax(axis=1) == digits).all()
    assert not any(part.any() for part in marginals(np.zeros((2, 18))).values())


@given(st.integers(0, 17), st.integers(0, 17))
def test_labels_differ_in_the_tasks_whose_classes_differ(first: int, other: int) -> None:
    classes = [dict(zip(TASKS, LABELS[label].split(" / "), strict=True)) for label in (first, other)]
    assert differing(first, other) == [task for task in TASKS if classes[0][task] != classes[1][task]]
    assert read_label(str(first)) == first

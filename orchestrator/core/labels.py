"""The 18-way label and the classes of its three tasks: the only place that defines its formula.

`label = mask * 6 + gender * 3 + age`, each task's classes counted in the order below (the contest's own code).
How a photo's class follows from the table is defined in the specialists' `label.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.integer[Any]] | int

__all__ = [
    "AGE_BORDERS", "CLASSES", "CLASS_COUNTS", "JOINT", "LABELS", "TASKS", "age_band_names", "age_bands", "class_names",
    "columns_of", "compose", "confidence_column", "decompose", "differing", "joint_probabilities", "marginals", "of_tasks",
    "read_label", "tasks_of",
]  # fmt: skip

TASKS: tuple[str, ...] = ("mask", "gender", "age")
"""The tasks in the order of the label's digits, most significant first."""

JOINT = "joint"
"""Name of the joint network: not a task; it answers with the label itself, and so for all three tasks."""

_CLASSES = {
    "mask": ("wear", "incorrect", "not_wear"),
    "gender": ("male", "female"),
    "age": ("<30", "30-59", ">=60"),
}
AGE_BORDERS = (30, 60)
"""First year of each age class but the lowest, half-open: 29 is young, 30 and 59 are in the middle, 60 is old."""

LABELS: tuple[str, ...] = tuple(
    f"{mask} / {gender} / {age}"
    for mask in _CLASSES["mask"]
    for gender in _CLASSES["gender"]
    for age in _CLASSES["age"]
)
"""Display names of the 18 labels, in code order."""

CLASSES: Mapping[str, tuple[str, ...]] = {**_CLASSES, JOINT: LABELS}
"""Task -> class names in code order; for the joint network, the 18 labels."""

CLASS_COUNTS: Mapping[str, int] = {task: len(_CLASSES[task]) for task in TASKS}
"""Task -> its number of classes, in the order of the label's digits."""


def columns_of(task: str, prefix: str = "p") -> list[str]:
    """Table columns for a task's classes, `p(age <30)`, or for the labels, `p(wear / male / <30)`.

    Args:
        task: task name, or `joint` for the labels.
        prefix: `p` for probabilities, `share` for shares of votes.
    """
    return [f"{prefix}({name})" if task == JOINT else f"{prefix}({task} {name})" for name in CLASSES[task]]


def confidence_column(task: str, prefix: str = "p") -> str:
    """Table column for a task's likeliest class: `p(age)`, how sure the answer is.

    Args:
        task: task name.
        prefix: `p` for its probability, `share` for its share of votes.
    """
    return f"{prefix}({task})"


_CODES = frozenset(str(code) for code in range(len(LABELS)))


def age_bands(years: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """The age class of exact ages: codes 0..2, int64, any shape."""
    import numpy as np

    return np.asarray(np.digitize(years, AGE_BORDERS), dtype=np.int64)


def age_band_names(years: Iterable[float]) -> list[str]:
    """The names of the age classes of exact ages."""
    import numpy as np

    return [CLASSES["age"][code] for code in age_bands(np.fromiter(years, float))]


def class_names(label: int) -> dict[str, str]:
    """Task -> the name of its class in an 18-way label."""
    return {task: CLASSES[task][int(code)] for task, code in decompose(label).items()}


def compose(mask: Codes, gender: Codes, age: Codes) -> NDArray[np.int64]:
    """The 18-way label of class codes.

    Args:
        mask: codes in 0..2, any shape.
        gender: codes in 0..1, the same shape.
        age: codes in 0..2, the same shape.

    Returns:
        Labels in 0..17, int64, the same shape.

    Raises:
        ValueError: a code lies outside its task's classes.
    """
    import numpy as np

    codes = [np.asarray(code) for code in (mask, gender, age)]
    for task, code in zip(TASKS, codes, strict=True):
        if code.size and not (code.min() >= 0 and code.max() < len(CLASSES[task])):
            raise ValueError(f"{task} codes must lie in 0..{len(CLASSES[task]) - 1}, found {code.min()}..{code.max()}")
    return np.asarray(codes[0] * 6 + codes[1] * 3 + codes[2], dtype=np.int64)


def decompose(label: Codes) -> dict[str, NDArray[np.int64]]:
    """The inverse of `compose`: class codes by task, each of the label's shape.

    Raises:
        ValueError: a label lies outside 0..17.
    """
    import numpy as np

    label = np.asarray(label, dtype=np.int64)
    if label.size and not (label.min() >= 0 and label.max() < len(LABELS)):
        raise ValueError(f"labels must lie in 0..{len(LABELS) - 1}, found {label.min()}..{label.max()}")
    return {task: np.asarray(digit, dtype=np.int64) for task, digit in _digits(label).items()}


def differing(first: int, second: int) -> list[str]:
    """The tasks in which two labels differ, in the order of the label's digits."""
    first_codes, second_codes = _digits(first), _digits(second)
    return [task for task in TASKS if first_codes[task] != second_codes[task]]


def read_label(cell: str) -> int | None:
    """The label in a table cell: `3`, or `3.0`, as other tools write columns with gaps; None if it is not a label."""
    integer, _, fraction = cell.strip().partition(".")
    return int(integer) if integer in _CODES and not fraction.strip("0") else None


def _digits(label: Any) -> dict[str, Any]:
    return {"mask": label // 6, "gender": label // 3 % 2, "age": label % 3}


def joint_probabilities(by_task: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.floating[Any]]:
    """18-way probabilities as the product of the three tasks'.

    The tasks are treated as independent given the photo; in the contest's table age and gender share 0.007 bit.

    Args:
        by_task: task -> probabilities, shape (N, C), each row summing to 1.

    Returns:
        Shape (N, 18), each row summing to 1.
    """
    import numpy as np

    mask, gender, age = (by_task[task] for task in TASKS)
    joint = mask[:, :, None, None] * gender[:, None, :, None] * age[:, None, None, :]
    return np.asarray(joint.reshape(len(joint), len(LABELS)))


def marginals(joint: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.floating[Any]]]:
    """Each task's probabilities from 18-way ones: the sums over the other tasks' classes.

    Args:
        joint: shape (N, 18); rows may sum to anything, a row of zeros gives rows of zeros.

    Returns:
        task -> shape (N, C), in the order of TASKS.
    """
    cube = joint.reshape(len(joint), *(len(CLASSES[task]) for task in TASKS))
    axes = range(1, len(TASKS) + 1)
    return {
        task: cube.sum(axis=tuple(axis for axis in axes if axis != task_axis))
        for task_axis, task in zip(axes, TASKS, strict=True)
    }


def tasks_of(name: str) -> tuple[str, ...]:
    """The tasks that a network answers: its own; all three of a joint one."""
    return TASKS if name == JOINT else (name,)


def of_tasks(name: str, answers: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.floating[Any]]]:
    """Task -> a member's answers: one task for a specialist, all three (marginals) for a joint network."""
    return marginals(answers) if name == JOINT else {name: answers}

"""Running an export's program, which decodes, crops and votes by itself, to compare its answers with the ensemble's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining import PROBABILITY
from orchestrator.combining.combiners import Combiner
from orchestrator.core.errors import EngineError, Problem, quantity
from orchestrator.core.labels import CLASSES, LABELS, TASKS
from orchestrator.inference.engines import TOLERANCE
from orchestrator.inference.predictor import Predictor

__all__ = ["check_program"]

LIMIT = TOLERANCE["fp32"]
"""Largest difference of a probability: that of a member's export, since a mean differs by no more than its terms."""

STRETCHED = 10 * LIMIT
"""The same where a combiner may stretch differences: other means, calibrations."""


def check_program(program: Path, predictor: Predictor, photos: Sequence[Path]) -> None:
    """Checks that an exported program gives an ensemble's labels, and its probabilities or shares of votes.

    Choices that a difference within the tolerance can turn are no fault of the program's: where a member or the ensemble has
    to make one, the label is not compared, nor are shares of votes.

    Args:
        program: the program, beside the files that it needs.
        predictor: the ensemble.
        photos: photos that can be read, few enough for one batch.

    Raises:
        EngineError: the program does not run, or gives other answers.
    """
    (batch,) = predictor.predict(photos, batch=len(photos))
    assert batch.answers is not None  # since all can be read
    assert batch.combined is not None
    shares_of = {task: batch.combined.decisions[task].shares for task in TASKS}
    combiner = predictor.combiner
    limit = LIMIT if combiner.averages and not combiner.calibrations else STRETCHED
    kinds = {task: "probabilities" if prefix == PROBABILITY else "shares" for task, prefix in combiner.prefixes.items()}
    decided = [_weighed(combiner, task, shares) for task, shares in shares_of.items()]
    clear = np.logical_and.reduce([_is_clear(array, limit) for array in (*batch.answers.probabilities, *decided)])
    problems = []
    for row, (photo, answer) in enumerate(zip(photos, _answers_of(program, photos), strict=True)):
        compared = [task for task in TASKS if kinds[task] == "probabilities" or clear[row]]
        differences = [
            abs(answer[kinds[task]][task][name] - share)
            for task in compared
            for name, share in zip(CLASSES[task], shares_of[task][row].tolist(), strict=True)
        ]
        difference = max(differences, default=0.0)
        label = int(batch.combined.label[row])
        if not difference <= limit:  # NaN is refused too
            problems.append(
                Problem(
                    photo.name, f"its probabilities or shares differ by up to {difference:.2g}; allowed: {limit:g}."
                )
            )
        elif clear[row] and (answer["label"], answer["name"]) != (label, LABELS[label]):
            theirs, ours = f"{answer['label']} ({answer['name']})", f"{label} ({LABELS[label]})"
            problems.append(Problem(photo.name, f"the label is {theirs}, and the ensemble's is {ours}."))
    if problems:
        counted = f"{len(problems)} of {quantity(len(photos), 'photo')}"
        raise _refusal(f"does not give the ensemble's answers for {counted}", problems)


def _weighed(combiner: Combiner, task: str, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a task's class is chosen by, shape (N, C): its shares, times the rule's numbers where it has any."""
    factors = None if combiner.rule is None else combiner.rule.factors.get(task)
    return shares if factors is None else shares * np.array(factors)


def _is_clear(shares: NDArray[Any], limit: float) -> NDArray[np.bool_]:
    """Where a difference within a limit cannot turn the choice, shape (N,); of shares of shape (N, C)."""
    ordered = np.sort(shares, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > 2 * limit)


def _answers_of(program: Path, photos: Sequence[Path]) -> list[dict[str, Any]]:
    """What the program prints for some photos.

    Raises:
        EngineError: it fails, or cannot read one of them.
    """
    words = [sys.executable, "-B", str(program.absolute()), *(str(photo.absolute()) for photo in photos)]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    try:
        answers = [json.loads(line) for line in done.stdout.splitlines()]
    except ValueError:
        raise _refusal("prints something that is no answer") from None
    if done.returncode or len(answers) != len(photos):
        reasons = [answer["error"] for answer in answers if "error" in answer] or done.stderr.strip().splitlines()
        reason = reasons[-1] if reasons else f"exit code {done.returncode}"
        raise _refusal(f"does not run here ({reason})")
    return answers


def _refusal(fault: str, problems: Sequence[Problem] = ()) -> EngineError:
    """The error for a program that is not as good as the ensemble, with the way out."""
    way_out = "Predict from the workspace, as before, and report this."
    return EngineError(f"the exported program {fault}, so the export was not finished. {way_out}", problems)

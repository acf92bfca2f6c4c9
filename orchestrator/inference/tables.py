"""Answers on disk: the contest's submission file, tables of labels and probabilities, in the order in which photos were given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.combining import PROBABILITY, SHARE
from orchestrator.core.errors import escape_non_utf8
from orchestrator.core.labels import CLASSES, JOINT, LABELS, TASKS, columns_of, decompose, joint_probabilities
from orchestrator.core.outputs import Output, replace_output, suffix_of
from orchestrator.data.lines import write_rows

if TYPE_CHECKING:
    from orchestrator.data.contest import Eval
    from orchestrator.inference.results import Predictions

__all__ = ["write_answers", "write_probabilities", "write_submission"]


def write_submission(path: Path, evaluation: Eval, answers: Predictions) -> None:
    """Writes the contest's file: info.csv byte for byte, the answers filled in.

    A photo that could not be read leaves its cell empty.
    """
    with replace_output(path) as temporary:
        temporary.write_bytes(evaluation.submission(_labels(answers)).encode())


def write_answers(output: Output, answers: Predictions) -> None:
    """Writes a table in the format of its name's ending: .csv, .parquet or .json (as `--json` prints).

    Its columns: path, label (0 to 17), name; the class of each task; agreement, the smallest share over the tasks of members that
    chose the winning class; each task's probabilities as `p(mask wear)`, of a task that votes hard the shares of votes as
    `share(mask wear)`; error. A photo that could not be read has an error, and nothing else.
    """
    suffix = suffix_of(output)
    with replace_output(output.path) as temporary:
        if suffix == ".json":
            value = [{**answer.as_dict(), "path": escape_non_utf8(answer.photo)} for answer in answers]
            temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        elif suffix == ".parquet":
            _write_parquet(temporary, _columns(answers))
        else:
            columns = _columns(answers)
            write_rows(temporary, columns, zip(*columns.values(), strict=True))


def write_probabilities(path: Path, keys: Sequence[str], answers: Predictions) -> None:
    """Writes a parquet table: key, label, every task's probabilities, and the 18-way product.

    Columns are named `p(...)`; of a task that votes hard, and of the product where any does, `share(...)`.
    """
    table: dict[str, Sequence[Any]] = {"path": [escape_non_utf8(key) for key in keys], "label": _labels(answers)}
    table |= _shares(answers)
    joint, prefixes = joint_probabilities(answers.rounded), answers.combiner.prefixes.values()
    prefix = SHARE if SHARE in prefixes else PROBABILITY
    table |= {column: _cells(joint[:, code]) for code, column in enumerate(columns_of(JOINT, prefix))}
    table["agreement"] = _agreement(answers)
    table["asked"] = answers.asked.tolist()
    table["face_found"] = answers.face_found
    table["error"] = _errors(answers)
    with replace_output(path) as temporary:
        _write_parquet(temporary, table)


def _columns(answers: Predictions) -> dict[str, Sequence[Any]]:
    labels = _labels(answers)
    table: dict[str, Sequence[Any]] = {
        "path": list(map(escape_non_utf8, answers.photos)), "label": labels,
        "name": [None if label is None else LABELS[label] for label in labels],
    }  # fmt: skip
    for task, codes in decompose(np.maximum(answers.label, 0)).items():
        table[task] = [
            None if label is None else CLASSES[task][code] for label, code in zip(labels, codes.tolist(), strict=True)
        ]
    table["agreement"] = _agreement(answers)
    return {**table, **_shares(answers), "error": _errors(answers)}


def _labels(answers: Predictions) -> list[int | None]:
    return [None if label < 0 else label for label in answers.label.tolist()]


def _shares(answers: Predictions) -> dict[str, list[float | None]]:
    return {
        column: _cells(answers.rounded[task][:, code])
        for task in TASKS
        for code, column in enumerate(columns_of(task, answers.combiner.prefixes[task]))
    }


def _agreement(answers: Predictions) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in _cells(answers.agreement)]


def _errors(answers: Predictions) -> list[str | None]:
    return [answers.errors[number].reason if number in answers.errors else None for number in range(len(answers))]


def _cells(values: NDArray[np.floating[Any]]) -> list[float | None]:
    """Numbers of a column; nothing where a photo could not be read."""
    return [None if value != value else value for value in values.tolist()]


def _write_parquet(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"label": pa.int64(), "asked": pa.int64(), "face_found": pa.bool_(), "agreement": pa.float64()}
    text_columns = ("path", "name", "error", *TASKS)
    columns = []
    for name, cells in table.items():
        if name in text_columns:
            columns.append(pa.array([None if cell is None else escape_non_utf8(cell) for cell in cells], pa.string()))
        else:
            columns.append(pa.array(cells, types.get(name, pa.float64())))
    with path.open("wb") as file:  # by a name, pyarrow takes UTF-8 alone
        pq.write_table(pa.Table.from_arrays(columns, names=list(table)), file)

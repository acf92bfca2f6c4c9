"""Answers on disk: the contest's submission file, tables of labels and probabilities, in the order in which photos were given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.combining import STRATEGIES
from orchestrator.core.errors import escape_non_utf8
from orchestrator.core.labels import CLASSES, JOINT, TASKS, columns_of, joint_probabilities
from orchestrator.core.outputs import Output, replace_output, suffix_of
from orchestrator.data.lines import write_rows

if TYPE_CHECKING:
    from orchestrator.data.contest import Eval
    from orchestrator.inference.predictions import Prediction

__all__ = ["write_answers", "write_probabilities", "write_submission"]


def write_submission(path: Path, evaluation: Eval, answers: Sequence[Prediction]) -> None:
    """Writes the contest's file: info.csv byte for byte, the answers filled in.

    A photo that could not be read leaves its cell empty.
    """
    with replace_output(path) as temporary:
        temporary.write_bytes(evaluation.submission([answer.label for answer in answers]).encode())


def write_answers(output: Output, answers: Sequence[Prediction]) -> None:
    """Writes a table in the format of its name's ending: .csv, .parquet or .json (as `--json` prints).

    Its columns: path, label (0 to 17), name; the class of each task; agreement, the smallest share over the tasks of members that
    chose the winning class; each task's probabilities as `p(mask wear)`, after a hard vote the shares of votes as
    `share(mask wear)`; error. A photo that could not be read has an error, and nothing else.
    """
    suffix = suffix_of(output)
    with replace_output(output.path) as temporary:
        if suffix == ".json":
            value = [{**answer.as_dict(), "path": escape_non_utf8(str(answer.path))} for answer in answers]
            temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        elif suffix == ".parquet":
            _write_parquet(temporary, _columns(answers))
        else:
            columns = _columns(answers)
            write_rows(temporary, columns, zip(*columns.values(), strict=True))


def write_probabilities(path: Path, keys: Sequence[str], answers: Sequence[Prediction]) -> None:
    """Writes a parquet table: key, label, every task's probabilities, and the 18-way product.

    Columns are named `p(...)` after a soft vote and `share(...)` after a hard one.
    """
    import numpy as np

    table: dict[str, list[Any]] = {
        "path": [escape_non_utf8(key) for key in keys],
        "label": [answer.label for answer in answers],
    }
    table |= _shares(answers)
    by_task = {
        task: np.array(
            [[answer.shares.get(task, {}).get(name, np.nan) for name in CLASSES[task]] for answer in answers]
        )
        for task in TASKS
    }
    joint = joint_probabilities(by_task)
    for code, column in enumerate(columns_of(JOINT, _prefix(answers))):
        table[column] = [None if value != value else value for value in joint[:, code].tolist()]
    table["agreement"] = [answer.agreement for answer in answers]
    table["asked"] = [answer.asked for answer in answers]
    table["face_found"] = [answer.face_found for answer in answers]
    table["error"] = [answer.error or None for answer in answers]
    with replace_output(path) as temporary:
        _write_parquet(temporary, table)


def _columns(answers: Sequence[Prediction]) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {
        "path": [escape_non_utf8(str(answer.path)) for answer in answers], "label": [answer.label for answer in answers],
        "name": [answer.name or None for answer in answers],
    }  # fmt: skip
    for task in TASKS:
        table[task] = [answer.classes.get(task) for answer in answers]
    table["agreement"] = [answer.agreement for answer in answers]
    return {**table, **_shares(answers), "error": [answer.error or None for answer in answers]}


def _shares(answers: Sequence[Prediction]) -> Mapping[str, list[Any]]:
    prefix = _prefix(answers)
    return {
        column: [answer.shares.get(task, {}).get(name) for answer in answers]
        for task in TASKS
        for column, name in zip(columns_of(task, prefix), CLASSES[task], strict=True)
    }


def _prefix(answers: Sequence[Prediction]) -> str:
    return STRATEGIES[answers[0].strategy]


def _write_parquet(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"label": pa.int64(), "asked": pa.int64(), "face_found": pa.bool_(), "agreement": pa.float64()}
    words = ("path", "name", "error", *TASKS)
    columns = []
    for name, cells in table.items():
        if name in words:
            columns.append(pa.array([None if cell is None else escape_non_utf8(cell) for cell in cells], pa.string()))
        else:
            columns.append(pa.array(cells, kinds.get(name, pa.float64())))
    with path.open("wb") as file:  # by a name, pyarrow takes UTF-8 alone
        pq.write_table(pa.Table.from_arrays(columns, names=list(table)), file)

"""The comparison of two checkouts sees every value at its place: swapped, lost, changed or of another type."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
import pytest

from benchmarks.compare_results import differences, leaves

ANSWERS: list[dict[str, Any]] = [
    {
        "path": "a.jpg",
        "label": 3,
        "name": "wear / female",
        "agreement": 0.5,
        "swayed": None,
        "probabilities": {"male": 0.25},
    },
    {
        "path": "b.jpg",
        "label": 4,
        "name": "wear / male",
        "agreement": 1.0,
        "swayed": True,
        "probabilities": {"male": 0.75},
    },
]


def test_equal_results_do_not_differ_under_renamed_and_additional_fields() -> None:
    later = [
        {"changed_by_external" if key == "swayed" else key: value for key, value in answer.items()}
        for answer in ANSWERS
    ]
    assert differences(ANSWERS, ANSWERS) == []
    assert differences(ANSWERS, [{**answer, "error_kind": None} for answer in later]) == []
    assert differences({"created": "today", "file": "outside-1.parquet"}, {"file": "external-1.parquet"}) == []
    assert differences({"score": float("nan")}, {"score": float("nan")}) == []


@pytest.mark.parametrize("key", ["label", "name", "agreement", "path", "swayed"])
def test_values_that_two_photos_swapped_are_seen(key: str) -> None:
    swapped = copy.deepcopy(ANSWERS)
    swapped[0][key], swapped[1][key] = swapped[1][key], swapped[0][key]
    assert differences(ANSWERS, swapped) == [f"[0].{key}", f"[1].{key}"]


@pytest.mark.parametrize(("value", "now"), [
    (0.25, 0.25000000000000006), ("wear", "not_wear"), ("wear", None), (1, True), (1, 1.0), (None, 0),
])  # fmt: skip
def test_a_changed_value_is_seen(value: Any, now: Any) -> None:
    assert differences({"x": [value]}, {"x": [now]})
    assert differences({"x": [value]}, {"x": []})
    assert differences({"x": [value]}, {"x": [value, value]}) == ["x.length"]
    assert differences({"x": [value]}, {}) == ["x[0]", "x.length"]


def test_tables_are_compared_by_column_row_and_type() -> None:
    table = pd.DataFrame({"path": ["a", "b"], "p(male)": [0.25, 0.75], "p(female)": [0.75, 0.25]})
    renamed = table.rename(columns={"p(male)": "p(gender male)", "p(female)": "p(gender female)"})
    assert differences(table, renamed[renamed.columns[::-1]].assign(more=1)) == []
    assert differences(table, table.iloc[::-1]) == ["path", "p(male)", "p(female)"]
    assert differences(table, table.rename(columns={"p(male)": "p(female)", "p(female)": "p(male)"})) == [
        "p(male)",
        "p(female)",
    ]
    assert differences(table, table.astype({"p(male)": "float32"})) == ["p(male)"]
    assert differences(table, table.head(1)) == ["path", "p(male)", "p(female)", "length"]


def test_a_text_is_compared_line_by_line() -> None:
    assert differences("path,label\na,1\nb,2\n", "path,label\na,2\nb,1\n") == ["lines[1]", "lines[2]"]
    assert differences("a\nb", "a\nb\nc") == ["lines.length"]
    assert differences("a\nb\n", "a\r\nb\n") == ["lines[0]"]


def test_leaves_have_paths() -> None:
    assert leaves({"a": [1, {"b": "x"}], "seconds": 3}) == {("a", "[0]"): 1, ("a", "[1]", "b"): "x", ("a", "length"): 2}

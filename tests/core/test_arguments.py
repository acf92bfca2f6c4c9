"""Arguments out of range, and one text in the place of several, are refused with what is allowed."""

import re
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.arguments import check_range, check_sequence, checked_arguments
from orchestrator.core.errors import ConfigError


@pytest.mark.parametrize(("value", "high", "message"), [
    (-1, None, "--number -1; allowed: 0 or more."), (8, 7, "--number 8; allowed: 0 to 7."),
    (float("nan"), None, "--number nan; allowed: a whole number, 0 or more."),
    (1.5, None, "--number 1.5; allowed: a whole number, 0 or more."),
    (True, 7, "--number True; allowed: a whole number, 0 to 7."),
    ("3", 7, "--number 3; allowed: a whole number, 0 to 7."), (0, 0, None), (7, 7, None), (10**30, None, None), (None, 1, None),
])  # fmt: skip
def test_a_number_out_of_range_is_named_with_the_allowed_ones(
    value: float | None, high: float | None, message: str | None
) -> None:
    if message is None:
        check_range("--number", value, 0, high)
        return
    with pytest.raises(ConfigError) as refused:
        check_range("--number", value, 0, high)
    assert refused.value.message == message


def test_one_text_is_no_sequence() -> None:
    check_sequence("recipes", ["quick"])
    check_sequence("recipes", ())
    for value, shown in (("quick", "'quick'"), (Path("a.csv"), "'a.csv'")):
        with pytest.raises(ConfigError) as refused:
            check_sequence("recipes", value)
        assert refused.value.message == (
            f"recipes = {shown}: a sequence is needed, even of one: write recipes=[{shown}]."
        )


AnyPath = str | PathLike[str]


@pytest.mark.parametrize(("kind", "value"), [
    (AnyPath, ""), (AnyPath | None, ""), (Sequence[AnyPath], ["a", ""]), (Sequence[AnyPath] | None, ("",)),
    (Sequence[AnyPath], (word for word in ("", "a"))),
])  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(kind: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^photos = '': an empty path; '\.' is the current folder\.$"):
        checked_arguments({"photos": value}, {"photos": kind})


def test_an_empty_text_that_is_no_path_stays() -> None:
    for kind, value in ((str, ""), (Sequence[str], [""]), (str | None, ""), (AnyPath, "."), (AnyPath | None, None)):
        assert checked_arguments({"argument": value}, {"argument": kind}) == {"argument": value}


@pytest.mark.parametrize(("kind", "value", "expected"), [
    (int, np.int64(3), 3), (int, np.array(3), 3), (float, np.float32(0.5), 0.5), (float, 2, 2), (bool, np.True_, True),
    (Sequence[str], (word for word in "ab"), ["a", "b"]), (Sequence[str], {"a"}, ["a"]), (Sequence[str], {"a": 1}.keys(), ["a"]),
    (Sequence[int], np.arange(2), [0, 1]), (Sequence[int], pd.Series([4, 5]), [4, 5]), (Sequence[int], (np.int8(1),), (1,)),
    (tuple[int, ...], [np.int64(1)], (1,)), (Sequence[str] | None, None, None), (int | None, np.int64(2), 2),
    (Mapping[str, str], MappingProxyType({"a": "b"}), MappingProxyType({"a": "b"})),
])  # fmt: skip
def test_values_of_other_libraries_are_taken_as_pythons(kind: Any, value: Any, expected: Any) -> None:
    checked = checked_arguments({"argument": value}, {"argument": kind})["argument"]
    assert checked == expected
    assert type(checked) is type(expected)
    if isinstance(expected, list | tuple):
        assert [type(item) for item in checked] == [type(item) for item in expected]


class Sized:
    """Has items, and stands for itself."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, number: int) -> int:
        raise IndexError

    def __call__(self, event: object) -> None:
        pass


def test_only_sequences_are_made_lists() -> None:
    executor = Sized()
    assert checked_arguments({"a": executor, "b": executor}, {"a": Any, "b": Callable[[int], None]}) == {
        "a": executor,
        "b": executor,
    }


@pytest.mark.parametrize(("kind", "value", "needed"), [
    (Sequence[str], np.array("a.jpg"), "Sequence[str]"), (Sequence[str], {"a": 1}, "Sequence[str]"), (int, "2", "int"),
    (int, True, "int"), (int, 2.0, "int"), (bool, 1, "bool"), (Callable[[int], None], None, "Callable"),
])  # fmt: skip
def test_what_no_library_means_is_refused(kind: Any, value: Any, needed: str) -> None:
    with pytest.raises(ConfigError, match=rf"^argument is .*, and must be {re.escape(needed)}\.$"):
        checked_arguments({"argument": value}, {"argument": kind})

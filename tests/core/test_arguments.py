"""Arguments out of range, and one text in the place of several, are refused with what is allowed."""

from pathlib import Path

import pytest

from orchestrator.core.arguments import check_range, check_sequence
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

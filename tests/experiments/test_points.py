"""A grid's points are every combination of its values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.experiments.points import points_of


def test_points_are_every_combination() -> None:
    assert points_of(["loss=ce,focal", "lr=1e-3,3e-4"]) == [
        ["loss=ce", "lr=1e-3"], ["loss=ce", "lr=3e-4"], ["loss=focal", "lr=1e-3"], ["loss=focal", "lr=3e-4"],
    ]  # fmt: skip
    assert points_of(["views=[],['flip', 'zoom']"]) == [["views=[]"], ["views=['flip', 'zoom']"]]
    assert points_of(["loss=0.4 f1 + 0.6 focal,ce"]) == [["loss=0.4 f1 + 0.6 focal"], ["loss=ce"]]
    assert points_of(["sample_factor={}, {'<30' = 2, '>=60' = 3}"]) == [
        ["sample_factor={}"], ["sample_factor={'<30' = 2, '>=60' = 3}"],
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        points_of(["loss", "lr=", "lr=1,2", "lr=3"])
    for message in ("--grid loss: write KEY=A,B", "--grid lr=: write KEY=A,B", "lr appears twice"):
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match="400 combinations, at most 200"):
        points_of([f"lr={','.join(map(str, range(1, 21)))}", f"epochs={','.join(map(str, range(1, 21)))}"])


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), min_size=1, max_size=3))
def test_the_number_of_points_is_the_product(axes: list[list[int]]) -> None:
    points = points_of([f"k{number}={','.join(map(str, values))}" for number, values in enumerate(axes)])
    product = 1
    for values in axes:
        product *= len(values)
    assert len(points) == product == len({tuple(point) for point in points})

"""Calibrations and multipliers change probabilities and labels as their formulas say, and survive JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.combining.calibration import Calibration
from orchestrator.combining.rules import Multipliers

VECTOR = Calibration(((1.2, 0.8, 1.0),), ((0.3, -0.2, 0.0),))
BY_MASK = Calibration(((1.0,) * 3, (2.0,) * 3), ((0.0,) * 3, (0.5, 0.0, 0.0)), "gender")


def rows(photos: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), photos)


@pytest.mark.parametrize("calibration", [VECTOR, BY_MASK])
def test_a_calibration_survives_json(calibration: Calibration) -> None:
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict(), allow_nan=False))) == calibration


def test_what_is_no_calibration_is_refused() -> None:
    for scale, bias, given_ in (
        (((0.0, 1.0),), ((0.0, 0.0),), ""), (((1.0, 1.0),), ((float("nan"), 0.0),), ""), ((1.0, 1.0), (0.0, 0.0), ""),
        (((1.0,), (1.0,)), ((0.0,), (0.0,)), ""),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="a calibration of"):
            Calibration(scale, bias, given_)  # type: ignore[arg-type]  # some are of another shape


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_it_is_the_formula_group_by_group(photos: int, seed: int) -> None:
    probabilities = rows(photos, seed)
    groups = np.random.default_rng(seed).integers(0, 2, photos)
    changed = BY_MASK.apply(probabilities, groups)
    for photo in range(photos):
        scale, bias = np.array(BY_MASK.scale[groups[photo]]), np.array(BY_MASK.bias[groups[photo]])
        raised = np.maximum(probabilities[photo], 1e-7) ** scale * np.exp(bias)
        assert np.allclose(changed[photo], raised / raised.sum(), atol=1e-9)


@given(st.floats(0.2, 5), st.integers(0, 2**32 - 1))
def test_a_temperature_keeps_the_order_of_classes(scale: float, seed: int) -> None:
    temperature = Calibration(((scale,) * 3,), ((0.0,) * 3,))
    assert temperature.keeps_order
    assert not VECTOR.keeps_order
    probabilities = rows(20, seed)
    assert np.array_equal(temperature.apply(probabilities).argmax(axis=1), probabilities.argmax(axis=1))


@given(st.floats(0.2, 5), st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_factors_choose_as_the_calibration_does(scale: float, bias: list[float], seed: int) -> None:
    calibration = Calibration(((scale,) * 3,), (tuple(bias),))
    factors, probabilities = calibration.factors(), rows(20, seed)
    assert factors is not None
    scaled, changed = np.sort(probabilities * np.array(factors), axis=1), calibration.apply(probabilities)
    clear = scaled[:, -1] - scaled[:, -2] > 1e-9
    chosen = (probabilities * np.array(factors)).argmax(axis=1)
    assert np.array_equal(chosen[clear], changed.argmax(axis=1)[clear])
    assert VECTOR.factors() is None  # classes are scaled differently
    assert BY_MASK.factors() is None


def test_multipliers_choose_the_highest_product_and_a_tie_goes_to_the_lower_class() -> None:
    rule = Multipliers({"age": (1.0, 0.5, 2.0)})
    chosen = rule.choose("age", np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
    assert chosen.tolist() == [0, 2, 0]
    assert Multipliers.from_dict(json.loads(json.dumps(rule.as_dict()))) == rule
    assert "age 1, 0.5, 2" in rule.how
    with pytest.raises(ValueError, match="must be positive"):
        Multipliers({"age": (1.0, 0.0, 2.0)})

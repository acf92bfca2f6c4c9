"""What a search may try."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.spaces import DEFAULT, STAGES, Range, parse_space, read_stages
from orchestrator.specialists import SPECIALISTS

SPACE = """
lr = { low = 1e-4, high = 1e-2, log = true }
epochs = { low = 4, high = 12, step = 4 }
loss = ["cross_entropy", "focal"]
net = [{ backbone = "resnet18", frozen_stages = 0 }, { backbone = "resnet34" }]
"""


def test_a_space_is_ranges_choices_and_linked_choices() -> None:
    space = parse_space(SPACE, "here")
    assert space.axes["lr"] == Range(1e-4, 1e-2, True)
    assert space.axes["epochs"] == Range(4, 12, False, 4)
    point = {"lr": 0.00123456, "epochs": 8, "loss": 'loss="focal"', "net": 'backbone="resnet18" frozen_stages=0'}
    assert space.settings(point) == [
        "lr=0.00123", "epochs=8", 'loss="focal"', 'backbone="resnet18"', "frozen_stages=0",
    ]  # fmt: skip
    assert space.points is None
    choices = parse_space("views = [[], ['flip'], ['flip', 'zoom']]\nema = [0.0, 0.99]", "here")
    assert len(choices.points or []) == 6
    assert space.text == parse_space(SPACE.replace("  ", " ") + "\n# a remark\n", "there").text


def test_all_that_is_wrong_with_a_space_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(
            """
            lrr = { low = 1e-4, high = 1e-2 }
            lr = { low = 1e-2, high = 1e-4 }
            ema = { low = 0.9 }
            sam = { low = 0.0, high = 0.1, log = true }
            epochs = { low = 4, high = 8, stp = 2 }
            loss = "focal"
            mixup = []
            net = [{ bakbone = "resnet18" }]
            other = [{ drop_rate = 0.1 }]
            drop_rate = [0.1, 0.2]
            """,
            "space.toml",
        )
    for message in (
        "space.toml: lrr: there is no such setting. Did you mean 'lr'?", "low = 0.01 is not below high = 0.0001",
        "ema: a range needs numbers", "log = true goes with low above 0", "a range has no 'stp'", "'focal' is one value",
        "mixup: no choices", "there is no setting 'bakbone'. Did you mean 'backbone'?", "drop_rate is changed by other too",
    ):  # fmt: skip
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_space("lr = {", "space.toml")
    with pytest.raises(ConfigError, match="nothing to try"):
        parse_space("# nothing", "space.toml")


def test_points_that_the_recipe_cannot_have_are_refused_before_training() -> None:
    space = parse_space('loss = ["focal", "fcal"]\nlr = { low = 1e-3, high = 100.0 }', "here")
    with pytest.raises(ConfigError) as caught:
        space.check(SPECIALISTS["age"], ["quick"], [], None)
    assert "'fcal' is not a loss" in str(caught.value)
    assert "lr = 100.0" in str(caught.value)


def test_the_default_spaces_fit_every_specialist() -> None:
    for task, specialist in SPECIALISTS.items():
        parse_space(DEFAULT, "default").check(specialist, ["quick"], [], None)
        stages = read_stages(None, list(tomllib.loads(STAGES)))
        assert list(stages) == ["model", "loss", "augment", "lr", "tta"]
        for space in stages.values():
            space.check(specialist, ["quick"], [], load_recipes({task: specialist}, ["quick"])[task])


def test_wrong_stages_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage is called 'los'; allowed: model, loss.* Did you mean 'loss'"):
        read_stages(None, ["los"])
    with pytest.raises(ConfigError, match="lr appears twice"):
        read_stages(None, ["lr", "lr"])
    (tmp_path / "stages.toml").write_text("[mine]\nlr = [1e-3, 2e-3]\n")
    assert list(read_stages(tmp_path / "stages.toml", ["mine", "tta"])) == ["mine", "tta"]


@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.floats(0, 1))
def test_a_drawn_number_stays_in_its_range_and_is_short(first: float, other: float, share: float) -> None:
    low, high = sorted((first, other))
    assume(low < high)
    drawn = low + share * (high - low)
    nice = Range(low, high).rounded(min(drawn, high))
    assert low <= nice <= high
    assert abs(nice - min(drawn, high)) <= 0.005 * abs(drawn) + 1e-12

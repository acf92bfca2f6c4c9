"""What a user asks of a combiner: words in, a value, the same words out."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS
from orchestrator.core.strategies import CALIBRATIONS, DECISIONS, ENSEMBLE_KINDS, Strategy, exponent_of

words = st.sampled_from(["soft", "hard", "geometric", "power:0.5", "power:0.25", "greedy"])


@given(
    st.lists(words, min_size=3, max_size=3), st.sampled_from(list(CALIBRATIONS)), st.sampled_from(list(DECISIONS)), st.booleans()
)  # fmt: skip
def test_a_strategy_survives_its_words(votes: list[str], calibrate: str, decide: str, together: bool) -> None:
    if "hard" in votes:
        calibrate, decide, together = "none", "argmax", together and "hard" not in votes[1:]
    strategy = Strategy(dict(zip(TASKS, votes, strict=True)), calibrate, decide, together)
    assert Strategy.parse(strategy.words, calibrate, decide, together) == strategy
    assert strategy.kind in ENSEMBLE_KINDS
    assert (strategy.kind == "mixed") == (len({vote.partition(":")[0] for vote in votes}) > 1)
    pairs = [word for word in strategy.options if word != "--pool-people"]
    options = dict(zip(pairs[::2], pairs[1::2], strict=True))
    again = Strategy.parse(
        options["--strategy"], options.get("--calibrate", "none"), options.get("--decide", "argmax"),
        "--pool-people" in strategy.options,
    )  # fmt: skip
    assert again == strategy
    assert strategy.learns == ("greedy" in votes or (calibrate, decide, together) != ("none", "argmax", False))


def test_a_task_that_is_not_named_votes_softly() -> None:
    assert Strategy.parse("mask=hard").votes == {"mask": "hard", "gender": "soft", "age": "soft"}
    assert Strategy.parse("mask=hard", pool_people=True).title.endswith(
        "people's photos together"
    )  # the mask is not pooled
    assert Strategy.parse("mask=hard").words == "mask=hard,gender=soft,age=soft"
    assert Strategy.parse("age=soft,mask=soft,gender=soft") == Strategy.parse()


@pytest.mark.parametrize(("asked", "message"), [
    (("sft",), "--strategy sft; allowed: soft, hard, geometric, power:P, greedy, auto. Did you mean 'soft'?"),
    (("power:P",), "--strategy power:P: P is a number from 0.01 to below 1"),
    (("power:0.001",), "--strategy power:0.001: P is a number from 0.01 to below 1"),
    (("power:٠.٥",), "P is a number from 0.01"),
    (("power:2",), "--strategy power:2: P is a number from 0.01 to below 1, as in power:0.5."),
    (("power:nan",), "--strategy power:nan: P is a number"),
    (("ag=soft",), "--strategy ag=soft: write TASK=VOTE with a task of mask, gender, age. Did you mean 'age'?"),
    (("age=soft,age=hard",), "--strategy age=hard: age appears twice."),
    (("age=sft",), "--strategy sft; allowed"),
    (("soft,hard",), "--strategy soft,hard; allowed"),
    (("",), "--strategy ; allowed"),
    (("soft", "vectr"), "--calibrate vectr; allowed: none, temperature, vector. Did you mean 'vector'?"),
    (("soft", "none", "f1"), "--decide f1; allowed: argmax, macro-f1."),
    (("hard", "none", "argmax", True), "--pool-people needs probabilities, and a hard vote gives shares of votes."),
    (("mask=hard", "vector", "macro-f1"), "--calibrate vector --decide macro-f1 needs probabilities"),
])  # fmt: skip
def test_words_that_are_not_allowed_are_refused(asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Strategy.parse(*asked)
    assert message in str(error.value)


def test_all_that_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Strategy.parse("age=sft,mask=x", "y", "z")
    assert all(part in str(error.value) for part in ("sft", "--strategy x", "--calibrate y", "--decide z"))


def test_exponents() -> None:
    assert [exponent_of(word) for word in ("soft", "geometric", "power:0.3")] == [None, 0.0, 0.3]


def test_a_table_tells_strategies_apart_in_few_letters() -> None:
    assert Strategy.parse("mask=hard,age=greedy").short == "mask=hard,gender=soft,age=greedy"
    assert Strategy.parse("soft", "vector", "macro-f1", pool_people=True).short == "soft +vector +macro-f1 +people"


def test_titles_are_short_and_say_what_was_asked() -> None:
    assert Strategy.parse().title == "soft vote"
    assert Strategy.parse("power:0.5", "vector", "macro-f1").title == (
        "power:0.5 vote, vector calibration, decision for macro-f1"
    )
    assert "numpy" not in vars(sys.modules["orchestrator.core.strategies"])

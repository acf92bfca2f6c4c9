"""A run's record says what was changed: every word that counts, once."""

import json
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.settings import Settings, changes_of, check_early, recipes_of
from orchestrator.recipes.spaces import STAGES, read_stages
from orchestrator.specialists import TRAINABLE
from tests.conftest import Done, tiny

Orch = Callable[..., Done]


def test_words_that_change_nothing_are_no_changes(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("--data", people / "train", "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1)
    done = orch("train", "mask", *words, *tiny("mask.epochs=2", "epochs=2", "patience=0"))
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "runs/mask-0001/run.json").read_text())
    keys = [change.partition("=")[0].removeprefix("mask.") for change in record["changes"]]
    assert keys.count("epochs") == 1  # said twice, counted once
    assert "patience" not in keys  # it is 0 anyway
    assert f"quick +{len(keys)}" in done.out


def words_on_record(task: str, changes: Sequence[str]) -> list[str]:
    """What a run's record says was changed, of a recipe that is in order."""
    return changes_of(Settings(Path("people"), changes=changes), TRAINABLE[task], None)


def test_words_that_are_right_together_only_are_kept() -> None:
    assert words_on_record("age", ["loss=focal", "focal_gamma=3"]) == ["loss=focal", "focal_gamma=3"]
    assert words_on_record("age", ["focal_gamma=3", "lr=0.1", "loss=focal"]) == [
        "focal_gamma=3",
        "lr=0.1",
        "loss=focal",
    ]


@pytest.mark.parametrize("task", sorted(TRAINABLE))
def test_whatever_the_stages_of_a_search_try_can_be_put_on_record(task: str) -> None:
    tried = 0
    names = [name for name, value in tomllib.loads(STAGES).items() if isinstance(value, dict)]
    for space in read_stages(None, names).values():
        for point in space.points or ():
            changes = space.settings(point)
            with suppress(ConfigError):  # what a recipe refuses, a search leaves out
                recipes_of(Settings(Path("people"), changes=changes), {task: TRAINABLE[task]}, None)
                tried += 1
                assert set(words_on_record(task, changes)) <= set(changes)
    assert tried > 10


def test_settings_out_of_range_are_told_all_at_once(people: Path) -> None:
    settings = Settings(people / "train", folds=1, folds_used=-1, seed=-1, plan_seed=2**32, jobs=-2)
    with pytest.raises(ConfigError) as refused:
        check_early(settings, {"age": TRAINABLE["age"]})
    assert refused.value.message.splitlines() == [
        "--folds 1; allowed: 2 or more, or 0 to train on everything, without a score.",
        "--folds-used -1; allowed: 0 or more.", "--seed -1; allowed: 0 to 4294967295.",
        "--plan-seed 4294967296; allowed: 0 to 4294967295.", "--jobs -2; allowed: 1 or more, or 0 to choose by this machine.",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--folds -3; allowed: 2 or more"):
        read_inputs(Settings(people / "train", folds=-3), {"age": TRAINABLE["age"]})


def test_one_text_is_not_taken_letter_by_letter(people: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings(people / "train", recipes="quick", changes="epochs=1", extra="more.csv")  # type: ignore[arg-type]  # what is refused
    assert [line.partition(":")[0] for line in refused.value.message.splitlines()] == [
        "recipes = 'quick'", "changes = 'epochs=1'", "extra = 'more.csv'",
    ]  # fmt: skip

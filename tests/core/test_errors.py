"""Hints name what was nearly meant; errors of several inputs are raised together, and nothing of them is lost."""

import pickle

import pytest

from orchestrator.core.errors import ConfigError, DataError, InputsError, Mistakes, OrchestratorError, Problem, nearest


@pytest.mark.parametrize(("word", "allowed", "hint"), [
    ("vit_base", ["gcvit_base", "vit_base_patch16_224", "mvitv2_base"], "vit_base_patch16_224"),
    ("resnet-18", ["resnet18d", "resnet18", "skresnet18"], "resnet18"),
    ("efficientnetb0", ["efficientnet_b8", "efficientnet_b0"], "efficientnet_b0"),
    ("qick", ["quick", "standard"], "quick"),
    ("LR", ["lr", "lr_factor"], "lr"),
    ("vertical", ["lr", "epochs"], ""),
])  # fmt: skip
def test_hints_are_near(word: str, allowed: list[str], hint: str) -> None:
    assert nearest(word, allowed) == (f" Did you mean '{hint}'?" if hint else "")


def rows(number: int) -> DataError:
    return DataError(
        "people.csv: wrong rows.", [Problem(f"people.csv, line {line}", "age is 'x'.") for line in range(number)]
    )


def collected(*errors: OrchestratorError, task: str = "") -> OrchestratorError:
    mistakes = Mistakes()
    for error in errors:
        with mistakes.collect(task):
            raise error
    with pytest.raises(OrchestratorError) as raised:
        mistakes.raise_if_any()
    return raised.value


def test_one_mistake_stays_as_it_is_and_several_keep_all_their_problems() -> None:
    mistake = rows(3)
    assert collected(mistake) is mistake
    assert collected(rows(3), rows(3)).problems == mistake.problems  # one mistake, seen twice
    several = collected(rows(300), ConfigError("--jobs -1; allowed: 0, 1, ..."))
    assert isinstance(several, InputsError)
    assert len(several.problems) == 300
    shown = str(several).splitlines()
    assert (shown[0], shown[-2], shown[-1]) == (
        "people.csv: wrong rows.",
        "  ... and 280 more",
        "--jobs -1; allowed: 0, 1, ...",
    )
    again = pickle.loads(pickle.dumps(several))
    assert (str(again), again.problems) == (str(several), several.problems)


def test_mistakes_within_mistakes_are_one_list() -> None:
    inner = collected(ConfigError("a."), ConfigError("b."))
    outer = collected(inner, rows(1), task="age")
    assert str(outer).splitlines()[:3] == ["age: a.", "age: b.", "age: people.csv: wrong rows."]
    assert isinstance(outer, InputsError)
    assert len(outer.errors) == 3

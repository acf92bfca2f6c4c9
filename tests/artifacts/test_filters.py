"""Runs are found by conditions on their settings and scores, and put in order."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import f1_score

from orchestrator.artifacts.filters import conditions_of, in_order
from orchestrator.core.errors import ConfigError
from orchestrator.data.readers import read
from tests.conftest import Done, listed, tiny

Orch = Callable[..., Done]


def test_runs_are_found_by_their_settings_and_scores(orch: Orch, three: Path) -> None:
    assert listed(orch, three, "--where", "task=age") == ["age-0001", "age-0002", "age-0003"]
    assert listed(orch, three, "--where", "task=age loss=focal lr>=0.003") == ["age-0003"]
    assert listed(orch, three, "--where", "lr>0.0025 k=3") == ["age-0002"]
    assert listed(orch, three, "--where", "run~age current=true") == ["age-0003"]
    assert listed(orch, three, "--where", "augment.flip=0.5 task!=age") == ["gender-0001", "mask-0001"]
    scores = json.loads(orch("runs", "list", "-w", three, "--json", "--sort", "score").out)
    pooled = []
    for run in scores:
        table = pd.concat([pd.read_parquet(path) for path in (three / run["id"]).glob("fold-*/held_out.parquet")])
        answers = table.filter(like="p(").to_numpy()
        classes = list(range(answers.shape[1]))
        pooled.append(
            f1_score(table["truth"], answers.argmax(axis=1), labels=classes, average="macro", zero_division=0)
        )
    assert [run["score"] for run in scores] == pytest.approx(pooled)  # over all rows at once, as every other score here
    assert pooled == sorted(pooled, reverse=True)
    assert listed(orch, three, "--sort", "-run") == ["mask-0001", "gender-0001", "age-0003", "age-0002", "age-0001"]
    table = orch("runs", "list", "-w", three, "--where", "focal_gamma=2 task=age")
    assert "focal_gamma" in table.out
    assert listed(orch, three, "--where", "score>1") == []
    assert listed(orch, three, "--where", "task=age score>'0.0'") == ["age-0001", "age-0002", "age-0003"]
    assert len(listed(orch, three, "--where", "recipe!=x=y")) == 5  # a value with a sign in it
    assert listed(orch, three, "--where", "recipe=x=y") == []


def test_wrong_conditions_are_told_at_once(orch: Orch, three: Path) -> None:
    done = orch("runs", "list", "-w", three, "--where", "lss=focal wrong task=age")
    assert done.code == 2
    assert "there is no key 'lss'. Did you mean 'loss'?" in done.err
    assert "'wrong' is not a condition" in done.err
    assert (
        "batch_size is a number, and 'ten' is not one"
        in orch("runs", "list", "-w", three, "--where", "batch_size>ten").err
    )
    assert "there is no key 'scor'. Did you mean 'score'?" in orch("runs", "list", "-w", three, "--sort", "scor").err


def test_conditions_by_hand() -> None:
    facts = {
        "score": 0.61,
        "loss": "0.4 f1 + 0.6 focal",
        "tag": ["a", "b"],
        "plan": None,
        "epochs": 12,
        "on": True,
        "best": None,
        "data": "4f012eddc6f4",
    }
    for text, holds in {
        "score>0.6": True, "score<=0.6": False, "loss='0.4 f1 + 0.6 focal'": True, "loss~focal": True, "tag=b": True,
        "tag!=b": False, "tag=c": False, "plan=none": True, "plan!=none": False, "epochs=12.0": True, "epochs!=12": False,
        "on=true": True, "best>0.5": False, "best<0.5": False, "best!=0.5": True, "best=none": True, "best~on": False,
        "score > 0.6 epochs<13": True, "data=4f012e": True, "data!=4f012e": False, "data=4f01": False, "data=4f012f": False,
    }.items():  # fmt: skip
        assert all(condition.holds(facts) for condition in conditions_of(text, list(facts))) is holds, text
    rows = [{"score": value} for value in (0.5, None, 0.9, 0.7)]
    assert [row["score"] for row in in_order(rows, "score", ["score"])] == [0.9, 0.7, 0.5, None]
    assert [row["score"] for row in in_order(rows, "-score", ["score"])] == [0.5, 0.7, 0.9, None]
    seeds = [{"seed": value} for value in (10, 9, [1, 2], [9, 1])]
    assert [row["seed"] for row in in_order(seeds, "seed", ["seed"])] == [[1, 2], 9, [9, 1], 10]
    with pytest.raises(ConfigError):
        in_order(rows, "other", ["score"])


def test_numbers_are_not_compared_with_words(orch: Orch, three: Path, three_runs: Path) -> None:
    done = orch("runs", "list", "-w", three, "--where", "score>high lr<1e-2x")
    assert done.code == 2
    assert "--where score>high: score is a number, and 'high' is not one." in done.err
    assert "lr is a number" in done.err
    done = orch("runs", "note", "age-0001", "--untag", "nothing", "-w", three_runs)
    assert done.code == 2
    assert "age-0001 has the tags none" in done.err


def test_whoever_learned_from_a_person_is_found(orch: Orch, people: Path, three_runs: Path, tmp_path: Path) -> None:
    """All members of a run but one have learned from each person of its plan; those of other data have not."""
    assert orch("ensemble", "-w", three_runs, "--members", "age=age-0001").code == 0
    person = read(people / "train").table["person"].iloc[0]
    assert orch("data", "synth", tmp_path / "others", "--people", 12, "--seed", 8, "--jobs", 1).code == 0
    table = read(tmp_path / "others/train").table
    manifest = tmp_path / "others/train/others.csv"
    table.assign(person="other " + table["person"]).to_csv(manifest, index=False)
    done = orch("train", "mask", "--data", manifest, "-w", three_runs, "--folds", 2, "--jobs", 1, *tiny("epochs=1"))
    assert done.code == 0, done.err
    learned = listed(orch, three_runs, "--where", f"person={person}")
    assert learned == ["age-0001", "age-0002", "age-0003", "gender-0001", "mask-0001"]
    assert listed(orch, three_runs, "--where", f"person='other {person}'") == ["mask-0002"]
    assert listed(orch, three_runs, "--where", "person=nobody") == []
    assert listed(orch, three_runs, "--where", f"person={person.lstrip('0')}") == learned  # as a spreadsheet writes it
    assert listed(orch, three_runs, "--where", f"person!={person}") == ["mask-0002"]
    assert "people are compared by = and != alone" in orch("runs", "list", "-w", three_runs, "--where", "person>1").err
    assert listed(orch, three_runs, "--where", f"person={person} task=age score>2") == []
    shown = orch("runs", "list", "-w", three_runs, "--where", f"person={person}")
    assert "ensembles that answer with these runs: soft-0001." in shown.err
    assert person not in shown.out
    shown = orch("runs", "list", "-w", three_runs, "--where", f"person='other {person}'")
    assert "ensembles that answer with these runs: none." in shown.err

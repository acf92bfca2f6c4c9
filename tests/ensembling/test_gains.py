"""Ensembles are compared over the same people, by the same draws as runs are."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator import api
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.ensembling.intervals import difference
from tests.conftest import Done, edit_held_out

Orch = Callable[..., Done]


@pytest.fixture
def fused(three_runs: Path) -> Path:
    """A workspace with ensembles of one age run, of another that answers otherwise, and of both by a hard vote."""
    for fold in range(3):
        folder = three_runs / f"age-0002/fold-{fold}"
        table = pd.read_parquet(folder / "held_out.parquet")
        answers = [column for column in table.columns if column.startswith("p(")]
        table.loc[::2, answers] = np.roll(table.loc[::2, answers].to_numpy(), 1, axis=1)
        edit_held_out(folder, table)
    for strategy, runs in (("soft", "age-0001"), ("soft", "age-0002"), ("hard", "age-0001,age-0002")):
        api.ensemble(workspace=three_runs, strategy=strategy, members=[f"age={runs}"])
    return three_runs


def test_ensembles_differ_as_their_answers_do_over_the_same_people(orch: Orch, fused: Path) -> None:
    comparison = api.compare_ensembles(["soft-0001", "soft-0002", "hard-0001"], workspace=fused)
    tables = [pd.read_parquet(fused / name / "out_of_fold.parquet") for name in ("soft-0001", "soft-0002", "hard-0001")]
    assert (comparison.photos, comparison.people, comparison.relabelled) == (168, 24, 0)
    first = tables[0]
    for table, compared in zip(tables[1:], comparison.ensembles[1:], strict=True):
        assert table["path"].equals(first["path"])
        for task in TASKS:
            expected = difference(first["person"], first[f"{task}_truth"], first[task], table[task], len(CLASSES[task]))
            assert compared.gains[task] == expected
        expected_scores = json.loads((fused / compared.record.id / "ensemble.json").read_text())["evaluation"]
        assert compared.macro_f1 == pytest.approx(
            {name: expected_scores[name]["macro_f1"] for name in (*TASKS, "label")}
        )
    assert comparison.ensembles[1].gains["mask"].value == 0.0  # of the same runs
    assert comparison.ensembles[1].gains["mask"].probability == 0.5
    assert comparison.ensembles[1].gains["age"].value != 0.0
    assert comparison.ensembles[0].gains == {}


def test_the_opposite_comparison_has_the_opposite_sign_and_chance(orch: Orch, fused: Path) -> None:
    there, back = (
        api.compare_ensembles(names, workspace=fused).ensembles[1].gains["age"]
        for names in (["soft-0001", "soft-0002"], ["soft-0002", "soft-0001"])
    )
    assert there.value == pytest.approx(-back.value)
    assert there.probability == pytest.approx(1 - back.probability)
    assert there.interval.as_list() == pytest.approx((-back).interval.as_list())


def test_what_cannot_be_compared_is_refused(orch: Orch, people: Path, fused: Path) -> None:
    assert orch("ensemble", "--no-score", "-w", fused).code == 0
    with pytest.raises(ConfigError, match="soft-0003 has no score: left out as asked"):
        api.compare_ensembles(["soft-0001", "soft-0003"], workspace=fused)
    with pytest.raises(ConfigError, match="a comparison needs two ensembles or more"):
        api.compare_ensembles(["soft-0001", "soft-0001"], workspace=fused)
    done = orch("ensembles", "compare", "soft-0001", "soft-9", "-w", fused)
    assert done.code == 2
    assert "ensemble 'soft-9' is not in" in done.err
    (fused / "soft-0002/out_of_fold.parquet").write_bytes(b"")
    done = orch("ensembles", "compare", "soft-0001", "soft-0002", "-w", fused)
    assert done.code == 2
    assert "out_of_fold.parquet" in done.err


def test_the_table_names_what_is_compared_with_what(orch: Orch, fused: Path) -> None:
    done = orch("ensembles", "compare", "soft-0001", "hard-0001", "-w", fused)
    assert done.code == 0, done.err
    assert "out of fold on 168 photos of 24 people that all of them were scored on" in done.out
    assert "over soft-0001" in done.out
    shown = json.loads(orch("ensembles", "compare", "soft-0001", "hard-0001", "-w", fused, "--json").out)
    gain = shown["ensembles"][1]["over_first"]["label"]
    (row,) = [line for line in done.out.splitlines() if line.strip().startswith("hard-0001")]
    assert f"{gain['gain']:+.4f}" in row
    assert f"{gain['probability_better']:.2f}" in row

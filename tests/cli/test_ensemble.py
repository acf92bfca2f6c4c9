"""`orch ensemble`: scores, several runs, what is refused."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.combiners import Combiner
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import VOTES
from orchestrator.ensembling.out_of_fold import join
from tests.conftest import Done, edit_sealed

Orch = Callable[..., Done]

RUNS = ("age-0001", "gender-0001", "mask-0001")


def test_an_ensemble_prints_and_saves_its_scores(orch: Orch, workspace: Path) -> None:
    done = orch("ensemble", "--strategy", "soft", "-w", workspace)
    assert done.code == 0, done.err
    for words in (
        "18-way macro F1",
        "95 % interval",
        "wear / male / <30",
        "age-0001",
        "fold 2",
        "whole run",
        "agree on every",
    ):
        assert words in done.out
    record = json.loads((workspace / "soft-0001" / "ensemble.json").read_text())
    table = pd.read_parquet(workspace / "soft-0001" / "out_of_fold.parquet")
    assert len(table) == 168 == record["evaluation"]["label"]["photos"]
    assert (table["age"] == table["age_truth"]).mean() == pytest.approx(record["evaluation"]["age"]["accuracy"])
    again = orch("ensemble", "--strategy", "hard", "-w", workspace, "--json")
    assert json.loads(again.out)["id"] == "hard-0001"
    assert json.loads(again.out)["evaluation"]["label"] == record["evaluation"]["label"]


def test_what_is_learned_is_scored_nested_with_the_plain_figure_and_the_gap_beside_it(
    orch: Orch, people: Path, workspace: Path
) -> None:
    words = ("--calibrate", "vector", "--decide", "macro-f1", "-w", workspace)
    shown = orch("ensemble", *words)
    assert shown.code == 0, shown.err
    assert "plain, on the people that it was learned from; nested, on others." in " ".join(shown.out.split())
    record = json.loads(orch("ensemble", *words, "--json").out)
    assert (record["id"], record["strategy"], record["calibrate"], record["decide"]) == (
        "soft-0002", "soft", "vector", "macro-f1",
    )  # fmt: skip
    plain, nested = record["plain"]["label"], record["evaluation"]["label"]["macro_f1"]
    row = next(
        line.split() for line in shown.out.splitlines() if line.split()[:1] == ["18-way"] and len(line.split()) == 4
    )
    assert row[1:] == [f"{plain:.4f}", f"{nested:.4f}", f"{plain - nested:+.4f}"]
    table = pd.read_parquet(workspace / "soft-0002" / "out_of_fold.parquet")
    whole = Combiner.from_dict(record["combiner"])
    by_fold = {int(fold): Combiner.from_dict(value) for fold, value in record["combiners_by_fold"].items()}
    joined = join({name: held_out_of(Workspace(workspace), Workspace(workspace).run(name)) for name in RUNS})
    truth = joined.label
    assert plain == pytest.approx(macro_f1(truth, whole.combine(joined.answers).label, 18))
    for fold, combiner in by_fold.items():
        rows = (joined.photos["fold"] == fold).to_numpy()
        assert np.array_equal(combiner.combine(joined.answers.take(rows)).label, table["label"].to_numpy()[rows])
    listed = orch("ensembles", "list", "-w", workspace, "--json")
    assert "soft-0002" in listed.out
    answers = json.loads(orch("predict", people / "eval/images", "-w", workspace, "--json", "--engine", "torch").out)
    plainly = json.loads(
        orch(
            "predict", people / "eval/images", "-w", workspace, "--json", "--engine", "torch", "--strategy", "soft"
        ).out
    )
    for answer, bare in zip(answers, plainly, strict=True):
        age = np.array([list(bare["probabilities"]["age"].values())])
        calibrated = whole.calibrations["age"].apply(age)[0]
        assert list(answer["probabilities"]["age"].values()) == pytest.approx(calibrated, abs=1e-4)


def test_an_ensemble_built_again_as_its_advice_says_is_the_same(orch: Orch, workspace: Path) -> None:
    words = ("--strategy", "mask=hard,age=power:0.5")
    first = json.loads(orch("ensemble", *words, "-w", workspace, "--json").out)
    assert first["id"] == "mixed-0001"
    record = Workspace(workspace).ensemble("mixed-0001")
    command = re.search(r"`orch ([^`]*)`", record.rebuild_advice())
    assert command
    assert orch(*shlex.split(command[1])).code == 0
    again = Workspace(workspace).ensemble("mixed-0002")
    assert (again.combiner, again.strategy, again.evaluation) == (record.combiner, record.strategy, record.evaluation)
    table = pd.read_parquet(workspace / "mixed-0001" / "out_of_fold.parquet")
    assert {"share(mask wear)", "p(age <30)", "p(gender male)"} <= set(table.columns)


def test_wrong_ensembles_are_refused_with_everything_at_once(orch: Orch, people: Path, workspace: Path) -> None:
    edit_sealed(workspace / "age-0001" / "run.json", status="unfinished")
    (workspace / "age-0001" / "fold-1" / "member.json").unlink()
    done = orch("ensemble", "-w", workspace, "--members", "age=age-0001,mask-0001", "gendr=gender-0001", "mask=mask-9")
    assert done.code == 2
    assert "age-0001 is unfinished (fold 1 missing)" in done.err
    assert "mask-0001 is a run of the mask specialist" in done.err
    assert "Did you mean 'gender'?" in done.err
    assert "run 'mask-9' is not in" in done.err


def test_an_unknown_strategy_is_refused(orch: Orch, workspace: Path) -> None:
    stderr = orch("ensemble", "--strategy", "sft", "-w", workspace).err
    assert f"--strategy sft; allowed: {', '.join(VOTES)}. Did you mean 'soft'?" in stderr


def test_changed_held_out_tables_are_refused(orch: Orch, workspace: Path) -> None:
    path = workspace / "age-0001" / "fold-1" / "held_out.parquet"
    table = pd.read_parquet(path)
    table["p(age <30)"] = 1.0
    table.to_parquet(path)
    assert "not the file that was written (sha256 " in orch("ensemble", "-w", workspace).err
    assert "write TASK=RUN" in orch("ensemble", "-w", workspace, "--members", "age=").err


def test_specialists_without_a_complete_run_are_told_at_once(orch: Orch, workspace: Path) -> None:
    for task in ("age", "mask", "gender"):
        (workspace / "current" / f"{task}.json").unlink()
    shutil.rmtree(workspace / "mask-0001")
    edit_sealed(workspace / "gender-0001" / "run.json", status="unfinished")
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert f"no age run is the current one ({workspace / 'current' / 'age.json'} is missing)" in done.err
    assert f"`orch runs use age-0001 --workspace {workspace}`" in done.err
    assert "the mask specialist has no complete run. `orch train-all" in done.err
    assert f"gender-0001 is unfinished: `orch resume gender-0001 --workspace {workspace}` completes it." in done.err


def test_a_hard_vote_gives_shares_and_names_them_so(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    orch("ensemble", "--strategy", "hard", "-w", workspace)
    table = pd.read_parquet(workspace / "hard-0001" / "out_of_fold.parquet")
    assert [name for name in table.columns if "(" in name] == [
        f"share({task} {name})" for task in TASKS for name in CLASSES[task]
    ]
    out = tmp_path / "p.parquet"
    done = orch("predict", people / "eval" / "images", "-w", workspace, "--json", "--probabilities", out)
    assert all("shares" in answer and "probabilities" not in answer for answer in json.loads(done.out))
    assert not [name for name in pd.read_parquet(out).columns if name.startswith("p(")]


def test_members_without_a_run_are_refused(orch: Orch, workspace: Path) -> None:
    for word in ("age=", "age=,", "age=,,"):
        done = orch("ensemble", "--members", word, "-w", workspace)
        assert done.code == 2
        assert f"--members {word}: write TASK=RUN or TASK=RUN,RUN" in done.err

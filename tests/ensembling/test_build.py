"""What an ensemble is built of, and what it lists."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.answers import Answers, Voter
from orchestrator.core.errors import WorkspaceError
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling import build as ensembling
from orchestrator.ensembling.build import build_ensemble
from orchestrator.ensembling.out_of_fold import OutOfFold
from orchestrator.specialists import SPECIALISTS
from tests.conftest import Done, tiny, train

Orch = Callable[..., Done]


def test_an_ensemble_of_runs_deleted_meanwhile_is_not_written(
    three_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Workspace(three_runs)
    runs = {task: [space.run(f"{task}-0001")] for task in TASKS}
    whole = space.lock()
    record = three_runs / "mask-0001/run.json"

    class DeletedFirst:
        def __enter__(self) -> None:
            record.parent.rename(three_runs / "deleted-meanwhile")
            whole.acquire()

        def __exit__(self, *_: object) -> None:
            whole.release()

    monkeypatch.setattr(space, "lock", DeletedFirst)
    with pytest.raises(WorkspaceError, match="mask-0001: deleted by another command"):
        build_ensemble(space, Strategy.parse(), runs, SPECIALISTS)
    assert not list(three_runs.glob("soft-*"))


def test_several_runs_vote_and_their_disagreements_are_listed(orch: Orch, people: Path, workspace: Path) -> None:
    for seed in (1, 2):
        assert train(orch, people, workspace, "train", "age", *tiny("epochs=1"), "--seed", seed).code == 0
    done = orch("ensemble", "-w", workspace, "--members", "age=age-0001,age-0002,age-0003", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert len(record["members"]["age"]) == 9
    assert [entry["run"] for entry in record["single"]["age"] if entry["fold"] is None] == [
        "age-0001",
        "age-0002",
        "age-0003",
    ]
    listed = pd.read_csv(workspace / record["id"] / "disagreements.csv")
    assert len(listed) == record["disagreements"]
    tables = {
        name: pd.concat([pd.read_parquet(path) for path in sorted(workspace.glob(f"{name}/fold-*/held_out.parquet"))])
        .sort_values("path").filter(like="p(").to_numpy()
        for name in ("age-0001", "age-0002", "age-0003")
    }  # fmt: skip
    mean = np.mean(list(tables.values()), axis=0).argmax(axis=1)
    votes = sum(np.eye(3)[table.argmax(axis=1)] for table in tables.values())
    clear = votes.max(axis=1) > 1
    assert len(listed) >= (mean != votes.argmax(axis=1))[clear].sum()
    text = orch("ensemble", "-w", workspace, "age=age-0001,age-0002,age-0003").out
    adds = next(line for line in text.splitlines() if " adds " in line and "interval" in line)
    assert adds.split()[-1] == "verdict"
    assert f"soft and hard voting disagree on {len(listed):,} photos" in text


def test_photos_on_which_the_strategies_differ_are_listed_with_both_answers() -> None:
    """Two of three members put the second photo above 30 by a little, the third below by much."""
    sure = np.array([[0.9, 0.1, 0.0]] * 3)
    torn = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.9, 0.1, 0.0]])
    by_task = {"mask": [np.eye(3)] * 3, "gender": [np.eye(2)[[0, 1, 0]]] * 3, "age": [sure, torn, torn]}
    voters = tuple(Voter(task, f"{task}-{number}") for task in TASKS for number in range(3))
    answers = Answers(
        {task: len(CLASSES[task]) for task in TASKS},
        3,
        voters,
        tuple(array for task in TASKS for array in by_task[task]),
    )
    photos = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"]})
    disagreements = ensembling._disagreements(OutOfFold(photos, {}, answers))
    assert disagreements.to_dict("records") == [
        {"path": "b.jpg", "soft": "incorrect / female / <30", "hard": "incorrect / female / 30-59"}
    ]


def test_runs_of_different_k_predict_together(orch: Orch, people: Path, workspace: Path) -> None:
    words = ["--data", people / "train", "-w", workspace, "--jobs", 1, "--folds", 2, *tiny("epochs=1")]
    assert orch("train", "age", *words).code == 0
    assert orch("ensemble", "-w", workspace, "--members", "age=age-0001,age-0002").code == 2
    done = orch("ensemble", "-w", workspace, "--members", "age=age-0001,age-0002", "--no-score")
    assert done.code == 0, done.err
    done = orch("predict", people / "eval" / "images", "-w", workspace, "--json")
    assert "11 members, soft vote" in done.err
    assert len(json.loads(done.out)) == 28

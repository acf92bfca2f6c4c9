from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from orchestrator.data.folds import FoldPlan
from orchestrator.errors import LeakError, PlanError, WorkspaceError
from orchestrator.evaluation.intervals import intervals
from orchestrator.evaluation.out_of_fold import OutOfFold, added_by, evaluate, join_tasks, read_held_out
from orchestrator.labels import CLASSES, TASKS, compose
from orchestrator.metrics import macro_f1

PLAN = FoldPlan(2, 0, {"a": 0, "b": 1, "c": 0, "d": 1}, ())


def held_out(task: str, fold: int, persons: list[str], seed: int = 0) -> pd.DataFrame:
    """Two photos a person, random answers."""
    rng = np.random.default_rng([seed, fold, len(task)])
    rows = [(f"{person}/{number}.jpg", person) for person in persons for number in range(2)]
    table = pd.DataFrame(rows, columns=["path", "person"]).assign(fold=fold)
    table["truth"] = rng.integers(0, len(CLASSES[task]), len(rows))
    shares = rng.dirichlet(np.ones(len(CLASSES[task])), len(rows)).astype(np.float32)
    return table.assign(**{f"p({name})": shares[:, code] for code, name in enumerate(CLASSES[task])})


def files(folder: Path, tables: list[pd.DataFrame]) -> list[Path]:
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_parquet(path)
    return paths


def test_members_answers_are_joined_photo_by_photo(tmp_path: Path) -> None:
    parts = [held_out("age", 1, ["d", "b"]), held_out("age", 0, ["a", "c"])]
    table = read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)
    assert list(table["path"]) == [f"{person}/{number}.jpg" for person in "abcd" for number in range(2)]
    row = parts[1].set_index("path").loc["c/1.jpg"]
    assert table.set_index("path").loc["c/1.jpg", "p(<30)"] == row["p(<30)"]


def test_a_person_judged_by_a_member_of_another_fold_is_a_leak(tmp_path: Path) -> None:
    parts = [held_out("age", 0, ["a", "b"]), held_out("age", 1, ["d"])]
    with pytest.raises(LeakError, match=r"2 photos were judged by a member of another fold"):
        read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)


def test_a_person_judged_twice_is_a_leak(tmp_path: Path) -> None:
    parts = [held_out("age", 0, ["a"]), held_out("age", 0, ["a", "c"])]
    with pytest.raises(LeakError, match="judged twice"):
        read_held_out("age", "age-0001", files(tmp_path, parts), PLAN)


def test_missing_and_damaged_tables_and_strangers_are_told(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="missing"):
        read_held_out("age", "age-0001", [tmp_path / "none.parquet"], PLAN)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        read_held_out("age", "age-0001", [tmp_path / "cut.parquet"], PLAN)
    empty = held_out("age", 0, ["a", "c"])
    empty.loc[2, "p(<30)"] = np.nan
    with pytest.raises(WorkspaceError, match=r"1 photos have no probabilities between 0 and 1, c/0.jpg among them"):
        read_held_out("age", "age-0001", files(tmp_path, [empty]), PLAN)
    with pytest.raises(PlanError, match="does not know 1 people"):
        read_held_out("age", "age-0001", files(tmp_path, [held_out("age", 0, ["stranger"])]), PLAN)


def whole(task: str, seed: int = 0) -> pd.DataFrame:
    parts = [held_out(task, 0, ["a", "c"], seed), held_out(task, 1, ["b", "d"], seed)]
    return pd.concat(parts).sort_values("path", ignore_index=True)


def test_an_evaluation_is_the_vote_scored_over_all_rows(tmp_path: Path) -> None:
    tables = {task: {f"{task}-0001": whole(task), f"{task}-0002": whole(task).assign()} for task in TASKS}
    joined = join_tasks(tables)
    found, votes, label = evaluate(joined, "soft")
    answers = {}
    for task in TASKS:
        table = tables[task][f"{task}-0001"]
        columns = [f"p({name})" for name in CLASSES[task]]
        answers[task] = table[columns].to_numpy().argmax(axis=1)
        truth = table["truth"].to_numpy()
        assert found[task].scores.macro_f1 == pytest.approx(macro_f1(truth, answers[task], len(CLASSES[task])))
        assert np.array_equal(votes[task].choice, answers[task])
        assert found[task].people == 4
    assert np.array_equal(label, compose(*(answers[task] for task in TASKS)))
    truth = compose(*(tables[task][f"{task}-0001"]["truth"].to_numpy() for task in TASKS))
    assert found["label"].scores.macro_f1 == pytest.approx(macro_f1(truth, label, 18))


def test_runs_and_tasks_that_cover_other_photos_are_refused() -> None:
    tables = {task: {f"{task}-0001": whole(task)} for task in TASKS}
    half = held_out("age", 0, ["a", "c"])
    with pytest.raises(PlanError, match="do not cover the same held-out photos"):
        join_tasks({**tables, "age": {"age-0002": half}})
    with pytest.raises(PlanError, match="age-0001 covers 8 held-out photos and age-0002 4"):
        join_tasks({**tables, "age": {"age-0001": whole("age"), "age-0002": half}})


def test_intervals_draw_people_not_photos() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.8  # per person: all of a person's photos are right or wrong together
    truth = np.zeros(200 * 7, int)
    persons = pd.Series(np.repeat([f"p{number}" for number in range(200)], 7))
    predicted = np.repeat(np.where(right, 0, 1), 7)
    wide = intervals(persons, truth, predicted, 2)["accuracy"]
    narrow = intervals(pd.Series([str(number) for number in range(1400)]), truth, predicted, 2)["accuracy"]
    expected = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 200)
    assert wide.high - wide.low == pytest.approx(expected, rel=0.15)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(np.sqrt(7), rel=0.15)
    assert wide.low < right.mean() < wide.high
    assert intervals(persons, truth, predicted, 2) == intervals(persons, truth, predicted, 2)


def test_what_a_voice_adds_is_the_vote_with_it_less_the_vote_without() -> None:
    """Two good voices and one that always answers the first class; a voice that a task cannot do without is not listed."""
    rng = np.random.default_rng(5)
    joined, runs = {}, {}
    for task in TASKS:
        classes = len(CLASSES[task])
        truth = rng.integers(0, classes, 90)
        table = pd.DataFrame(
            {
                "person": [f"p{row // 3}" for row in range(90)],
                "truth": truth,
                "path": [f"{row:03}" for row in range(90)],
            }
        )
        good = [np.eye(classes)[truth] * 0.4 + rng.dirichlet(np.ones(classes), 90) * 0.6 for _ in range(2)]
        weak = np.tile(np.eye(classes)[0] * 0.9 + 0.1 / classes, (90, 1))
        members = [*good, weak] if task == "age" else good
        joined[task] = OutOfFold(task, table, tuple(np.asarray(one, np.float32) for one in members))
        runs[task] = ["one", "two", "weak"] if task == "age" else ["one", "two"]
    found = added_by(joined, runs, "soft")
    assert list(found) == ["one", "two", "weak"]
    truth = compose(*(joined[task].table["truth"].to_numpy() for task in TASKS))

    def macro(chosen: dict[str, list[int]]) -> float:
        mean = {
            task: np.mean([joined[task].members[place] for place in places], axis=0) for task, places in chosen.items()
        }
        label = compose(*(mean[task].argmax(axis=1) for task in TASKS))
        return float(f1_score(truth, label, labels=range(18), average="macro", zero_division=0))

    whole = {task: list(range(len(joined[task].members))) for task in TASKS}
    for name in ("one", "two", "weak"):
        without = {task: [one for one in places if runs[task][one] != name] for task, places in whole.items()}
        assert found[name][0] == pytest.approx(macro(whole) - macro(without), abs=1e-6)
        assert found[name][1].low <= found[name][0] <= found[name][1].high
    assert found["weak"][1].high < 0  # it drags the vote down, beyond noise
    assert found["one"][0] > 0
    alone = {task: OutOfFold(task, one.table, one.members[:1]) for task, one in joined.items()}
    assert added_by(alone, {task: ["one"] for task in TASKS}, "soft") == {}

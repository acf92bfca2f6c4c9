"""External tables: read as strictly as submissions, each counted once, and shown with the number of their photos."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.artifacts.ensembles import EnsembleMember, EnsembleRecord
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.votes import soft_vote
from orchestrator.core.errors import DataError
from orchestrator.core.labels import (
    CLASS_COUNTS,
    CLASSES,
    LABELS,
    TASKS,
    decompose,
    joint_probabilities,
)
from orchestrator.core.strategies import Strategy
from orchestrator.ensembling.external import ExternalRows, ExternalTable, deduplicated, read_external
from orchestrator.experiments.submissions import read_submission
from tests.conftest import SOFT, Done

Orch = Callable[..., Done]


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ("3", 3), ("3.0", 3), ("17.000", 17), (" 3 ", 3), ("", None), (" ", None),
        ("18", "error"), ("-1", "error"), ("3.5", "error"), ("1e1", "error"), ("03", "error"), ("nan", "error"), ("３", "error"),
        ("0x3", "error"), ("wear", "error"), ("1_0", "error"), ("+3", "error"), ("3.", 3),
    ],
)  # fmt: skip
def test_one_strictness_for_labels(tmp_path: Path, cell: str, label: int | str | None) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"ImageID,ans\na.jpg,{cell}\nb.jpg,5\n")
    if label == "error":
        for read in (read_submission, read_external):
            with pytest.raises(DataError, match=r"t.csv line 2: ans is '.*'; allowed: 0 to 17, or nothing"):
                read(file)
        return
    assert read_submission(file) == {"a.jpg": label, "b.jpg": 5}
    table = read_external(file)
    assert [bool(table.by_task["mask"][row].any()) for row in (0, 1)] == [label is not None, True]
    if isinstance(label, int):
        assert {task: int(table.by_task[task][0].argmax()) for task in TASKS} == {
            task: int(code) for task, code in decompose(label).items()
        }


def test_answers_that_are_no_numbers_are_never_taken_for_none(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,fold,p(gender male),p(gender female)\na.jpg,0,x,y\n,1,0.5,0.5\nb.jpg,z,0.5,0.5\nc.jpg,,,\n")
    with pytest.raises(DataError) as caught:
        read_external(file)
    refusal = str(caught.value)
    for message in (
        "line 2: p(gender male) is 'x'",
        "line 2: p(gender female) is 'y'",
        "line 3: path is empty",
        "line 4: fold is 'z'",
    ):
        assert message in refusal
    file.write_text("path,fold,p(gender male),p(gender female)\na.jpg,0.0,1,0\nb.jpg,,0.25,0.75\nc.jpg,1,,\n")
    table = read_external(file)
    assert table.folds is not None
    assert table.folds.tolist() == [0, -1, 1]
    assert table.by_task["gender"].tolist() == [[1, 0], [0.25, 0.75], [0, 0]]


def test_the_same_answers_count_once_in_whatever_file_and_order(tmp_path: Path) -> None:
    table = pd.DataFrame({"ImageID": ["a.jpg", "b.jpg", "c.jpg"], "ans": [3, 4, 17]})
    table.to_csv(tmp_path / "one.csv", index=False)
    table.iloc[::-1].rename(columns={"ImageID": "path"}).to_parquet(tmp_path / "two.parquet")
    table.assign(ans=[3, 4, 16]).to_csv(tmp_path / "three.csv", index=False)
    tables = [read_external(tmp_path / name) for name in ("one.csv", "two.parquet", "three.csv", "one.csv")]
    kept, notes = deduplicated(tables)
    assert [table.name for table in kept] == ["one.csv", "three.csv"]
    assert [note.split(":")[0] for note in notes] == ["two.parquet", "one.csv"]
    assert tables[0].matched(["x/a.jpg", "x/c.jpg", "x/d.jpg"]) == 2
    assert tables[0].matched(["d.jpg"]) == 0
    (tmp_path / "gap.csv").write_text("ImageID,ans\na.jpg,\nb.jpg,2\n")
    assert (
        read_external(tmp_path / "gap.csv").matched(["a.jpg", "b.jpg"]) == 1
    )  # it names a.jpg, and says nothing of it


def test_how_many_photos_a_table_knows_is_told(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    info = pd.read_csv(people / "eval/info.csv", dtype=str)
    info.assign(ans=3).to_csv(tmp_path / "old.csv", index=False)
    info.assign(ImageID=[f"no-{name}" for name in info["ImageID"]], ans=3).to_csv(tmp_path / "none.csv", index=False)
    shutil.copy(tmp_path / "old.csv", tmp_path / "copy.csv")
    words = [word for name in ("old", "none", "copy") for word in ("--with", tmp_path / f"{name}.csv")]
    done = orch("ensemble", "-w", workspace, *words)
    assert done.code == 0, done.err
    assert "note: copy.csv: gives the same answers as old.csv, given before it: counted once." in done.err
    assert "none.csv: 28 photos, mask, gender, age; names 0 of the 168 held-out photos" in done.err
    done = orch("predict", "--eval", people / "eval", "--out", tmp_path / "s.csv", "-w", workspace, "--engine", "torch")
    assert "old.csv: answers for 28 of these 28 photos" in done.err
    assert "none.csv: answers for 0 of these 28 photos" in done.err


def test_a_table_without_any_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blank.csv"
    path.write_text("path,ans\na.jpg,\nb.jpg,\n")
    with pytest.raises(DataError, match="answers for no photo"):
        read_external(path)
    path.write_text("path,p(gender male),p(gender female)\na.jpg,inf,0\n")
    with pytest.raises(DataError, match=r"not probabilities summing to 1: \[inf, 0.0\]"):
        read_external(path)


def test_a_photo_without_an_answer_is_no_leak(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    first, second = pd.read_parquet(next(workspace.glob("age-0001/fold-0/held_out.parquet")))["path"][:2]
    table = tmp_path / "old.csv"
    table.write_text(f"path,ans\n{first},\nnew/2.jpg,3\n")
    done = orch("ensemble", "-w", workspace, "--with", table)
    assert done.code == 0, done.err
    table.write_text(f"path,ans\n{first},\n{second},3\n")
    done = orch("ensemble", "-w", workspace, "--with", table)
    assert done.code == 2
    assert f"old.csv: {second}: " in done.err


def submission_of(people: Path, file: Path) -> pd.DataFrame:
    info = pd.read_csv(people / "eval/info.csv", dtype=str)
    table = info.assign(ans=np.random.default_rng(0).integers(0, 18, len(info)))
    table.to_csv(file, index=False)
    return table


def test_an_old_submission_votes_with_one_runs_weight(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    old = submission_of(people, tmp_path / "old.csv")
    plain = json.loads(orch("ensemble", "-w", workspace, "--json").out)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "old.csv", "--json")
    assert done.code == 0, done.err
    assert "for prediction alone: it abstains in the score" in done.err
    assert json.loads(done.out)["evaluation"] == plain["evaluation"]
    words = ("predict", "--eval", people / "eval", "-w", workspace, "--engine", "torch", "--json")
    mine, joined = (
        json.loads(orch(*words, "--out", tmp_path / f"{name}.csv", "--ensemble", name).out)
        for name in (plain["id"], json.loads(done.out)["id"])
    )
    digits = decompose(old["ans"].to_numpy())
    # A label speaks as surely as the members do, on the average over the photos that they held out.
    sure = {}
    for task in TASKS:
        tables = [pd.read_parquet(path) for path in (workspace / f"{task}-0001").glob("fold-*/held_out.parquet")]
        sure[task] = pd.concat(tables).filter(like="p(").max(axis=1).mean()
    for row, (without, both) in enumerate(zip(mine, joined, strict=True)):
        for task in TASKS:
            for code, name in enumerate(CLASSES[task]):
                label = sure[task] if digits[task][row] == code else (1 - sure[task]) / (len(CLASSES[task]) - 1)
                there = (without["probabilities"][task][name] + label) / 2
                assert both["probabilities"][task][name] == pytest.approx(there, abs=2e-5)
    refused = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert refused.code == 2
    assert "old.csv: an export holds networks" in refused.err
    # One name, two photos, in whatever batches: the table means neither.
    same = old["ImageID"].iloc[0]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(people / "eval/images" / same, tmp_path / folder / same)
    both = orch(
        "predict",
        tmp_path / "one" / same,
        tmp_path / "two" / same,
        "-w",
        workspace,
        "--engine",
        "torch",
        "--batch",
        1,
        "--json",
    )
    single = orch(
        "predict", tmp_path / "one" / same, "-w", workspace, "--engine", "torch", "--json", "--ensemble", plain["id"]
    )
    for answer in json.loads(both.out):
        assert answer["probabilities"] == json.loads(single.out)[0]["probabilities"]
    # A photo that the table does not know is answered by the members alone.
    elsewhere = tmp_path / "unknown.jpg"
    shutil.copy(next(iter((people / "eval/images").iterdir())), elsewhere)
    without, both = (
        json.loads(orch("predict", elsewhere, "-w", workspace, "--engine", "torch", "--json", "--ensemble", name).out)
        for name in (plain["id"], json.loads(done.out)["id"])
    )
    assert [answer.pop("changed_by_external") for answer in (without[0], both[0])] == [None, False]
    assert without == both


def test_out_of_fold_probabilities_from_elsewhere_are_scored_and_leaks_refused(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    parts = [pd.read_parquet(path) for path in sorted((workspace / "age-0001").glob("fold-*/held_out.parquet"))]
    table = pd.concat(parts, ignore_index=True)
    rng = np.random.default_rng(1)
    sure = np.eye(3)[table["truth"]] * 0.9 + 0.1 * rng.dirichlet(np.ones(3), len(table))
    other = pd.DataFrame({"path": table["path"], "fold": table["fold"]} | {
        f"p(age {name})": sure[:, code] for code, name in enumerate(CLASSES["age"])
    })  # fmt: skip
    other.to_parquet(tmp_path / "other.parquet")
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "other.parquet", "--json")
    assert done.code == 0, done.err
    ensemble = json.loads(done.out)
    assert "scored where it is out of fold" in done.err
    (alone,) = [entry for entry in ensemble["single"]["age"] if entry["run"] == "other.parquet"]
    assert alone["accuracy"] == 1.0
    assert "other.parquet" not in [entry["run"] for entry in ensemble["single"]["mask"]]
    own = table.sort_values("path", ignore_index=True)
    both = [own.filter(like="p(").to_numpy(), sure[np.argsort(table["path"])].astype(np.float32)]
    shares = soft_vote(both, [1.0, 1.0]).shares
    written = pd.read_parquet(workspace / ensemble["id"] / "out_of_fold.parquet")
    assert np.allclose(written.filter(like="p(age").to_numpy(), shares, atol=1e-6)
    other.drop(columns="fold").to_csv(tmp_path / "silent.csv", index=False)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "silent.csv")
    assert done.code == 2
    assert "no column `fold` says which fold's member answered" in done.err
    other.assign(fold=(other["fold"] + 1) % 3).to_csv(tmp_path / "seen.csv", index=False)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "seen.csv")
    assert done.code == 2
    assert f"{len(other):,} such photos" in done.err
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "silent.csv", "--no-score")
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", ["tasks", "labels", "codes", "answers"])
def test_every_way_of_writing_answers_is_read(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(2)
    by_task = {task: rng.dirichlet(np.ones(len(CLASSES[task])), 6) for task in TASKS}
    joint = joint_probabilities(by_task)
    codes = joint.argmax(axis=1)
    columns: dict[str, object] = {"ImageID": [f"{n}.jpg" for n in range(6)]}
    if kind == "tasks":
        columns |= {
            f"share({task} {name})": by_task[task][:, c] for task in TASKS for c, name in enumerate(CLASSES[task])
        }
    elif kind == "answers":
        columns |= {"ans": codes}
        by_task = {task: np.eye(len(CLASSES[task]))[digits] for task, digits in decompose(codes).items()}
    else:
        columns |= {(f"p({name})" if kind == "labels" else str(c)): joint[:, c] for c, name in enumerate(LABELS)}
    pd.DataFrame(columns).to_csv(tmp_path / "table.csv", index=False)
    table = read_external(tmp_path / "table.csv")
    for task in TASKS:
        assert np.allclose(table.by_task[task], by_task[task], atol=1e-6)
    assert list(table.rows(["some/where/3.jpg", "0.jpg", "9.jpg"])) == [3, 0, -1]
    table.write(tmp_path / "again.parquet")
    again = read_external(tmp_path / "again.parquet")
    for task in TASKS:
        assert np.allclose(again.by_task[task], table.by_task[task], atol=2e-7)
    nobody = again.answers(again.rows(["9.jpg"]))
    assert {voter.task for voter in nobody.voters} == set(TASKS)
    assert all((probabilities == 0).all() for probabilities in nobody.probabilities)


def test_all_that_is_wrong_with_a_table_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    for text, messages in {
        "name,ans\na,1\n": ("one must be path or ImageID",),
        "path,ans\na.jpg,1\na.jpg,2\nb.jpg,18\nc.jpg,old\n": (
            "'a.jpg' appears in 2 rows", "line 4: ans is '18'; allowed: 0 to 17", "line 5: ans is 'old'",
        ),
        "path,p(gender male)\na.jpg,1\n": ("and not its other classes",),
        "path,p(gender male),p(gender female)\na.jpg,0.5,0.6\nb.jpg,-1,2\nc.jpg,,\n": ("line 2", "line 3"),
        "path,0,1\na.jpg,0.5,0.5\n": ("has 2 of the 18 labels' columns",),
        "path,other\na.jpg,1\n": ("has no answers: ans, or p(mask wear)",),
    }.items():  # fmt: skip
        file.write_text(text)
        with pytest.raises(DataError) as caught:
            read_external(file)
        for message in messages:
            assert message in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_external(tmp_path / "gone.csv")
    file.write_text("path,ans\nc/a/x.jpg,1\nb/x.jpg,2\nc/y.jpg,\nz.jpg,3\n")
    table = read_external(file)
    # The end of a path, in either direction, and an ImageID anywhere; another person's file of the same name is another photo.
    assert list(table.rows(["a/x.jpg", "/data/b/x.jpg", "/data/z.jpg"])) == [0, 1, 3]
    assert list(table.rows(["c/a/x.jpg"])) == [0]
    assert list(table.rows(["z/x.jpg", "z/y.jpg", "x.jpg", "ac/y.jpg"])) == [-1, -1, -1, -1]
    assert list(table.rows(["one/z.jpg", "two/z.jpg", "b/x.jpg"])) == [
        -1,
        -1,
        1,
    ]  # one name, two photos: neither is meant
    assert list(table.rows(["one/z.jpg", "one/z.jpg"])) == [3, 3]
    assert not any(array.any() for array in table.answers(table.rows(["c/y.jpg"])).probabilities)


def test_a_caller_who_comes_while_the_keys_are_indexed_gets_the_whole_answer() -> None:
    photos, answers, passes = ["a/x.jpg", "b/x.jpg", "z.jpg"], list[list[int]](), list[int]()

    class Keys(tuple[str, ...]):
        """Keys of which somebody else asks while they are gone through for the second time."""

        def __iter__(self) -> Iterator[str]:
            passes.append(1)
            if len(passes) == 2:
                answers.append(table.rows(photos).tolist())
            return super().__iter__()

    table = ExternalTable("old.csv", Keys(["c/a/x.jpg", "b/x.jpg", "z.jpg"]), {})
    answers.append(table.rows(photos).tolist())
    assert answers == [[0, 1, 2], [0, 1, 2]]


def test_rows_of_all_photos_are_the_same_in_every_part_of_them() -> None:
    uniform = np.full((2, 3), 1 / 3, np.float32)
    tables = [
        ExternalTable("a.csv", ("a.jpg", "x/b.jpg"), {"age": uniform}),
        ExternalTable("b.csv", ("y/a.jpg", "c"), {}),
    ]
    photos = ["x/a.jpg", "y/a.jpg", "x/b.jpg"]
    rows = ExternalRows.of(tables, photos)
    assert [indices.tolist() for indices in rows.take(photos)] == [[-1, -1, 1], [-1, 0, -1]]
    assert [indices.tolist() for indices in rows.take([photos[0], None])] == [
        [-1, -1],
        [-1, -1],
    ]  # alone it would be a.jpg
    assert [indices.tolist() for indices in rows.take([])] == [[], []]
    assert rows.matched == [1, 0]
    with pytest.raises(ValueError, match=r"1 photos are not among the 3 of these rows, z\.jpg first"):
        rows.take(["x/a.jpg", "z.jpg"])


@given(st.integers(1, 4), st.integers(1, 3))
def test_a_table_weighs_as_much_as_a_run_whatever_its_folds(folds: int, photos: int) -> None:
    rng = np.random.default_rng(folds)
    task, classes = "age", CLASS_COUNTS["age"]
    members = [
        EnsembleMember(task, run, fold, "", "", "", (task,))
        for run in ("age-0001", "age-0002")
        for fold in range(folds)
    ]
    record = EnsembleRecord(Path(), "soft-0001", Strategy.parse(), SOFT.as_dict(), "", tuple(members))
    own = rng.dirichlet(np.ones(classes), photos)
    labels = ExternalTable("old.csv", tuple(map(str, range(photos))), {task: np.eye(classes)[np.zeros(photos, int)]})
    voters = tuple(Voter(task, member.run, member.fold) for member in members)
    answers = Answers(CLASS_COUNTS, photos, voters, (own,) * len(voters))
    weights = {task: record.members_per_run(task)}
    both = SOFT.votes[task].decide(answers.with_voters(labels.answers(np.arange(photos), weights)).of(task))
    assert np.allclose(both.shares, (2 * own + labels.by_task[task]) / 3, atol=1e-5)  # two runs and a table


@given(st.integers(2, 18), st.floats(0.4, 0.99), st.floats(0.5, 1))
def test_a_label_is_outvoted_by_members_who_are_surer(classes: int, sure: float, mine: float) -> None:
    task = next(task for task in TASKS if len(CLASSES[task]) == min(3, classes))
    own = len(CLASSES[task])
    labels = np.eye(own, dtype=np.float32)[[0, 1]]
    table = ExternalTable("old.csv", ("a", "b", "c"), {task: np.concatenate([labels, np.zeros((1, own), np.float32)])})
    soft = table.softened({task: max(sure, 1 / own + 0.01)}).by_task[task]
    assert soft[:2].sum(axis=1) == pytest.approx(1)
    assert not soft[2].any()  # what abstains goes on abstaining
    assert (soft[:2].argmax(axis=1) == [0, 1]).all()
    member = np.full(own, (1 - mine) / (own - 1))
    member[1] = mine
    if mine > soft[0, 0] + 1e-3:
        assert (soft[0] + member).argmax() == 1
    given_probabilities = ExternalTable("p.csv", ("a",), {task: np.full((1, own), 1 / own, np.float32)})
    assert (given_probabilities.softened({task: 0.9}).by_task[task] == np.float32(1 / own)).all()

"""Tables from elsewhere: read as strictly as submissions, each counted once, and told by how many photos they know."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import DataError
from orchestrator.core.labels import LABELS, TASKS, decompose, differing, read_label
from orchestrator.data.contest import read_eval
from orchestrator.ensembling.external import each_once, read_external
from orchestrator.experiments.submissions import compare_submissions, read_submission
from tests.conftest import Done

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
    found = read_external(file)
    assert [bool(found.by_task["mask"][row].any()) for row in (0, 1)] == [label is not None, True]
    if isinstance(label, int):
        assert {task: int(found.by_task[task][0].argmax()) for task in TASKS} == {
            task: int(code) for task, code in decompose(label).items()
        }


@given(st.integers(0, 17), st.integers(0, 17))
def test_labels_differ_in_the_tasks_whose_classes_differ(one: int, other: int) -> None:
    words = [dict(zip(TASKS, LABELS[label].split(" / "), strict=True)) for label in (one, other)]
    assert differing(one, other) == [task for task in TASKS if words[0][task] != words[1][task]]
    assert read_label(str(one)) == one


def test_answers_that_are_no_numbers_are_never_taken_for_none(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,fold,p(gender male),p(gender female)\na.jpg,0,x,y\n,1,0.5,0.5\nb.jpg,z,0.5,0.5\nc.jpg,,,\n")
    with pytest.raises(DataError) as caught:
        read_external(file)
    told = str(caught.value)
    for words in (
        "line 2: p(gender male) is 'x'",
        "line 2: p(gender female) is 'y'",
        "line 3: path is empty",
        "line 4: fold is 'z'",
    ):
        assert words in told
    file.write_text("path,fold,p(gender male),p(gender female)\na.jpg,0.0,1,0\nb.jpg,,0.25,0.75\nc.jpg,1,,\n")
    found = read_external(file)
    assert found.folds is not None
    assert found.folds.tolist() == [0, -1, 1]
    assert found.by_task["gender"].tolist() == [[1, 0], [0.25, 0.75], [0, 0]]


def test_the_same_answers_count_once_in_whatever_file_and_order(tmp_path: Path) -> None:
    one = pd.DataFrame({"ImageID": ["a.jpg", "b.jpg", "c.jpg"], "ans": [3, 4, 17]})
    one.to_csv(tmp_path / "one.csv", index=False)
    one.iloc[::-1].rename(columns={"ImageID": "path"}).to_parquet(tmp_path / "two.parquet")
    one.assign(ans=[3, 4, 16]).to_csv(tmp_path / "three.csv", index=False)
    tables = [read_external(tmp_path / name) for name in ("one.csv", "two.parquet", "three.csv", "one.csv")]
    kept, notes = each_once(tables)
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


def test_a_submission_with_gaps_is_read_by_all(orch: Orch, tmp_path: Path) -> None:
    """What `orch predict --on-error mark` writes: an empty answer is no answer, neither equal nor different."""
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text("ImageID,ans\na.jpg,\nb.jpg,2\nc.jpg,3.0\n")
    other.write_text("ImageID,ans\nc.jpg,3\na.jpg,1\nb.jpg,4\n")
    found = compare_submissions(one, other)
    assert (found.rows, found.answered, found.photos, found.unanswered) == (3, 2, (("b.jpg", 2, 4),), (1, 0))
    done = orch("submissions", "diff", one, other)
    assert "1 of 2 answers differ (50.00 %)" in done.out
    assert f"{one}: 1 photo without an answer" in done.err
    assert np.isclose(read_external(one).by_task["mask"].sum(), 2)
    assert read_external(one).photos == 2


@pytest.mark.parametrize(
    "text",
    [
        "ImageID,ans\r\na.jpg,0\r\nb.jpg,0\r\n",
        '\ufeff"ImageID","ans"\n"a.jpg","0"\n"b.jpg","0"\n',
        ",ImageID,ans\n0,a.jpg,0\n1,b.jpg,0\n",
        'ans,note,ImageID\n0,"x, ""y""",a.jpg\n\n0,,b.jpg',
        "ImageID , ans\n a.jpg, 0\nb.jpg ,0\n",
    ],
)  # fmt: skip
def test_a_submission_is_info_csv_byte_for_byte_but_for_the_answers(tmp_path: Path, text: str) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / f"images/{name}.jpg").touch()
    (tmp_path / "info.csv").write_bytes(text.encode())
    found = read_eval(tmp_path)
    assert [path.name for path in found.paths] == ["a.jpg", "b.jpg"]
    written = found.submission([7, None])
    (tmp_path / "s.csv").write_bytes(written.encode())
    assert read_submission(tmp_path / "s.csv") == {"a.jpg": 7, "b.jpg": None}
    back = read_eval(tmp_path)
    assert back.table.filled("ans", back.table.words("ans")) == text
    # Taking the answers out of both leaves the same.
    assert written.replace("7", "", 1).replace('"', "") == found.submission([None, None]).replace('"', "")


def test_a_table_without_any_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blank.csv"
    path.write_text("path,ans\na.jpg,\nb.jpg,\n")
    with pytest.raises(DataError, match="answers for no photo"):
        read_external(path)
    path.write_text("path,p(gender male),p(gender female)\na.jpg,inf,0\n")
    with pytest.raises(DataError, match=r"no probabilities that sum to 1: \[inf, 0.0\]"):
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

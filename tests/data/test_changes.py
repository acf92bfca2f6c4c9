"""Whatever differs between two states of the data is named, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.changes import Relabelled, changes_between
from orchestrator.data.photos import Photos
from tests.conftest import Done

Orch = Callable[..., Done]


def photos_of(rows: list[dict[str, object]]) -> tuple[Photos, list[str]]:
    """A table of photos without files, and their contents."""
    table = pd.DataFrame(rows, columns=["path", "person", "age", "mask", "content"])
    return Photos(Path("here"), table.drop(columns="content"), "manifest"), table["content"].tolist()


def drawn(count: int, seed: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "path": f"{number}.jpg", "person": f"p{rng.integers(0, 5)}", "age": float(rng.integers(20, 70)),
            "mask": str(rng.choice(["wear", "incorrect"])), "content": f"c{number}",
        }
        for number in range(count)
    ]  # fmt: skip


@given(st.integers(1, 20), st.integers(0, 2**32 - 1), st.data())
def test_each_edit_is_named_as_what_it_is(count: int, seed: int, data: st.DataObject) -> None:
    before, after = drawn(count, seed), []
    expected: dict[str, list[object]] = {"gone": [], "moved": [], "rewritten": [], "relabelled": [], "added": []}
    same = 0
    for row in before:
        edit = data.draw(st.sampled_from(["keep", "gone", "moved", "rewritten", "age", "person"]))
        changed = dict(row)
        if edit == "gone":
            expected["gone"].append(row["path"])
            continue
        if edit == "moved":
            changed["path"] = f"moved/{row['path']}"
            expected["moved"].append((row["path"], changed["path"]))
        elif edit == "rewritten":
            changed["content"] = f"new {row['content']}"
            expected["rewritten"].append(row["path"])
        elif edit == "age":
            changed["age"] = 99.0
            expected["relabelled"].append(Relabelled(row["path"], row["person"], "age", row["age"], 99.0))
        elif edit == "person":
            changed["person"] = "somebody"
            expected["relabelled"].append(Relabelled(row["path"], "somebody", "person", row["person"], "somebody"))
        else:
            same += 1
        after.append(changed)
    for number in range(data.draw(st.integers(0, 2))):
        after.append({**before[0], "path": f"added {number}", "content": f"added {number}", "person": "newcomer"})
        expected["added"].append(f"added {number}")
    after = data.draw(st.permutations(after))
    (old, old_content), (new, new_content) = photos_of(before), photos_of(after)
    changes = changes_between(old, new, old_content, new_content)
    assert sorted(changes.photos_gone) == sorted(expected["gone"])
    assert sorted(changes.photos_added) == sorted(expected["added"])
    assert sorted(changes.moved) == sorted(expected["moved"])
    assert sorted(changes.rewritten) == sorted(expected["rewritten"])
    assert sorted(map(repr, changes.relabelled)) == sorted(map(repr, expected["relabelled"]))
    assert changes.same == same
    people_before, people_now = ({row["person"] for row in rows} for rows in (before, after))
    assert set(changes.people_added) == people_now - people_before
    assert set(changes.people_gone) == people_before - people_now
    assert changes.any == (before != sorted(after, key=lambda row: before.index(row) if row in before else -1))


def test_equal_files_of_one_table_are_told_apart() -> None:
    rows = [
        {"path": f"{name}.jpg", "person": name, "age": 30.0, "mask": "wear", "content": "the same"} for name in "abc"
    ]
    (old, old_content), (new, new_content) = photos_of(rows), photos_of([rows[2], rows[0]])
    changes = changes_between(old, new, old_content, new_content)
    assert (changes.photos_gone, changes.people_gone, changes.same) == (("b.jpg",), ("b",), 2)
    assert not changes.relabelled


def test_a_column_that_came_or_went_is_a_change_of_every_photo() -> None:
    (old, content), (new, _) = photos_of(drawn(3, 1)), photos_of(drawn(3, 1))
    without = Photos(Path("here"), new.table.drop(columns="mask"), "manifest")
    changes = changes_between(old, without, content, content)
    assert [(change.column, change.after) for change in changes.relabelled] == [("mask", None)] * 3


def test_a_corrected_label_and_a_person_who_left_are_shown(orch: Orch, people: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(people / "train", newer)
    table = pd.read_csv(newer / "train.csv", dtype=str)
    gone = table["path"].iloc[0]
    shutil.rmtree(newer / "images" / gone)
    table = table.iloc[1:]
    table.loc[table.index[2], "age"] = "88"
    table.to_csv(newer / "train.csv", index=False)
    done = orch("data", "diff", people / "train", newer)
    assert done.code == 0, done.err
    assert "1 person gone:" in done.out
    assert "7 photos gone:" in done.out
    assert "1 value changed:" in done.out
    assert "-> 88 (7 photos)" in done.out
    assert "154 photos unchanged." in done.out
    changes = json.loads(orch("data", "diff", people / "train", newer, "--json").out)
    assert (changes["same"], len(changes["relabelled"]), changes["people"]["added"]) == (154, 7, [])
    assert "nothing changed in 168 photos." in orch("data", "diff", people / "train", people / "train").out
    assert orch("data", "diff", people / "train", tmp_path / "nowhere").code == 2

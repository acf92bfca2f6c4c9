"""Tables of extra photos: what is wrong in them or would leak is reported at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.core.errors import DataError
from orchestrator.data.extra import EVERY_FOLD, read_extra
from tests.conftest import Done, tiny, train

Orch = Callable[..., Done]


def test_what_would_leak_is_refused(orch: Orch, people: Path, workspace: Path, others: Path, tmp_path: Path) -> None:
    photo = next(iter(sorted((people / "train/images").rglob("*.*"))))
    shutil.copy(photo, tmp_path / "copy.jpg")
    (tmp_path / "duplicate.csv").write_text("path,mask\ncopy.jpg,wear\n")
    done = train(orch, people, workspace, "train", "mask", *tiny(), "--extra", tmp_path / "duplicate.csv")
    assert done.code == 2
    assert "would be trained on and scored" in done.err
    assert photo.name in done.err
    table = pd.read_csv(others, dtype=str, keep_default_na=False)
    table["path"] = [str(others.parent / path) for path in table["path"]]
    for more, message in (
        ({"fold": "0"}, "without saying by which plan"), ({"fold": "0", "plan": "0123456789ab"}, "made by plan 0123456789ab"),
    ):  # fmt: skip
        table.assign(**more).to_csv(tmp_path / "folds.csv", index=False)
        done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", tmp_path / "folds.csv")
        assert done.code == 2
        assert message in done.err
    digest = json.loads((workspace / "age-0001/run.json").read_text())["plan"]["digest"]
    table.head(1).assign(fold="0", plan=digest[:12]).to_csv(tmp_path / "planned.csv", index=False)
    table.tail(1).assign(fold="0").to_csv(tmp_path / "unplanned.csv", index=False)
    both = [word for name in ("planned", "unplanned") for word in ("--extra", tmp_path / f"{name}.csv")]
    done = train(orch, people, workspace, "train", "age", *tiny(), *both)
    assert done.code == 2
    assert "without saying by which plan" in done.err  # another table's plan says nothing of this one's
    words = ("train", "age", "--data", people / "train", "-w", workspace, "--folds", 0)
    assert "--folds 0 has none" in orch(*words, *tiny(), "--extra", tmp_path / "folds.csv").err
    assert not (workspace / "age-0002").exists()


def test_where_extra_tables_lie_does_not_matter(tmp_path: Path) -> None:
    fingerprints = set()
    for first, second in (("a", "b"), ("d", "c")):
        for folder, photos in ((first, ("x", "z")), (second, ("w", "y"))):
            (tmp_path / folder).mkdir()
            for name in photos:
                (tmp_path / folder / f"{name}.jpg").write_bytes(name.encode())
            rows = "\n".join(f"{name}.jpg,wear" for name in photos)
            (tmp_path / folder / "extra.csv").write_text(f"path,mask\n{rows}\n")
        extra = read_extra([tmp_path / first / "extra.csv", tmp_path / second / "extra.csv"])
        assert [path.name for path in extra.paths] == ["w.jpg", "x.jpg", "y.jpg", "z.jpg"]
        fingerprints.add(extra.fingerprint([path.read_text() for path in extra.paths]))
    assert len(fingerprints) == 1


def test_all_that_is_wrong_with_an_extra_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    rows = "a.jpg,old,wear,0\nb.jpg,30-59,waer,x\na.jpg,200,,-1\na.jpg,20,,inf\na.jpg,20,,1.7\n"
    (tmp_path / "one.csv").write_text("path,age,mask,fold\n" + rows)
    (tmp_path / "two.csv").write_text("file,age\na.jpg,20\n")
    with pytest.raises(DataError) as caught:
        read_extra([tmp_path / "one.csv", tmp_path / "two.csv"])
    for message in (
        "one.csv line 2: age is 'old'", "one.csv line 3: no file b.jpg", "mask is 'waer'", "fold is 'x'", "line 4: age is '200'",
        "fold is '-1'", "fold is 'inf'", "fold is '1.7'", "two.csv: has the columns file, age; needed: path",
    ):  # fmt: skip
        assert message in str(caught.value)
    (tmp_path / "good.csv").write_text("path,age\na.jpg,<30\n")
    extra = read_extra([tmp_path / "good.csv"])
    assert list(extra.table["fold"]) == [EVERY_FOLD]
    assert not extra.table["age_exact"].iloc[0]
    assert extra.table["person"].iloc[0].startswith("extra:")
    (tmp_path / "twice.csv").write_text("path,age\na.jpg,20\na.jpg,30\n")
    with pytest.raises(DataError, match=r"twice\.csv lines 2, 3: path '.*/a\.jpg' appears in 2 rows"):
        read_extra([tmp_path / "twice.csv"])


def test_a_table_that_is_given_twice_counts_once(others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(others.parent)
    once, twice = read_extra([others]), read_extra([others, Path("extra.csv")])
    assert len(twice.sources) == 1
    pd.testing.assert_frame_equal(once.table, twice.table)

"""`orch predict`: tables, JSON, the contest's file, photos and members that cannot be used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import Done

Orch = Callable[..., Done]


def test_predicting_files_folders_and_the_contests_eval(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    images = sorted((people / "eval" / "images").iterdir())
    done = orch("predict", images[0], people / "eval" / "images", "-w", workspace, "--json")
    answers = json.loads(done.out)
    assert [answer["path"] for answer in answers] == [str(path) for path in images]
    assert all(sum(answer["probabilities"]["age"].values()) == pytest.approx(1, abs=1e-4) for answer in answers)
    out, shares = tmp_path / "submission.csv", tmp_path / "p.parquet"
    done = orch("predict", "--eval", people / "eval", "--out", out, "--probabilities", shares, "-w", workspace)
    assert done.code == 0, done.err
    info, submission = pd.read_csv(people / "eval" / "info.csv"), pd.read_csv(out)
    assert list(submission.columns) == list(info.columns)
    assert submission["ImageID"].equals(info["ImageID"])
    by_name = {Path(answer["path"]).name: answer["label"] for answer in answers}
    assert submission["ans"].tolist() == [by_name[name] for name in info["ImageID"]]
    table = pd.read_parquet(shares)
    assert np.allclose(table.filter(regex=r"^p\(\w+ / ").sum(axis=1), 1, atol=1e-4)
    assert orch("predict", images[0], "-w", workspace).out.count(" / ") >= 2
    assert orch("predict", images[0], "-w", workspace, "--strategy", "hard", "--json").code == 0


def test_an_unreadable_photo_is_an_error_or_a_marked_row(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    orch("ensemble", "-w", workspace)
    copy = tmp_path / "eval"
    shutil.copytree(people / "eval", copy)
    name = pd.read_csv(copy / "info.csv")["ImageID"][3]
    (copy / "images" / name).write_bytes(b"")
    out = tmp_path / "s.csv"
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace)
    assert done.code == 2
    assert name in done.err
    assert "--on-error mark" in done.err
    assert not out.exists()
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace, "--on-error", "mark")
    assert done.code == 0
    assert "28 rows in info.csv's order, 1 of them empty" in done.err
    rows = out.read_text().splitlines()
    assert rows[4] == f"{name},"
    assert all(row.split(",")[1].isdigit() for row in rows[1:4] + rows[5:])


def test_predict_needs_one_kind_of_input_and_an_ensemble(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert "give either photos or --eval DIR" in orch("predict", "-w", workspace).err
    assert "--eval and --out go together" in orch("predict", "--eval", people / "eval", "-w", workspace).err
    assert "there is no ensemble yet" in orch("predict", people / "eval" / "images", "-w", workspace).err
    assert "no photos found" in orch("predict", tmp_path, "-w", workspace).err
    assert "--on-error ignore; allowed: fail, mark" in orch("predict", tmp_path, "--on-error", "ignore").err
    assert "a .parquet file is written" in orch("predict", people / "eval" / "images", "--probabilities", "p.csv").err


def test_a_missing_eval_photo_is_a_marked_row_too(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    orch("ensemble", "-w", workspace)
    copy = tmp_path / "eval"
    shutil.copytree(people / "eval", copy)
    names = list(pd.read_csv(copy / "info.csv")["ImageID"])
    (copy / "images" / names[0]).unlink()
    (copy / "images" / names[-1]).write_bytes(b"")
    out = tmp_path / "s.csv"
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace, "--on-error", "mark", "--batch", 8)
    assert done.code == 0, done.err
    rows = out.read_text().splitlines()
    assert (rows[1], rows[-1]) == (f"{names[0]},", f"{names[-1]},")
    done = orch("predict", *(copy / "images").iterdir(), "-w", workspace, "--batch", 8)
    assert done.code == 2
    assert "1 of 27 photos cannot be read" in done.err


def test_brackets_in_names_are_printed_as_they_are(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orch("ensemble", "-w", workspace)
    photo = tmp_path / "IMG[copy][b].jpg"
    monkeypatch.chdir(tmp_path)  # a short name is not folded
    shutil.copy(next((people / "eval" / "images").iterdir()), photo)
    assert "IMG[copy][b].jpg" in orch("predict", photo.name, "-w", workspace).out


def test_a_profile_tells_where_the_time_went(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("predict", people / "eval", "-w", workspace, "--profile")
    assert done.code == 0, done.err
    for stage in ("decode", "crop and resize", "mask members", "gender members", "age members", "vote"):
        assert stage in done.out
    assert "decode" not in orch("predict", people / "eval", "-w", workspace).out

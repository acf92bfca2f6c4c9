"""`orch predict`: tables, JSON, the contest's file, photos and members that cannot be used."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.labels import CLASSES, LABELS, TASKS
from tests.conftest import Done, close_to_readers, hashes

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
    joint = table[[f"p({name})" for name in LABELS]].to_numpy()
    assert np.allclose(joint.sum(axis=1), 1, atol=1e-4)
    assert joint.argmax(axis=1).tolist() == submission["ans"].tolist()
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
    assert done.code == 1  # partly failed
    assert "28 rows in info.csv's order, 1 of them empty" in done.err
    rows = out.read_text().splitlines()
    assert rows[4] == f"{name},"
    assert all(row.split(",")[1].isdigit() for row in rows[1:4] + rows[5:])


def test_predict_needs_one_kind_of_input_and_an_ensemble(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert "give exactly one of photos and --eval DIR" in orch("predict", "-w", workspace).err
    assert "--eval and --out go together" in orch("predict", "--eval", people / "eval", "-w", workspace).err
    assert "there is no ensemble yet" in orch("predict", people / "eval" / "images", "-w", workspace).err
    assert "no photos found" in orch("predict", tmp_path, "-w", workspace).err
    assert "--on-error ignore; allowed: fail, mark" in orch("predict", tmp_path, "--on-error", "ignore").err
    assert (
        "give a name that ends in .parquet"
        in orch("predict", people / "eval" / "images", "--probabilities", "p.csv").err
    )


def test_a_missing_eval_photo_is_a_marked_row_too(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    orch("ensemble", "-w", workspace)
    copy = tmp_path / "eval"
    shutil.copytree(people / "eval", copy)
    names = list(pd.read_csv(copy / "info.csv")["ImageID"])
    (copy / "images" / names[0]).unlink()
    (copy / "images" / names[-1]).write_bytes(b"")
    out = tmp_path / "s.csv"
    done = orch("predict", "--eval", copy, "--out", out, "-w", workspace, "--on-error", "mark", "--batch", 8)
    assert done.code == 1, done.err
    rows = out.read_text().splitlines()
    assert (rows[1], rows[-1]) == (f"{names[0]},", f"{names[-1]},")
    done = orch("predict", *(copy / "images").iterdir(), "-w", workspace, "--batch", 8)
    assert done.code == 2
    assert "1 of 27 photos cannot be read" in done.err


def test_a_photo_without_permission_is_a_marked_row_that_says_so(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    folder = tmp_path / "photos"
    shutil.copytree(people / "eval" / "images", folder)
    first = sorted(folder.iterdir())[0]
    close_to_readers(first, monkeypatch)
    done = orch("predict", folder, "-w", workspace, "--on-error", "mark", "--json")
    assert done.code == 1, done.err
    answers = json.loads(done.out)
    assert "no permission to read it" in answers[0]["error"]
    assert answers[0]["label"] is None
    assert all(answer["label"] is not None and not answer.get("error") for answer in answers[1:])
    done = orch("predict", folder, "-w", workspace)
    assert done.code == 2
    assert "no permission to read it" in done.err
    assert "with --on-error mark their rows stay empty" in done.err
    done = orch("pseudo", folder, "-w", workspace, "--threshold", 0.5, "--out", tmp_path / "p.csv")
    assert done.code == 2
    assert "--skip-unreadable leaves them out" in done.err
    assert (
        orch(
            "pseudo", folder, "-w", workspace, "--threshold", 0.5, "--out", tmp_path / "p.csv", "--skip-unreadable"
        ).code
        == 0
    )
    assert "damaged" not in done.err


def test_a_folder_says_how_many_of_its_files_are_no_photos(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(next((people / "eval" / "images").iterdir()), folder / "a.jpg")
    for name in ("d.tiff", "f.gif", "notes.txt", "more.txt"):
        (folder / name).write_bytes(b"x")
    message = f"{folder}: 4 files skipped, not photos: 2 .txt, 1 "
    for words in ((), ("--json",), ("--out", tmp_path / "answers.csv")):
        done = orch("predict", folder, "-w", workspace, *words)
        assert done.code == 0, done.err
        assert message in done.err


def test_agreement_is_explained_above_the_table(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    lines = orch("predict", people / "eval" / "images", "-w", workspace).out.splitlines()
    explained = next(number for number, line in enumerate(lines) if "agreement: share of members that chose" in line)
    assert "agreement" in next(line for line in lines[explained + 1 :] if "label" in line)


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


def test_answers_are_written_by_the_ending_in_the_order_given(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photos = sorted((people / "eval" / "images").iterdir(), reverse=True)[:5]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    given = [*photos[:2], broken, *photos[2:]]
    for strategy, prefix in (("soft", "p"), ("hard", "share")):
        words = ("predict", *given, "-w", workspace, "--strategy", strategy, "--on-error", "mark")
        for name in ("a.csv", "a.parquet", "a.json"):
            done = orch(*words, "--out", tmp_path / name)
            assert (done.code, done.out) == (1, ""), done.err
            assert "6 rows, in the order of the photos, 1 of them empty" in done.err
        answers = json.loads(orch(*words, "--json").out)
        assert json.loads((tmp_path / "a.json").read_text()) == answers
        for table in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")):
            assert table["path"].tolist() == [str(path) for path in given] == [answer["path"] for answer in answers]
            assert list(table.columns[:7]) == ["path", "label", "name", "mask", "gender", "age", "agreement"]
            assert table.drop(index=2)["label"].tolist() == [
                answer["label"] for answer in answers if answer["label"] is not None
            ]
            assert table.loc[2].drop(["path", "error"]).isna().all()
            assert isinstance(table["error"][2], str)
            assert table["error"].notna().sum() == 1
            for row, answer in zip(table.drop(index=2).to_dict("records"), [*answers[:2], *answers[3:]], strict=True):
                assert f"{row['mask']} / {row['gender']} / {row['age']}" == row["name"] == answer["name"]
                assert row["agreement"] == pytest.approx(answer["agreement"])
                shares = answer["probabilities" if strategy == "soft" else "shares"]
                for task in TASKS:
                    assert [row[f"{prefix}({task} {name})"] for name in CLASSES[task]] == pytest.approx(
                        list(shares[task].values())
                    )
    # What was written votes too: the table is one of those that `orch ensemble --with` reads.
    assert orch("predict", *photos, "-w", workspace, "--out", tmp_path / "old.csv").code == 0
    assert orch("ensemble", "-w", workspace, "--with", tmp_path / "old.csv").code == 0


def test_names_that_are_no_utf8_are_written_as_their_bytes(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    photo = next((people / "eval" / "images").iterdir())
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    shutil.copy(photo, odd)
    for suffix in ("csv", "parquet", "json"):
        done = orch("predict", odd, "-w", workspace, "--out", tmp_path / f"a.{suffix}")
        assert done.code == 0, done.err
    paths = [
        pd.read_csv(tmp_path / "a.csv")["path"][0], pd.read_parquet(tmp_path / "a.parquet")["path"][0],
        json.loads((tmp_path / "a.json").read_text())[0]["path"],
    ]  # fmt: skip
    assert all(path.endswith("/caf\\xe9.jpg") for path in paths), paths


def test_outputs_are_checked_before_any_work_and_never_written_over_inputs(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a member was loaded")

    monkeypatch.setattr("orchestrator.inference.opening.load_members", load)
    copy, link = tmp_path / "ev", tmp_path / "link.csv"
    shutil.copytree(people / "eval", copy)
    link.symlink_to(copy / "info.csv")
    before = hashes(copy)
    photo = next((copy / "images").iterdir())
    for words, message in (
        (
            ("--eval", copy, "--out", copy / "info.csv"),
            f"--out {copy / 'info.csv'}: would write over {copy / 'info.csv'}",
        ),
        (("--eval", copy, "--out", link), f"--out {link}: would write over"),
        (("--eval", copy, "--out", tmp_path), "is a folder; give the name of a file"),
        (("--eval", copy, "--out", tmp_path / "a.json"), "give a name that ends in .csv"),
        ((photo, "--out", tmp_path / "a.xlsx"), "give a name that ends in .csv, .parquet or .json"),
        ((photo, "--out", "/proc/a.csv"), "no file can be made in /proc"),
        ((photo, "--out", workspace / "soft-0001/answers.csv"), "among the files that orch keeps"),
        (
            (photo, "--out", tmp_path / "a.parquet", "--probabilities", tmp_path / "a.parquet"),
            "are the same file or folder",
        ),
    ):
        done = orch("predict", *words, "-w", workspace)
        assert done.code == 2, words
        assert message in done.err, (words, done.err)
    assert hashes(copy) == before
    assert link.is_symlink()

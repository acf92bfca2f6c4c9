"""`orch data check`, `describe`, `folds` and `synth` as a user sees them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from orchestrator.data.check import check
from orchestrator.data.readers import read
from tests.conftest import ROOT, Done, tiny
from tests.data.test_photo_files import odd_name

Orch = Callable[..., Done]


def test_data_commands_in_sequence(orch: Orch, tmp_path: Path) -> None:
    root = tmp_path / "people"
    done = orch("data", "synth", root, "--people", 12, "--eval-people", 2, "--jobs", 1)
    assert done.code == 0, done.err
    assert f"next: orch train-all --data {root / 'train'}" in done.err
    done = orch("data", "check", "--data", root / "train", "--folds", 2)
    assert (done.code, done.out) == (
        0,
        "84 photos of 12 people, 84 files opened: 0 errors, 0 notes. Training may start.\n",
    )
    done = orch("data", "describe", "--data", root / "train", "--out", tmp_path / "p.png", "--json")
    assert json.loads(done.out)["photos"] == 84
    assert (tmp_path / "p.png").stat().st_size > 10_000
    done = orch("data", "folds", "--data", root / "train", "--folds", 2, "--json")
    report = json.loads(done.out)
    assert report["k"] == 2
    classes = [f"{gender} {band}" for gender in ("male", "female") for band in ("<30", "30-59", ">=60")]
    assert [row["class"] for row in report["folds"]] == [*classes, "all people", "all photos"]
    next((root / "train" / "images").rglob("normal.jpg")).write_bytes(b"")
    done = orch("data", "check", "--data", root / "train", "--folds", 2, "--json")
    assert done.code == 1
    report = json.loads(done.out)
    assert (report["may_train"], report["fatal"]) == (False, 1)
    assert report["problems"][0]["kind"] == "unreadable"


def test_a_source_of_notes_and_no_photos_may_not_train(orch: Orch, people: Path, tmp_path: Path) -> None:
    shutil.copytree(people / "train", tmp_path / "train")
    header = (tmp_path / "train" / "train.csv").read_text().splitlines()[0]
    (tmp_path / "train" / "train.csv").write_text(header + "\n")
    done = orch("data", "check", "--data", tmp_path / "train")
    assert done.code == 1
    assert "no photos found" in done.out + done.err


def test_a_check_says_whether_this_training_may_start(orch: Orch, people: Path, tmp_path: Path) -> None:
    photos = read(people / "train").table.assign(path=lambda table: [str(people / "train" / p) for p in table["path"]])
    bare, words = tmp_path / "bare.csv", ["--json"]
    photos[["path", "person", "gender"]].to_csv(bare, index=False)
    done = orch("data", "check", "--data", bare, "--folds", 3, *words)
    assert done.code == 1
    fatal = [problem for problem in json.loads(done.out)["problems"] if problem["fatal"]]
    assert [problem["kind"] for problem in fatal] == ["missing_column"] * 2
    assert "leave age out with --tasks" in fatal[0]["fix"]
    assert orch("data", "check", "--data", bare, "--folds", 3, "--tasks", "gender").code == 0
    refused = orch("train-all", "--data", bare, "--folds", 3, "-w", tmp_path / "runs")
    assert refused.code == 2
    assert f"{bare}: the age specialist needs the column age" in refused.err
    done = orch("data", "check", "--data", people / "train", "--folds", 9)
    assert done.code == 1
    assert "--folds 9 is larger than the smallest class" in done.out
    assert orch("data", "check", "--data", people / "train", "--folds", 3).code == 0


def test_a_check_opens_photos_even_where_the_table_lacks_a_column(orch: Orch, people: Path, tmp_path: Path) -> None:
    shutil.copytree(people / "train", tmp_path / "train")
    table = pd.read_csv(tmp_path / "train" / "train.csv", dtype=str)
    table.drop(columns="gender").to_csv(tmp_path / "train" / "train.csv", index=False)
    empty = next((tmp_path / "train" / "images").rglob("mask1.*"))
    empty.write_bytes(b"")
    done = orch("data", "check", "--data", tmp_path / "train", "--json")
    assert done.code == 1
    problems = {problem["kind"]: problem["where"] for problem in json.loads(done.out)["problems"]}
    assert problems == {"missing_column": str(tmp_path / "train" / "train.csv"), "unreadable": str(empty)}


def test_a_check_shows_each_kind_of_note_for_a_page_and_lists_all_for_machines(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    photos = read(people / "train").table
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(photos["path"]):
        shutil.copy(people / "train" / path, flat / f"{number:03d}{Path(path).suffix}")
    names = sorted(path.name for path in flat.iterdir())
    photos.assign(path=names)[:126].drop(columns=["age", "gender"]).to_csv(flat / "some.csv", index=False)
    words = ("--data", flat / "some.csv", "--folds", 2, "--tasks", "mask")
    done = orch("data", "check", *words)
    assert done.code == 0, done.out
    assert done.out.count("is in no row of some.csv: left out.") == 20
    assert "... and 22 more of the kind 'extra_file'" in done.out
    extra_files = [
        problem
        for problem in json.loads(orch("data", "check", *words, "--json").out)["problems"]
        if problem["kind"] == "extra_file"
    ]
    assert [problem["where"] for problem in extra_files] == [str(flat / name) for name in names[126:]]


def test_a_description_shows_ages_and_upright_sizes(orch: Orch, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for number in range(3):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(
            tmp_path / f"{number}.jpg", exif=exif if number else Image.Exif()
        )
    rows = [(f"{number}.jpg", f"p{number}", age) for number, age in enumerate((20, 31, 64))]
    pd.DataFrame(rows, columns=["path", "person", "age"]).to_csv(tmp_path / "m.csv", index=False)
    done = orch("data", "describe", "--data", tmp_path / "m.csv")
    assert done.code == 0, done.err
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    for expected in (
        "youngest 20",
        "half are below 31",
        "oldest 64",
        "people within 3 years of 30 1",
        "20 x 40 2",
        "40 x 20 1",
    ):
        assert expected in lines


def test_a_check_of_a_table_that_is_not_there_or_has_no_paths_names_no_photo_that_is_not(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    shutil.copytree(people / "train" / "images", tmp_path / "images")
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    done = orch("data", "check", "--data", tmp_path / "m.csv", "--json")
    assert done.code == 1
    assert {problem["kind"] for problem in json.loads(done.out)["problems"]} == {"missing_column"}
    for name in ("mm.csv", "typo"):
        done = orch("data", "check", "--data", tmp_path / name, "--json")
        assert done.code == 2
        assert "no such folder or table" in json.loads(done.out)["error"]["message"]


def test_a_check_names_a_table_once(orch: Orch, people: Path, tmp_path: Path) -> None:
    table = tmp_path / "m.csv"
    table.write_bytes("path,person\na.jpg,José\n".encode("latin-1"))
    done = orch("data", "check", "--data", table)
    assert done.code == 1
    assert f"{table} line 2: byte 0xe9" in done.out
    assert done.out.count(str(table)) == 1
    done = orch("data", "check", "--data", people / "eval", "--json")
    (problem,) = json.loads(done.out)["problems"]
    assert problem["where"] == str(people / "eval/train.csv")
    assert problem["what"].startswith("no such file. Give the folder that holds train.csv")


def test_bands_are_described_from_young_to_old(orch: Orch, people: Path) -> None:
    done = orch("data", "describe", "--data", people / "train")
    assert done.code == 0, done.err
    bands = ["<30", "30-59", ">=60"]
    firsts = [line.split()[0] for line in done.out.splitlines() if line.split() and line.split()[0] in bands]
    assert firsts == bands
    whole = json.loads(orch("data", "describe", "--data", people / "train", "--json").out)["tables"]
    joint = [row["age band"] for row in whole["by mask x gender x age band"]]
    assert joint == bands * (len(joint) // 3)


def test_a_data_folder_with_such_names_is_checked_described_and_trained_on(people: Path, tmp_path: Path) -> None:
    home = odd_name(tmp_path / "x").parent
    root = Path(os.fsdecode(os.fsencode(home) + b"/dat\xe9"))
    shutil.copytree(people / "train", root)
    person = next((root / "images").iterdir())
    odd_name(person)
    report = check(root)
    assert not report.fatal
    (note,) = [problem for problem in report.problems if problem.kind == "extra_file"]
    assert "caf\\xe9.jpg" in str(note)
    commands = [["data", "check", "--folds", "2"], ["data", "describe"], ["data", "folds", "--folds", "2"]]
    commands.append(["train-all", "--folds", "0", "--tasks", "mask", "-w", str(home / "runs"), *tiny("epochs=1")])
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-c", "from orchestrator.cli.app import main; main()", *words, "--data", root, "--json"],
            capture_output=True, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    assert "caf" not in str(sorted((home / "runs").rglob("*")))
    run = json.loads((home / "runs/mask-0001/run.json").read_bytes())
    assert run["data"]["source"] == str(root)


@pytest.mark.parametrize(
    "words", [["check", "--folds", "2"], ["describe"], ["folds", "--folds", "2"]], ids=lambda words: words[0]
)
def test_data_commands_import_no_network(people: Path, words: list[str]) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'timm', 'matplotlib', 'albumentations'} & set(sys.modules)\n"
        "sys.exit(','.join(sorted(heavy)) or 0)"
    )
    words = [words[0], "--data", str(people / "train"), *words[1:]]
    done = subprocess.run(
        [sys.executable, "-c", code, "data", *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr

"""Extra photos and pseudo-labels from the command line: told apart, and gone on with after a kill."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator import api
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.labels import CLASSES
from orchestrator.inference.pseudo import PseudoLabels
from tests.conftest import Done, hashes, tiny, train
from tests.programs import Program

Orch = Callable[..., Done]


def test_extra_photos_show_wherever_runs_are_told_apart(
    orch: Orch, people: Path, workspace: Path, others: Path, tmp_path: Path
) -> None:
    done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", others)
    assert done.code == 0, done.err
    fingerprint = json.loads((workspace / "age-0002/run.json").read_text())["data"]["extra"]["fingerprint"][:12]
    compared = orch("runs", "compare", "age-0001", "age-0002", "-w", workspace, "--json")
    assert json.loads(compared.out)["differing"]["extra"] == ["none", f"{others} ({fingerprint[:6]})"]
    listed = orch("runs", "list", "-w", workspace, "--where", f"extra={others}", "--json")
    assert [run["id"] for run in json.loads(listed.out)] == ["age-0002"]
    assert f"fingerprint {fingerprint}" in " ".join(orch("runs", "show", "age-0002", "-w", workspace).out.split())
    done = train(orch, people, workspace, "train", "age", *tiny("lr=0.004"), "--valid-only")
    assert "note: age-0002 was trained on extra photos too" in done.err
    assert "age-0002 differs only" not in done.err
    # Where the table lies does not matter, and neither does what the paths in it look like.
    moved = tmp_path / "moved"
    shutil.copytree(others.parent, moved)
    table = pd.read_csv(moved / others.name, dtype=str, keep_default_na=False)
    table.assign(path=[str(moved / path) for path in table["path"]]).to_csv(moved / "renamed.csv", index=False)
    done = train(orch, people, workspace, "train", "age", *tiny(), "--extra", moved / "renamed.csv")
    assert "age-0002 has it already" in done.err


@pytest.mark.parametrize(("words", "message"), [
    (("--threshold", 0.2), "--threshold 0.2; allowed: 0.5"),
    (("--threshold", 0.9999999), "lower --threshold"),
    (("--out", "labels.txt"), "give a name that ends in .csv or .parquet"),
])  # fmt: skip
def test_wrong_words_of_pseudo_are_told(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("pseudo", "--eval", people / "eval", "--out", tmp_path / "p.csv", "-w", workspace, *words)
    assert done.code == 2
    assert message in done.err


def test_pseudo_says_how_many_more_photos_were_not_read(
    orch: Orch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [(Path(f"{number}.jpg"), "damaged.") for number in range(23)]
    table = pd.DataFrame(columns=["path", "fold", "mask", "gender", "age"])
    monkeypatch.setattr(api, "pseudo_label", lambda *_, **__: PseudoLabels(table, 0, failed))
    done = orch("pseudo", "photos", "--out", tmp_path / "pseudo.csv")
    assert done.err.count("not read: ") == 20
    assert "not read: 19.jpg: damaged.\nand 3 more.\n" in done.err


@pytest.mark.slow
def test_killed_with_pseudo_labels_it_goes_on_to_the_same_bits(people: Path, workspace: Path, tmp_path: Path) -> None:
    record = RunRecord.load(workspace / "age-0001")
    assert record.plan is not None
    photos = sorted((people / "eval/images").iterdir())
    pd.DataFrame([
        {"path": str(path), "fold": fold, "plan": record.plan.digest[:12], "age": CLASSES["age"][(fold + number) % 3]}
        for number, path in enumerate(photos) for fold in range(3)
    ]).to_parquet(tmp_path / "pseudo.parquet")  # fmt: skip
    words = [
        "train", "age", "--data", people / "train", "--folds", 3, "--jobs", 1, "--extra", tmp_path / "pseudo.parquet",
        *tiny("epochs=10"),
    ]  # fmt: skip
    for name in ("whole", "killed"):
        shutil.copytree(workspace, tmp_path / name)

    def start(name: str) -> Program:
        return Program([*words, "-w", tmp_path / name], tmp_path / f"{name}.log")

    assert start("whole").wait() == 0
    process = start("killed")
    begun = time.monotonic()
    while not list((tmp_path / "killed").glob("age-0002/fold-*/history.json")) and time.monotonic() - begun < 120:
        time.sleep(0.05)
    process.kill()
    assert not RunRecord.load(tmp_path / "killed/age-0002").complete
    assert start("killed").wait() == 0
    names = ("weights.safetensors", "held_out.parquet")
    whole, killed = (
        {key: value for key, value in hashes(tmp_path / name / "age-0002").items() if key.endswith(names)}
        for name in ("whole", "killed")
    )
    assert len(whole) == 6
    assert whole == killed

"""Inputs are read with a note on what the data lacks, and hashes that are damaged are counted anew."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.pipeline.inputs import read_inputs
from orchestrator.pipeline.settings import Settings
from orchestrator.specialists import TRAINABLE
from tests.conftest import TINY, Done, tiny

Orch = Callable[..., Done]


def test_without_a_mask_column_any_photo_of_a_person_is_drawn(orch: Orch, people: Path, tmp_path: Path) -> None:
    photos = sorted((people / "train" / "images").rglob("*.jpg"))
    table = pd.DataFrame({"path": [str(path) for path in photos], "person": [path.parent.name for path in photos]})
    table["age"] = [int(person.rsplit("_", 1)[1]) for person in table["person"]]
    table.to_csv(tmp_path / "table.csv", index=False)
    done = orch(
        "train-all", "--data", tmp_path / "table.csv", "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1,
        "--tasks", "age", *tiny("epochs=1"),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "note: the data has no mask column: age draws any photo of a person." in done.err


@pytest.mark.parametrize("how", ["one bit", "empty", "a folder", "of another"])
def test_damaged_hashes_of_extra_photos_are_counted_anew(people: Path, workspace: Path, others: Path, how: str) -> None:
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu", extra=[others])
    right = read_inputs(settings, {"age": TRAINABLE["age"]}).extra_of("age")
    assert right
    cached = workspace / "cache" / "extra_hashes.json"
    data = cached.read_bytes()
    cached.unlink()
    if how == "a folder":
        cached.mkdir()
    elif how == "of another":
        cached.write_bytes((workspace / "cache" / "hashes.json").read_bytes())
    else:
        at = data.index(b'": "') + 6  # in the first photo's hash
        cached.write_bytes(b"" if how == "empty" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert read_inputs(settings, {"age": TRAINABLE["age"]}).extra_of("age") == right
    assert cached.is_file()

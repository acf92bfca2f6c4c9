"""Too few people or photos to train on are refused before any run is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.data.readers import read
from tests.conftest import Done, tiny, train

Orch = Callable[..., Done]


def test_dropped_people_must_leave_somebody_to_train_on(orch: Orch, people: Path, tmp_path: Path) -> None:
    everybody = json.dumps(sorted({*read(people / "train", {}).table["person"]}))
    done = train(orch, people, tmp_path / "runs", "train-all", "--tasks", "age", *tiny(f"age.drop_people={everybody}"))
    assert done.code == 2
    assert "drop_people leaves nobody to train on for fold 0, fold 1, fold 2" in done.err
    assert not list(tmp_path.glob("runs/age-*"))
    words = ("train", "age", "--data", people / "train", "-w", tmp_path / "runs", "--folds", 0)
    done = orch(*words, *tiny(f"drop_people={everybody}"))
    assert "drop_people leaves nobody to train on for all photos" in done.err
    nobody = tiny('drop_people=["nobody"]')
    assert "no person has that key" in train(orch, people, tmp_path / "runs", "train", "age", *nobody).err


def some_of(people: Path, count: int, folder: Path) -> Path:
    """The first of the synthetic people, of one age, as a table: two of one gender (either may be a fold), more of both."""
    folders = sorted((people / "train" / "images").iterdir())[:count]
    rows = [
        {
            "path": str(path),
            "person": folder_of_person.name[:6],
            "gender": "female" if number > 1 else "male",
            "age": 25,
            "mask": mask_of(path.stem),
        }
        for number, folder_of_person in enumerate(folders)
        for path in sorted(folder_of_person.iterdir())
    ]
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def mask_of(name: str) -> str:
    return {"normal": "not_wear", "incorrect_mask": "incorrect"}.get(name, "wear")


def test_one_photo_an_epoch_is_refused_before_any_run_is_written(orch: Orch, people: Path, tmp_path: Path) -> None:
    table = some_of(people, 2, tmp_path / "two")
    words = ["train-all", "--data", table, "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1, *tiny()]
    done = orch(*words)
    assert done.code == 2
    for task in ("gender", "age"):
        assert (
            f"{task}: fold 0, fold 1: one photo a person is one photo an epoch, and a network's norms need 2"
            in done.err
        )
    assert "--set sampling=per_photo" in done.err
    assert not list((tmp_path / "runs").glob("*-0001"))
    scarce = "sample_factor={wear = 0.01, incorrect = 0.01, not_wear = 0.01}"
    done = orch("train", "mask", *words[1:], "--set", f"mask.{scarce}")
    assert done.code == 2
    assert "fold 0, fold 1: there is one photo an epoch" in done.err


@pytest.mark.parametrize(
    "changes", [[], ["sampling=per_photo", "frozen_stages=2"], ["mixup=0.3", "sam=0.05", "ema=0.9"]]
)
def test_two_photos_are_enough_for_every_network_with_norms(
    orch: Orch, people: Path, changes: list[str], tmp_path: Path
) -> None:
    words = ["--data", some_of(people, 4, tmp_path / "few"), "-w", tmp_path / "runs", "--folds", 2, "--jobs", 1]
    done = orch("train-all", *words, "--tasks", "gender", *tiny("epochs=1", *changes))
    assert done.code == 0, done.err

"""Who is one person and who is two: decided before training, and kept in whatever is made of a run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from orchestrator.artifacts.workspace import Workspace
from tests.conftest import Done, hashes, tiny, train
from tests.pipeline.test_checks import some_of

Orch = Callable[..., Done]


def test_one_photo_under_two_people_is_refused_before_training(orch: Orch, people: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    folders = sorted((copy / "train" / "images").iterdir())
    photo, replaced = next(folders[0].glob("normal.*")), next(folders[1].glob("normal.*"))
    replaced.unlink()
    shutil.copy(photo, folders[1] / photo.name)
    done = train(orch, copy, tmp_path / "runs", "train-all", *tiny())
    assert done.code == 2
    assert "people would leak across folds" in done.err
    assert "is listed under 2 people" in done.err
    assert orch("data", "check", "--data", copy / "train").code == 1


def test_people_who_are_said_to_be_distinct_stay_so_in_whatever_is_made_of_their_run(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    path, runs = some_of(people, 4, tmp_path / "few"), tmp_path / "runs"
    table = pd.read_csv(path, dtype=str)
    first, second, *_ = table["person"].unique()
    table["person"] = table["person"].replace({first: "Kim", second: "kim"})
    table.to_csv(path, index=False)
    words = ["train", "mask", "--data", path, "-w", runs, "--folds", 2, "--jobs", 1, *tiny("epochs=1")]
    done = orch(*words)
    assert done.code == 2
    assert "--distinct-people" in done.err
    done = orch(*words, "--distinct-people")
    assert done.code == 0, done.err
    run = Workspace(runs).run("mask-0001")
    assert run.data.distinct_people is True
    done = orch("tta", "mask-0001", "-w", runs, "--json")
    assert done.code == 0, done.err
    before = hashes(runs / "mask-0001")["fold-1/weights.safetensors"]
    shutil.rmtree(runs / "mask-0001" / "fold-1")
    done = orch("resume", "mask-0001", "-w", runs)
    assert done.code == 0, done.err
    assert hashes(runs / "mask-0001")["fold-1/weights.safetensors"] == before
    assert Workspace(runs).run("mask-0001").data.distinct_people is True

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.combining.combiners import SoftVote
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.readers import read
from orchestrator.data.store import DirectPixels, PixelStore
from orchestrator.ensemble import predictor as predictor_module
from orchestrator.ensemble.member import MemberFiles, load_members
from orchestrator.ensemble.predictor import Predictor
from orchestrator.errors import WorkspaceError
from orchestrator.labels import TASKS, columns_of
from tests.conftest import member_files


def fold(workspace: Path, number: int) -> list[MemberFiles]:
    return [one for task in TASKS for one in member_files(workspace, f"{task}-0001", number)]


def test_store_direct_and_predict_see_equal_pixels(trained: Path, people: Path) -> None:
    photos = read(people / "train")
    stores = {
        Geometry(**json_of(path)["geometry"]): PixelStore(path)
        for path in (trained / "store").iterdir()
        if path.is_dir()
    }
    predictor = Predictor(load_members(fold(trained, 0)), SoftVote())
    assert set(predictor.geometries) == set(stores)
    assert len(stores) == 3
    rows = np.arange(0, len(photos), 7)
    prepared = [predictor.read(photos.paths[row]) for row in rows]
    for geometry, store in stores.items():
        seen = np.stack([one.pixels[geometry] for one in prepared if not isinstance(one, str)])
        assert np.array_equal(seen, store.take(rows))
        assert np.array_equal(seen, DirectPixels(photos.paths, geometry).take(rows))


@pytest.mark.parametrize("number", [0, 2])
def test_a_loaded_member_repeats_its_own_held_out_answers(trained: Path, people: Path, number: int) -> None:
    tables = {task: pd.read_parquet(trained / f"{task}-0001" / f"fold-{number}" / "held_out.parquet") for task in TASKS}
    paths = {Path(path).as_posix(): people / "train" / "images" / path for path in tables["age"]["path"]}
    photos = read(people / "train")
    place = dict(zip(photos.table["path"], photos.paths, strict=True))
    predictor = Predictor(load_members(fold(trained, number)), SoftVote())
    batches = list(predictor.predict([place[path] for path in paths], batch=16))
    for task in TASKS:
        columns = columns_of(task)
        found = np.concatenate([batch.combined.decisions[task].shares for batch in batches if batch.combined])
        assert found.shape == (56, len(columns))
        assert np.allclose(found, tables[task][columns], atol=1e-5)


def test_all_members_that_cannot_be_used_are_told_at_once(trained: Path, tmp_path: Path) -> None:
    members = [*fold(trained, 0), *(MemberFiles("age", name, 0, tmp_path / name) for name in "ab")]
    with pytest.raises(WorkspaceError) as caught:
        load_members(members)
    assert len(caught.value.problems) == 2
    assert "2 of the ensemble's 5 members cannot be used" in caught.value.message


def test_a_member_whose_answers_are_no_numbers_is_named(trained: Path, people: Path) -> None:
    predictor = Predictor(load_members(fold(trained, 0)), SoftVote())
    broken = predictor.members[1]
    next(broken.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(WorkspaceError, match=r"gender-0001.fold-0: this member's answers are no numbers"):
        list(predictor.predict(read(people / "train").paths[:2]))


def json_of(folder: Path) -> dict[str, dict[str, float]]:
    import json

    return dict(json.loads((folder / "store.json").read_text()))


def test_each_photo_is_decoded_once_for_all_members(
    trained: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(predictor_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    members = [one for task in TASKS for one in member_files(trained, f"{task}-0001", 0, 1, 2)]
    predictor = Predictor(load_members(members), SoftVote())
    assert len(predictor.geometries) == 3
    paths = read(people / "train").paths[:40]
    assert sum(len(batch.paths) for batch in predictor.predict(paths, batch=16)) == 40
    assert sorted(decoded) == sorted(paths)


def test_a_member_of_another_task_is_refused(trained: Path) -> None:
    members = [MemberFiles("age", "mask-0001", 0, trained / "mask-0001" / "fold-0")]
    with pytest.raises(WorkspaceError) as caught:
        load_members(members)
    assert "a member for mask with the classes wear, incorrect, not_wear; needed: age with <30, 30-59, >=60" in str(
        caught.value
    )


@pytest.mark.parametrize(("wanted", "expected"), [(5, [5, 5, 5, 5]), (0, [20])])
def test_a_batch_is_what_was_asked_for(trained: Path, people: Path, wanted: int, expected: list[int]) -> None:
    predictor = Predictor(load_members(fold(trained, 0)), SoftVote())
    batches = predictor.predict(read(people / "train").paths[:20], batch=wanted)
    assert [len(batch.paths) for batch in batches] == expected

"""A predictor sees the pixels that members were trained on and gives the answers that they gave."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.combining.combiners import SoftVote
from orchestrator.core.errors import DataError, WorkspaceError
from orchestrator.core.labels import TASKS, columns_of
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.readers import read
from orchestrator.data.store import DirectPixels, PixelStore
from orchestrator.inference import reader as reader_module
from orchestrator.inference.engines import Runner
from orchestrator.inference.member import MemberFiles, load_members
from orchestrator.inference.predictor import Predictor, start_predictor
from orchestrator.inference.reader import Photo
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
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    assert set(predictor.reader.geometries) == set(stores)
    assert len(stores) == 3
    rows = np.arange(0, len(photos), 7)
    prepared = [predictor.reader.read(photos.paths[row]) for row in rows]
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
    predictor = start_predictor(load_members(fold(trained, number)), SoftVote())
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
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    broken = predictor.members[1]
    next(broken.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(WorkspaceError, match=r"gender-0001.fold-0: this member's answers are NaN or infinite"):
        list(predictor.predict(read(people / "train").paths[:2]))


def json_of(folder: Path) -> dict[str, dict[str, float]]:
    import json

    return dict(json.loads((folder / "store.json").read_text()))


def test_each_photo_is_decoded_once_for_all_members(
    trained: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(reader_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    members = [one for task in TASKS for one in member_files(trained, f"{task}-0001", 0, 1, 2)]
    predictor = start_predictor(load_members(members), SoftVote())
    assert len(predictor.reader.geometries) == 3
    paths = read(people / "train").paths[:40]
    assert sum(len(batch.photos) for batch in predictor.predict(paths, batch=16)) == 40
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
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    batches = predictor.predict(read(people / "train").paths[:20], batch=wanted)
    assert [len(batch.photos) for batch in batches] == expected


def labels(predictor: Predictor, photos: Sequence[Photo], **named: object) -> list[int]:
    return [label for batch in predictor.predict(photos, **named) if batch.combined for label in batch.combined.label]


def test_files_bytes_and_decoded_pixels_get_the_same_answers(trained: Path, people: Path) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    paths = read(people / "train").paths[:6]
    mixed: list[Photo] = [path.read_bytes() if row % 2 else decode(path) for row, path in enumerate(paths)]
    for batch, other in zip(predictor.predict(paths), predictor.predict(mixed), strict=True):
        assert batch.answers
        assert other.answers
        for one, same in zip(batch.answers.probabilities, other.answers.probabilities, strict=True):
            assert np.array_equal(one, same)
    wrong: list[Photo] = [b"no photo", np.zeros((4, 4), np.uint8), paths[0], np.zeros((4, 4, 3), np.float32)]
    with pytest.raises(DataError, match="3 of 4 photos cannot be read") as caught:
        list(predictor.predict(wrong))
    assert [problem.where for problem in caught.value.problems] == ["photo 0", "photo 1", "photo 3"]
    assert "needed: (H, W, 3), uint8" in caught.value.problems[1].what
    (batch,) = predictor.predict(wrong, skip_unreadable=True)
    assert (batch.order, sorted(batch.failed)) == ([-1, -1, 0, -1], [0, 1, 3])


def test_what_is_known_of_the_first_photos_is_not_read_again(
    trained: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    paths = read(people / "train").paths[:20]
    expected = labels(predictor, paths)
    known = [predictor.reader.read(path) for path in paths[:7]]
    decoded: list[Path] = []
    monkeypatch.setattr(reader_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    assert labels(predictor, paths, known=known, batch=5) == expected
    assert sorted(decoded) == sorted(paths[7:])


def test_each_photo_that_cannot_be_read_is_opened_once(
    trained: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SoftVote())
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    paths = [bad, *read(people / "train").paths[:20], bad.with_name("gone.jpg")]
    decoded: list[Path] = []
    monkeypatch.setattr(reader_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    with pytest.raises(DataError, match="2 of 22 photos cannot be read"):
        list(predictor.predict(paths, batch=4))
    assert sorted(decoded) == sorted(paths)


class Slow:
    """A runner that takes its time and counts its calls."""

    def __init__(self, runner: Runner, calls: list[int]) -> None:
        self._runner, self._calls = runner, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def finish(self, features: Any) -> Any:
        self._calls.append(len(features))
        time.sleep(0.1)
        return self._runner.finish(features)


def test_nothing_is_begun_for_a_caller_who_goes_away(trained: Path, people: Path) -> None:
    calls: list[int] = []
    with start_predictor(load_members(fold(trained, 0)), SoftVote(), threads=1) as predictor:
        slow = predictor.on([Slow(runner, calls) for runner in predictor.runtime.runners])
        with slow:
            batches = slow.predict(read(people / "train").paths[:40], batch=8)
            next(batches)  # by then the second batch is begun: three members, one after the other on one thread
            batches.close()
        assert 3 <= len(calls) < 6

"""A predictor sees the pixels that members were trained on and gives the answers that they gave."""

import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.errors import ClosedError, ConfigError, DataError, WorkspaceError
from orchestrator.core.labels import CLASS_COUNTS, TASKS, columns_of
from orchestrator.core.stages import Stages
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.readers import read
from orchestrator.data.store import DirectPixels, PixelStore
from orchestrator.ensembling.external import ExternalRows, ExternalTable
from orchestrator.inference import reader as reader_module
from orchestrator.inference.engines import Runner
from orchestrator.inference.member import MemberFiles, load_members
from orchestrator.inference.predictor import Predictor, start_predictor
from orchestrator.inference.reader import Photo, Prepared
from tests.conftest import SOFT, member_files


def fold(workspace: Path, number: int) -> list[MemberFiles]:
    return [member for task in TASKS for member in member_files(workspace, f"{task}-0001", number)]


def test_store_direct_and_predict_see_equal_pixels(trained: Path, people: Path) -> None:
    photos = read(people / "train")
    stores = {
        Geometry(**json_of(path)["geometry"]): PixelStore(path)
        for path in (trained / "store").iterdir()
        if path.is_dir()
    }
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
    assert set(predictor.reader.geometries) == set(stores)
    assert len(stores) == 3
    rows = np.arange(0, len(photos), 7)
    prepared = [predictor.reader.read(photos.paths[row]) for row in rows]
    for geometry, store in stores.items():
        seen = np.stack([photo.pixels[geometry] for photo in prepared if isinstance(photo, Prepared)])
        assert np.array_equal(seen, store.take(rows))
        assert np.array_equal(seen, DirectPixels(photos.paths, geometry).take(rows))


@pytest.mark.parametrize("number", [0, 2])
def test_a_loaded_member_repeats_its_own_held_out_answers(trained: Path, people: Path, number: int) -> None:
    tables = {task: pd.read_parquet(trained / f"{task}-0001" / f"fold-{number}" / "held_out.parquet") for task in TASKS}
    paths = {Path(path).as_posix(): people / "train" / "images" / path for path in tables["age"]["path"]}
    photos = read(people / "train")
    path_of = dict(zip(photos.table["path"], photos.paths, strict=True))
    predictor = start_predictor(load_members(fold(trained, number)), SOFT)
    batches = list(predictor.predict([path_of[path] for path in paths], batch=16))
    for task in TASKS:
        columns = columns_of(task)
        shares = np.concatenate([batch.combined.decisions[task].shares for batch in batches if batch.combined])
        assert shares.shape == (56, len(columns))
        assert np.allclose(shares, tables[task][columns], atol=1e-5)


def test_all_members_that_cannot_be_used_are_told_at_once(trained: Path, tmp_path: Path) -> None:
    members = [*fold(trained, 0), *(MemberFiles("age", name, 0, tmp_path / name / "fold-0") for name in "ab")]
    with pytest.raises(WorkspaceError) as caught:
        load_members(members)
    assert len(caught.value.problems) == 2
    assert "2 of the ensemble's 5 members cannot be used" in caught.value.message


def test_a_member_whose_answers_are_no_numbers_is_named(trained: Path, people: Path) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
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
    members = [member for task in TASKS for member in member_files(trained, f"{task}-0001", 0, 1, 2)]
    predictor = start_predictor(load_members(members), SOFT)
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
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
    batches = predictor.predict(read(people / "train").paths[:20], batch=wanted)
    assert [len(batch.photos) for batch in batches] == expected


def labels(predictor: Predictor, photos: Sequence[Photo], **named: object) -> list[int]:
    return [label for batch in predictor.predict(photos, **named) if batch.combined for label in batch.combined.label]


def test_files_bytes_and_decoded_pixels_get_the_same_answers(trained: Path, people: Path) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
    paths = read(people / "train").paths[:6]
    mixed: list[Photo] = [path.read_bytes() if row % 2 else decode(path) for row, path in enumerate(paths)]
    for batch, other in zip(predictor.predict(paths), predictor.predict(mixed), strict=True):
        assert batch.answers
        assert other.answers
        for array, same in zip(batch.answers.probabilities, other.answers.probabilities, strict=True):
            assert np.array_equal(array, same)
    wrong: list[Photo] = [b"no photo", np.zeros((4, 4), np.uint8), paths[0], np.zeros((4, 4, 3), np.float32)]
    with pytest.raises(DataError, match="3 of 4 photos cannot be read") as caught:
        list(predictor.predict(wrong))
    assert [problem.where for problem in caught.value.problems] == ["photo 0", "photo 1", "photo 3"]
    assert "needed: (H, W, 3), uint8" in caught.value.problems[1].what
    (batch,) = predictor.predict(wrong, skip_unreadable=True)
    assert (len(batch), batch.read.tolist(), sorted(batch.failed)) == (4, [2], [0, 1, 3])
    with pytest.raises(DataError) as caught:
        predictor.answers(wrong)
    assert [problem.kind for problem in caught.value.problems] == ["unknown_format", "wrong_pixels", "wrong_pixels"]
    answers = predictor.answers([*wrong, str(paths[1]), paths[1].with_name("gone.jpg")], on_error="mark", batch=2)
    assert answers.photos == ("photo 0", "photo 1", str(paths[0]), "photo 3", str(paths[1]), answers[5].photo)
    assert [answer.label for answer in answers] == [
        None,
        None,
        *labels(predictor, [paths[0]]),
        None,
        *labels(predictor, [paths[1]]),
        None,
    ]
    assert [answer.error_kind for answer in answers] == [
        "unknown_format",
        "wrong_pixels",
        "",
        "wrong_pixels",
        "",
        "missing_file",
    ]
    assert answers[5].error == "no such file."
    with pytest.raises(ConfigError, match="--on-error skip; allowed: fail, mark"):
        predictor.answers(paths, on_error="skip")


def test_what_is_known_of_the_first_photos_is_not_read_again(
    trained: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
    paths = read(people / "train").paths[:20]
    expected = labels(predictor, paths)
    known = [predictor.reader.read(path) for path in paths[:7]]
    decoded: list[Path] = []
    monkeypatch.setattr(reader_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    assert labels(predictor, paths, already_read=known, batch=5) == expected
    assert sorted(decoded) == sorted(paths[7:])


def test_each_photo_that_cannot_be_read_is_opened_once(
    trained: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT)
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
    with start_predictor(load_members(fold(trained, 0)), SOFT, threads=1) as predictor:
        slow = predictor.on([Slow(runner, calls) for runner in predictor.runtime.runners])
        batches = slow.predict(read(people / "train").paths[:40], batch=8)
        next(batches)  # by then the second batch is begun: three members, one after the other on one thread
        batches.close()
    assert 3 <= len(calls) < 6


def with_table(workspace: Path, *keys: str) -> Predictor:
    """A predictor with a table that outvotes its members: it says incorrect, female and 60 or older of some photos."""
    table = ExternalTable("old.csv", keys, {
        task: np.tile(np.eye(classes, dtype=np.float32)[-2 if task == "mask" else -1], (len(keys), 1))
        for task, classes in CLASS_COUNTS.items()
    })  # fmt: skip
    weights = dict.fromkeys(TASKS, 100.0)
    return start_predictor(load_members(fold(workspace, 0)), SOFT, external=[table], external_weights=weights)


def test_a_batch_without_a_readable_photo_leaves_the_others_what_a_table_changed(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    paths = read(people / "train").paths[:3]
    with with_table(trained, *map(str, paths[:2])) as predictor:
        answers = predictor.answers([paths[0], tmp_path / "bad.jpg", *paths[1:]], on_error="mark", batch=1)
    assert answers.changed_by_external is not None
    assert answers.changed_by_external.tolist() == [True, False, True, False]
    assert [answer.label for answer in answers][:3] == [11, None, 11]


def test_a_row_of_a_table_means_the_same_photo_in_one_call_and_in_several(
    trained: Path, people: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("x/a.jpg", "y/a.jpg", "y/b.jpg")]
    for path, photo in zip(paths, read(people / "train").paths, strict=False):
        path.parent.mkdir(exist_ok=True)
        shutil.copy(photo, path)
    with with_table(trained, "a.jpg", "b.jpg") as predictor:
        whole = predictor.answers(paths).changed_by_external
        assert whole is not None
        assert whole.tolist() == [False, False, True]  # a.jpg is two photos, so it is neither
        rows = predictor.external_rows(paths)
        parts = [predictor.answers(part, rows=rows) for part in (paths[:1], paths[1:])]
        assert [answer.changed_by_external for part in parts for answer in part] == whole.tolist()
        with pytest.raises(ValueError, match="1 photos are not among the 3"):
            predictor.answers(read(people / "train").paths[:1], rows=rows)
        with pytest.raises(ValueError, match="the rows of 0 other tables for 1 external tables"):
            predictor.answers(paths, rows=ExternalRows.of((), []))


def test_closing_waits_for_predictions_in_progress_and_refuses_later_ones(trained: Path, people: Path) -> None:
    calls: list[int] = []
    predictor = start_predictor(load_members(fold(trained, 0)), SOFT, threads=1)
    slow = predictor.on([Slow(runner, calls) for runner in predictor.runtime.runners])
    paths, begun, progress = read(people / "train").paths[:12], threading.Event(), list[int]()

    def note(done: int, _all: int) -> None:
        progress.append(done)
        begun.set()

    expected = labels(predictor, paths)
    own = predictor.predict(paths, batch=4)  # of the thread that closes, which cannot go on with it meanwhile
    next(own)
    with ThreadPoolExecutor(1) as another:
        future = another.submit(slow.answers, paths, batch=2, done=note)
        assert begun.wait(30)
        assert progress[-1] < 12
        predictor.close()
        assert progress[-1] == 12
        assert [answer.label for answer in future.result()] == expected
    for later in (lambda: next(own), lambda: slow.answers(paths), lambda: list(predictor.predict(paths))):
        with pytest.raises(ClosedError, match="this predictor was closed"):
            later()
    predictor.close()  # once more does no harm


def test_the_time_of_each_stage_is_that_of_the_call(trained: Path, people: Path) -> None:
    stages, paths = Stages(on=True), read(people / "train").paths[:5]
    with start_predictor(load_members(fold(trained, 0)), SOFT) as predictor:
        predictor.answers(paths, stages=stages)
        assert set(stages.seconds) == {"decode", "crop and resize", "vote", *(f"{task} members" for task in TASKS)}
        before = dict(stages.seconds)
        predictor.answers(paths)
    assert stages.seconds == before

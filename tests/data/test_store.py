"""Pixels from a store, from photos and joined are the same pixels."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.core.errors import DataError, StoreError
from orchestrator.data import store as store_module
from orchestrator.data.hashes import HashCache
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.readers import read
from orchestrator.data.store import DirectPixels, JoinedRows, build_stores, intact_stores, store_key

GEOMETRIES = (Geometry(32, 24, 0.8, 0.4), Geometry(16, 16))


def build(folder: Path, people: Path, geometries: tuple[Geometry, ...] = GEOMETRIES) -> Any:
    photos = read(people / "train")
    content = photos.content(HashCache(None))
    keys = {geometry: store_key(list(photos.table["path"]), content, geometry) for geometry in geometries}
    return build_stores(folder, photos.paths, keys, 2), photos


def test_store_direct_and_single_photo_paths_give_equal_pixels(tmp_path: Path, people: Path) -> None:
    stores, photos = build(tmp_path / "store", people)
    rows = np.arange(len(photos))[::5]
    for geometry in GEOMETRIES:
        from_store = stores[geometry].take(rows)
        assert from_store.dtype == np.uint8
        assert np.array_equal(from_store, DirectPixels(photos.paths, geometry).take(rows))
        assert np.array_equal(from_store, np.stack([geometry.apply(decode(photos.paths[row])) for row in rows]))


def test_a_store_is_built_once_and_another_geometry_is_another_store(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(store_module, "decode", lambda path: (decoded.append(path), decode(path))[1])
    _, photos = build(tmp_path / "store", people)
    assert sorted(decoded) == sorted(photos.paths)  # once for both geometries
    decoded.clear()
    before = sorted(path.name for path in (tmp_path / "store").iterdir())
    _, photos = build(tmp_path / "store", people)
    assert decoded == []
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == before
    build(tmp_path / "store", people, (*GEOMETRIES, Geometry(20, 20)))
    assert len(decoded) == len(photos)


@pytest.mark.parametrize("extra", range(4))
def test_of_several_stores_the_largest_is_found(tmp_path: Path, people: Path, extra: int) -> None:
    """An export is checked on it: a store of extra photos may hold a single one. Stores' names are digests, in any order."""
    _, photos = build(tmp_path / "store", people)
    build_stores(
        tmp_path / "store",
        photos.paths[extra : extra + 1],
        {geometry: f"{extra}{number}" * 8 for number, geometry in enumerate(GEOMETRIES)},
        1,
    )
    stores = intact_stores(tmp_path / "store", GEOMETRIES)
    assert {geometry: count for geometry, (_, count) in stores.items()} == dict.fromkeys(GEOMETRIES, len(photos))


def test_a_changed_photo_is_another_store(tmp_path: Path, people: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    first, photos = build(tmp_path / "store", copy)
    assert {store.path.name for store in first.values()} == {
        store.path.name for store in build(tmp_path / "s", people)[0].values()
    }
    path = photos.paths[0]
    stat = path.stat()
    Image.new("RGB", (192, 256), (1, 2, 3)).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second, _ = build(tmp_path / "store", copy)
    assert first[GEOMETRIES[0]].path != second[GEOMETRIES[0]].path
    assert not np.array_equal(first[GEOMETRIES[0]].take(np.array([0])), second[GEOMETRIES[0]].take(np.array([0])))


def build_slowly(folder: Path, people: Path) -> None:
    build(folder, people)


def test_two_commands_may_build_at_once(tmp_path: Path, people: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=build_slowly, args=(tmp_path / "store", people)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    folders = [path for path in (tmp_path / "store").iterdir() if path.is_dir()]
    assert len(folders) == len(GEOMETRIES)


def test_unreadable_photos_are_all_named_and_leave_no_store(tmp_path: Path, people: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    photos = read(copy / "train")
    for path in photos.paths[:2]:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        build(tmp_path / "store", copy)
    assert len(caught.value.problems) == 2
    assert all(str(path) in str(caught.value) for path in photos.paths[:2])
    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()] == []


def test_a_disk_without_room_is_refused_before_the_first_byte(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(StoreError, match=r"needs .* MB, and .* MB are free .*--no-store"):
        build(tmp_path / "store", people)
    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()] == []


def test_a_disk_that_fills_up_meanwhile_is_told_and_leaves_nothing(
    tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="filled up"):
        build(tmp_path / "store", people)
    assert [path.name for path in (tmp_path / "store").iterdir() if path.is_dir()] == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 9))
def test_joined_rows_are_the_rows_of_both(rows: list[int], count: int) -> None:
    values = np.arange(20).reshape(10, 2)

    class Part:
        def __init__(self, start: int) -> None:
            self.start = start

        def take(self, wanted: np.ndarray) -> np.ndarray:
            return values[wanted + self.start]

    taken = JoinedRows(Part(0), count, Part(count), np.arange(10)).take(np.array(rows))
    assert (taken == values[rows]).all()

import json
import os
import time
from pathlib import Path

import pytest

from orchestrator.core.errors import DataError
from orchestrator.data import hashes
from orchestrator.data.hashes import HashCache
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read


def test_the_fingerprint_is_of_content_not_of_order_place_or_date(tmp_path: Path, people: Path) -> None:
    photos = read(people / "train")
    content = photos.content()
    again = Photos(tmp_path, photos.table, photos.layout)
    assert again.fingerprint(content) == photos.fingerprint(content)
    changed = photos.table.copy()
    changed.loc[0, "age"] += 1
    assert Photos(photos.root, changed, "contest").fingerprint(content) != photos.fingerprint(content)
    assert photos.fingerprint([content[1], content[0], *content[2:]]) != photos.fingerprint(content)


def test_the_hash_cache_saves_reading_and_never_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, cache = tmp_path / "a", HashCache(tmp_path / "cache" / "hashes.json")
    photo.write_bytes(b"one")
    with monkeypatch.context() as patch:
        files_read: list[Path] = []
        real = hashes.sha256_of
        patch.setattr(hashes, "sha256_of", lambda path: (files_read.append(path), real(path))[1])
        first = cache.hashes([photo])
        assert cache.hashes([photo]) == HashCache(cache.path).hashes([photo]) == first
        assert files_read == [photo]
    assert len(json.loads((tmp_path / "cache" / "hashes.json").read_text())["hashes"]) == 1
    stat = photo.stat()
    time.sleep(0.02)
    photo.write_bytes(b"two")  # as large, and dated back
    os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert photo.stat().st_size == stat.st_size
    assert photo.stat().st_mtime_ns == stat.st_mtime_ns
    assert cache.hashes([photo]) == HashCache(None).hashes([photo]) != first
    photo.write_bytes(b"other")
    assert cache.hashes([photo]) == HashCache(None).hashes([photo])
    kept = tmp_path / "cache" / "hashes.json"
    whole = kept.read_bytes()
    for data in (b"{damaged", b"", b"[]", b'{"hashes": 1}', whole.replace(b'": "a', b'": "b'), whole[:-9]):
        kept.write_bytes(data)
        assert cache.hashes([photo]) == HashCache(None).hashes([photo])
    for position in range(whole.index(b": {"), len(whole), 7):  # one bit flipped
        kept.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert cache.hashes([photo]) == HashCache(None).hashes([photo])
    kept.unlink()
    kept.mkdir()
    assert cache.hashes([photo]) == HashCache(None).hashes([photo])
    assert kept.is_file()
    with pytest.raises(DataError, match="2 of 3 photos cannot be read"):
        cache.hashes([photo, tmp_path / "b", tmp_path / "c"])

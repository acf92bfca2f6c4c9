import errno
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import files
from orchestrator.core.commands import set_aside_command
from orchestrator.core.errors import StoreError
from orchestrator.core.files import (
    atomic,
    digest_of,
    remove_temporaries,
    require_free_space,
    set_aside,
    sha256_of,
    share_file,
    write_json,
)
from orchestrator.data.lines import write_rows

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class StopError(Exception):
    """A kill in mid-write."""


def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(StopError), atomic(path) as temporary:
        temporary.write_text("half of")
        raise StopError
    assert json.loads(path.read_bytes()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_a_sentence_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(StoreError, match="the disk is full; the file was not written"), atomic(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), atomic(path):
        raise PermissionError
    assert json.loads(path.read_bytes()) == 1


def test_what_kills_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".a.json.x.tmp").write_text("")
    (tmp_path / "kept.tmp").write_text("")
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.tmp"]


@given(st.dictionaries(st.text(), values, min_size=1))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(value.items())))
    assert digest_of(value) != digest_of([value])


def test_too_little_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_free_space(tmp_path, 10, "a thing", "")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    with pytest.raises(StoreError, match="a thing needs 2 MB, and 1 MB are free on this disk. Go away"):
        require_free_space(tmp_path, 2 * 10**6, "a thing", "Go away.")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin"])
def test_what_would_never_end_is_not_hashed(path: str) -> None:
    with pytest.raises(OSError, match="pipe or a device"):
        sha256_of(Path(path))


def test_nothing_is_an_empty_cell(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.csv", ["a", "b"], [[None, float("nan")], ["1\r", 0.348243]])
    assert (tmp_path / "x.csv").read_bytes() == b'a,b\n,\n"1\r",0.348243\n'


def test_a_shared_file_leaves_its_source_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, path = tmp_path / "source", tmp_path / "target"
    source.write_text("weights")
    source.chmod(0o400)
    path.write_text("older")
    for _ in range(2):  # the second time both names are links to one file
        share_file(source, path)
        assert path.samefile(source)
        assert stat.S_IMODE(source.stat().st_mode) == 0o400
        assert sorted(file.name for file in tmp_path.iterdir()) == ["source", "target"]

    def no_links(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_links)
    share_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "weights"
    assert not (tmp_path / "copy").samefile(source)


def test_nothing_replaces_what_was_set_aside_before(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "notes.json").write_text(str(number))
        subprocess.run(set_aside_command(tmp_path / "notes.json"), shell=True, check=True)
    (tmp_path / "notes.json").write_text("3")
    assert set_aside(tmp_path / "notes.json") == tmp_path / "notes.json.damaged3"
    assert [(tmp_path / f"notes.json.damaged{number or ''}").read_text() for number in range(4)] == ["0", "1", "2", "3"]

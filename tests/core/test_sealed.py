"""Sealed files: whatever happens to one shows, and the way out that is printed works."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import DamagedError
from orchestrator.core.sealed import after_setting_aside, check_file, read_sealed, write_sealed

BODIES = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key not in ("format", "kind", "id", "digest")),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)  # fmt: skip


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "a b" / "thing.json"
    write_sealed(path, "thing", "thing-1", 2, {"numbers": [1, 2.5], "name": "x"})
    return path


def read(path: Path) -> dict[str, object]:
    return read_sealed(path, "thing", "thing-1", 2, after_setting_aside(path, "run `orch make`, which makes it anew."))


@given(BODIES)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, body: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "one.json"
    write_sealed(path, "thing", "thing-1", 2, body)
    assert read_sealed(path, "thing", "thing-1", 2, "-") == json.loads(json.dumps(body))


def test_any_flipped_bit_shows(sealed: Path) -> None:
    data, silent = sealed.read_bytes(), []
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        sealed.write_bytes(flipped)
        try:
            same = read(sealed) == {"numbers": [1, 2.5], "name": "x"}  # a blank may turn into another blank
        except DamagedError as error:
            assert str(sealed) in str(error)
            assert error.replaceable  # a number that was damaged is not another version
        else:
            silent += [] if same else [bit]
    assert not silent


@pytest.mark.parametrize("size", [0, 1, 20, -2])
def test_a_truncated_file_shows(sealed: Path, size: int) -> None:
    sealed.write_bytes(sealed.read_bytes()[:size])
    with pytest.raises(DamagedError, match=r"thing\.json"):
        read(sealed)


def test_other_things_in_its_place_are_named(sealed: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    for kind, name, message in (("thing", "thing-2", "thing-2"), ("plan", "thing-1", "plan")):
        write_sealed(other, kind, name, 2, {})
        other.replace(sealed)
        with pytest.raises(DamagedError, match=message):
            read(sealed)
    for text in (
        "[]",
        "3",
        '{"format": 2, "digest": "", "number": 1e999}',
        '{"format": 2, "digest": ' + "[" * 10**5 + "]" * 10**5 + "}",
        '{"format": 2}',
        '{"format": "2", "digest": ""}',
        "null",
        '{"format": NaN}',
    ):
        sealed.write_text(text)
        with pytest.raises(DamagedError):
            read(sealed)
    write_sealed(sealed, "thing", "thing-1", 3, {})
    with pytest.raises(DamagedError, match="newer version"):
        read(sealed)
    write_sealed(sealed, "thing", "thing-1", 1, {})
    with pytest.raises(DamagedError, match="older version"):
        read(sealed)


@pytest.mark.parametrize("damage", ["folder", "dangling", "missing", "garbage"])
def test_the_way_out_takes_it_out_of_the_way(sealed: Path, damage: str) -> None:
    sealed.unlink()
    if damage == "folder":
        sealed.mkdir()
    elif damage == "dangling":
        sealed.symlink_to(sealed.parent / "nowhere")
    elif damage == "garbage":
        sealed.write_bytes(b"\xff\x00")
    with pytest.raises(DamagedError) as caught:
        read(sealed)
    message = str(caught.value)
    assert str(sealed) in message and "`orch make`" in message
    if damage == "missing":
        assert "mv " not in message
        return
    command = next(part for part in message.split("`") if part.startswith("mv "))
    subprocess.run(shlex.split(command), check=True)
    assert not os.path.lexists(sealed)


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_sealed(tmp_path / "x.json", "thing", "x", 1, {"score": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_file_is_held_to_its_hash(tmp_path: Path) -> None:
    from orchestrator.core.files import sha256_of

    path = tmp_path / "weights.bin"
    path.write_bytes(b"weights")
    check_file(path, sha256_of(path), "-")
    path.write_bytes(b"weightz")
    with pytest.raises(DamagedError, match="not the file that was written"):
        check_file(path, "0" * 64, "-")
    path.unlink()
    with pytest.raises(DamagedError, match="missing"):
        check_file(path, "0" * 64, "-")

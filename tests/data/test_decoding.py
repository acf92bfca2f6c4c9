"""Pixels decide: what is odd around them is a note of the photo, and never reaches the terminal."""

import hashlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.core.errors import PhotoError
from orchestrator.core.files import sha256_of
from orchestrator.data import decoding
from orchestrator.data.check import check
from orchestrator.data.decoding import FORMATS, KINDS, UndecodableError, read_photo, size_of
from orchestrator.data.preprocessing import decode
from tests.conftest import Done, close_to_readers

PIXELS = np.random.default_rng(5).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, sound: bool = True) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ (not sound))


def with_chunk(*chunks: bytes) -> bytes:
    """A PNG with chunks put before its pixels."""
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def exif(orientation: int, *entries: bytes, tail: bytes = b"") -> bytes:
    """EXIF data: an orientation, then raw entries of 12 bytes each."""
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    count = struct.pack("<H", 1 + len(entries))
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + count + tag + b"".join(entries) + b"\0\0\0\0" + tail


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpeg_with(*segments: bytes) -> bytes:
    """A JPEG with segments put after its first two bytes."""
    whole = encoded("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


BOMB = zlib.compress(b"x" * (2 * 1024**2))  # more than Pillow's limit of 1 MiB for a text
RATIONAL = struct.pack("<HHII", 0x829A, 5, 1, 8 + 2 + 24 + 4)  # an exposure time of -1/0 s, right behind the entries
ODD = {
    "png: a text of 2 MiB": (with_chunk(chunk(b"zTXt", b"Comment\0\0" + BOMB)), "metadata left out"),
    "png: an international text of 2 MiB": (with_chunk(chunk(b"iTXt", b"C\0\1\0\0\0" + BOMB)), "metadata left out"),
    "png: a profile of 2 MiB": (with_chunk(chunk(b"iCCP", b"icc\0\0" + BOMB)), "metadata left out"),
    "png: a text with a wrong checksum": (with_chunk(chunk(b"tEXt", b"A\0b", sound=False)), "metadata left out"),
    "png: short physical sizes": (with_chunk(chunk(b"pHYs", b"\0")), "metadata left out"),
    "png: an animation of no frames": (with_chunk(chunk(b"acTL", struct.pack(">II", 0, 0))), "Invalid APNG"),
    "jpeg: a rational of -1/0": (jpeg_with(segment(0xE1, exif(1, RATIONAL, tail=struct.pack("<iI", -1, 0)))), ""),
    "jpeg: EXIF data cut off": (jpeg_with(segment(0xE1, exif(1, RATIONAL)[:-20])), "EXIF data"),
    "jpeg: EXIF data of noise": (jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(range(200)))), ""),
    "jpeg: a broken multi-picture index": (jpeg_with(segment(0xE2, b"MPF\0II*\0" + b"\xff" * 40)), "malformed MPO"),
    "jpeg: a short JFIF segment": (jpeg_with(segment(0xE0, b"JFIF\0\1")), "metadata left out"),
    "jpeg: a short Adobe segment": (jpeg_with(segment(0xEE, b"Adobe\0")), "metadata left out"),
    "jpeg: a broken Photoshop block": (jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + b"\xff" * 9)), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_metadata_is_no_damage(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, note = ODD[name]
    plain = decode(encoded(name.split(":")[0].upper()))
    photo = read_photo(data)
    assert np.array_equal(photo.pixels, plain)
    assert bool(photo.notes) is bool(note)
    assert note in " ".join(photo.notes)
    path = tmp_path / f"photo.{photo.format.lower()}"
    path.write_bytes(data)
    assert np.array_equal(decode(path), plain)
    assert size_of(path) == (16, 24)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rational_without_a_value_takes_nothing_from_the_orientation(orientation: int) -> None:
    data = jpeg_with(segment(0xE1, exif(orientation, RATIONAL, tail=struct.pack("<iI", -1, 0))))
    file = io.BytesIO()
    whole = Image.Exif()
    whole[0x0112] = orientation
    Image.fromarray(PIXELS).save(file, "JPEG", exif=whole)
    assert np.array_equal(decode(data), decode(file.getvalue()))
    assert decode(data).shape == ((16, 24, 3) if orientation > 4 else (24, 16, 3))


def test_damaged_pixels_stay_damaged() -> None:
    png, jpeg = encoded("PNG"), encoded("JPEG")
    at = png.index(b"IDAT") + 30
    for data in (png[: len(png) // 2], jpeg[: len(jpeg) // 2], png[:at] + bytes([png[at] ^ 1]) + png[at + 1 :]):
        with pytest.raises(PhotoError, match="the photo: damaged or truncated"):
            decode(data)
    with pytest.raises(PhotoError, match="damaged or truncated"):
        decode(with_chunk(chunk(b"tEXt", b"A\0b", sound=False))[:-30])
    with pytest.raises(PhotoError, match="its head is damaged"):
        decode(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)


def test_every_photo_that_cannot_be_decoded_is_of_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encoded("JPEG")
    os.mkfifo(tmp_path / "pipe.jpg")
    wrong: dict[str, list[Path | bytes]] = {
        "missing_file": [tmp_path / "gone.jpg", Path("a\0.jpg")], "not_a_photo": [tmp_path, tmp_path / "pipe.jpg"],
        "empty_file": [b""], "unknown_format": [b"no photo"], "unreadable_file": [tmp_path / ("x" * 300)],
        "damaged": [jpeg[: len(jpeg) // 2], b"\x89PNG\r\n\x1a\n" + b"\0" * 40],
    }  # fmt: skip
    for kind, sources in wrong.items():
        for source in sources:
            with pytest.raises(PhotoError) as caught:
                decode(source)
            assert (caught.value.kind, pickle.loads(pickle.dumps(caught.value)).kind) == (kind, kind)
    monkeypatch.setattr("orchestrator.data.decoding.MAX_PIXELS", 10)
    with pytest.raises(UndecodableError) as large:
        read_photo(jpeg)
    assert (large.value.kind, pickle.loads(pickle.dumps(large.value)).kind) == ("too_large", "too_large")
    assert {*wrong, "too_large", "no_permission"} == set(KINDS)


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]))
def test_whatever_the_bytes_are_there_is_a_photo_or_a_sentence(noise: bytes, at: int, kind: str) -> None:
    whole = encoded(kind)
    try:
        photo = read_photo(whole[:at] + noise + whole[at + len(noise) :])
    except UndecodableError as error:
        assert str(error).endswith(".")
        assert "\n" not in str(error)
    else:
        assert photo.pixels.dtype == np.uint8
        assert photo.format in FORMATS


def test_photos_of_several_pictures_are_their_first(orch: Callable[..., Done], tmp_path: Path) -> None:
    """MPO: what many cameras write as .jpg."""
    for number in range(4):
        first = Image.fromarray(np.roll(PIXELS, number, axis=0))
        first.save(tmp_path / f"{number}.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (16, 24))])
    with Image.open(tmp_path / "0.jpg") as image:
        assert image.format == "MPO"
    assert np.array_equal(decode(tmp_path / "0.jpg"), decode(encoded("JPEG")))
    assert read_photo(tmp_path / "0.jpg").format == "JPEG"
    rows = "".join(f"{n}.jpg,p{n},{'wear' if n % 2 else 'not_wear'}\n" for n in range(4))
    (tmp_path / "m.csv").write_text(f"path,person,mask\n{rows}")
    done = orch("data", "check", "--data", tmp_path / "m.csv", "--tasks", "mask", "--folds", 2)
    assert done.code == 0, done.out
    assert "by its content" not in done.out


@pytest.mark.parametrize(("suffix", "kind"), [(".jfif", "JPEG"), (".bmp", "BMP"), (".webp", "WEBP"), (".mpo", "JPEG")])
def test_other_endings_are_read_for_what_they_are(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"photo{suffix}"
    options = {"lossless": True} if kind == "WEBP" else {}
    path.write_bytes(encoded(kind, **options))
    photo = read_photo(path)
    assert photo.format == kind
    assert suffix in FORMATS[kind]
    if kind != "JPEG":
        assert np.array_equal(photo.pixels, PIXELS)


def test_metadata_is_told_by_data_check_and_keeps_nobody_from_training(
    orch: Callable[..., Done], tmp_path: Path
) -> None:
    rows = []
    for number, (name, (data, _)) in enumerate(ODD.items()):
        path = tmp_path / f"{number}.{name.split(':')[0]}"
        path.write_bytes(data + bytes([number]))  # every file another one
        rows.append(f"{path.name},p{number},{'wear' if number % 2 else 'not_wear'}\n")
    (tmp_path / "m.csv").write_text("path,person,mask\n" + "".join(rows))
    done = orch("data", "check", "--data", tmp_path / "m.csv", "--tasks", "mask", "--folds", 2)
    assert done.code == 0, done.out
    assert "0.png: metadata left out" in done.out
    assert "Invalid APNG" in done.out
    assert "site-packages" not in done.out + done.err
    assert done.err == ""
    report = check(tmp_path / "m.csv", needs={"mask": ["mask"]})
    assert sum(problem.kind == "photo_metadata" for problem in report.problems) >= 7
    assert orch("data", "describe", "--data", tmp_path / "m.csv").err == ""


def test_threads_keep_their_notes_apart_and_leave_no_filter_behind(tmp_path: Path) -> None:
    odd, whole = ODD["png: an animation of no frames"][0], encoded("PNG")
    before = (list(warnings.filters), warnings.showwarning)
    with ThreadPoolExecutor(8) as pool:
        all_notes = list(pool.map(lambda number: read_photo(odd if number % 2 else whole).notes, range(400)))
    assert [bool(notes) for notes in all_notes] == [bool(number % 2) for number in range(400)]
    assert (list(warnings.filters), warnings.showwarning) == before
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(io.BytesIO(odd)):
        pass  # who opens photos himself is warned as ever


def test_warnings_of_other_threads_still_reach_whom_they_are_for() -> None:
    messages: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_more, **_named: messages.append(str(message))
        odd = ODD["png: an animation of no frames"][0]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: (read_photo(odd), warnings.warn("mine", UserWarning, stacklevel=1)), range(50)))
    assert messages == ["mine"] * 50


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are the system's")
def test_a_photo_without_permission_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded("PNG"))
    close_to_readers(path, monkeypatch)
    with pytest.raises(PhotoError, match=r"photo.png: no permission to read it"):
        decode(path)
    (tmp_path / "m.csv").write_text("path,person,mask\nphoto.png,a,wear\n")
    report = check(tmp_path / "m.csv")
    assert any("no permission to read it. Allow it (chmod u+r)" in str(problem) for problem in report.fatal)
    assert not any("damaged" in str(problem) for problem in report.problems)


def test_the_copy_beside_an_export_needs_no_orchestrator_and_decodes_the_same(tmp_path: Path) -> None:
    shutil.copy(str(decoding.__file__), tmp_path / "decoding.py")
    for number, (data, _) in enumerate(ODD.values()):
        (tmp_path / f"{number}.bin").write_bytes(data)
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import decoding, hashlib, pathlib\n"
        f"for number in range({len(ODD)}):\n"
        "    print(hashlib.sha256(decoding.read_photo(pathlib.Path(f'{number}.bin')).pixels.tobytes()).hexdigest())\n"
        "assert not any(name.startswith('orchestrator') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split() == [hashlib.sha256(decode(data).tobytes()).hexdigest() for data, _ in ODD.values()]


def test_a_pipe_is_no_photo_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer
    for read in (read_photo, size_of):
        with pytest.raises(UndecodableError, match="a pipe, not a photo"):
            read(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="it is a pipe"):
        sha256_of(tmp_path / "pipe.jpg")
    (tmp_path / "m.csv").write_text("path,person,mask\npipe.jpg,a,wear\n")
    assert any("pipe.jpg" in str(problem) for problem in check(tmp_path / "m.csv").fatal)

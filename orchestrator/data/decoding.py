"""Decodes a photo's bytes to upright RGB pixels; faults in its metadata become notes, not errors.

Viewers show photos with a damaged EXIF entry, an oversized text or colour profile, or a chunk with a wrong checksum, so
they are decoded here too. Pillow's warnings become notes on their photo and never reach the terminal. Every export
includes a copy of this file, so it needs only Pillow and NumPy and imports nothing from orchestrator.
"""

from __future__ import annotations

import io
import math
import stat
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = ["FORMATS", "KINDS", "MAX_PIXELS", "SUFFIXES", "Decoded", "UndecodableError", "read_photo", "size_of"]

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
}
"""Supported formats, detected by content, and the suffixes of their files; Pillow knows dozens more, some of which
start other programs."""

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)

MAX_PIXELS = 64_000_000
"""A photo with more pixels is refused: 64 MP is above any phone's full resolution and 192 MB decoded. Pillow
itself only warns at 89 MP and errors at twice that."""

STARTS = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"BM", "BMP"))
COLOUR_SEGMENTS = {0xE0: 14, 0xEE: 12}
"""Marker of a JPEG's segment that says how colours are stored (JFIF, Adobe) -> the fewest bytes of data that libjpeg reads."""
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")  # the chunks of a PNG that its pixels depend on
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)


KINDS = (
    "missing_file", "no_permission", "unreadable_file", "empty_file", "not_a_photo", "unknown_format", "too_large", "damaged",
)  # fmt: skip
"""Kinds of photos that cannot be decoded, as words for machines; `not_a_photo` is a folder, a pipe or a device."""


class UndecodableError(ValueError):
    """A file or its bytes cannot be decoded as a photo; callers prefix the message with the file's name and a colon.

    Args:
        message: what is wrong with it, as a sentence.
        kind: one of `KINDS`.
    """

    def __init__(self, message: str, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded photo, upright, with what was odd about its file.

    Attributes:
        pixels: shape (H, W, 3), uint8, RGB in 0..255.
        format: a key of FORMATS.
        notes: faults that were ignored, as sentences.
    """

    pixels: NDArray[np.uint8]
    format: str
    notes: tuple[str, ...] = ()


def read_photo(source: Path | bytes) -> Decoded:
    """Decodes one photo to upright RGB.

    EXIF orientation is applied; grey and palette images become RGB; CMYK is converted; 16-bit grey keeps its high
    byte; transparent pixels are blended with white, as in viewers.

    Args:
        source: a file or its bytes.

    Raises:
        UndecodableError: it cannot be decoded; says what is wrong with it.
        MemoryError: its pixels do not fit.
    """
    with _listening() as notes:
        try:
            _refuse_streams(source)
            return _decoded(source, notes)
        except (UndecodableError, MemoryError):
            raise
        except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, TypeError and more
            reason = _reason(source, error)
            if reason is not None:
                raise reason from None
            data = source if isinstance(source, bytes) else source.read_bytes()
            for bare in _without_metadata(data):
                try:
                    decoded = _decoded(bare, [])
                except (UndecodableError, MemoryError):
                    raise
                except Exception:  # it cannot be decoded without this metadata either
                    continue
                return Decoded(decoded.pixels, decoded.format, (f"metadata left out ({_line(error)}).", *decoded.notes))
            raise _damage(data, error) from None


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a photo after EXIF orientation, from its header if that is valid.

    Raises:
        UndecodableError: it cannot be decoded, as in `read_photo`.
    """
    with _listening() as notes:
        try:
            _refuse_streams(path)
            with Image.open(path, formats=tuple(FORMATS)) as image:
                width, height = image.size
                return (height, width) if _orientation(image, notes) in SIDEWAYS else (width, height)
        except Exception:  # of any kind: `read_photo` says in a sentence what is wrong
            pixels = read_photo(path).pixels
            return pixels.shape[1], pixels.shape[0]


def _refuse_streams(source: Path | bytes) -> None:
    """Refuses pipes and devices: opening a pipe may block forever."""
    if isinstance(source, Path):
        mode = source.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            what = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
            raise UndecodableError(f"{what}, not a photo.", "not_a_photo")


def _decoded(source: Path | bytes, notes: list[str]) -> Decoded:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(FORMATS)) as image:
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are decoded."
            raise UndecodableError(size, "too_large")
        image.load()
        turn = TURNS.get(_orientation(image, notes))
        pixels = _to_rgb(image if turn is None else image.transpose(turn))
        return Decoded(pixels, _format(image), tuple(dict.fromkeys(notes)))


def _format(image: Image.Image) -> str:
    # MPO holds several JPEG photos in one file, of which the first is shown.
    return "JPEG" if image.format == "MPO" else str(image.format)


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """The EXIF tag; 1, upright, where it cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception as error:  # Pillow parses it late, and fails by struct, zero division, syntax and more
        notes.append(f"EXIF data cannot be read ({_line(error)}): taken as upright.")
        return 1


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(high[:, :, None], 3, axis=2))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _reason(source: Path | bytes, error: Exception) -> UndecodableError | None:
    """Why a file cannot be decoded even without its metadata; None if the metadata may be the cause."""
    if isinstance(error, Image.DecompressionBombError):
        return UndecodableError(f"more than {MAX_PIXELS:,} pixels.", "too_large")
    if isinstance(error, FileNotFoundError) or (isinstance(source, Path) and "\0" in str(source)):
        return UndecodableError("no such file.", "missing_file")
    if isinstance(error, PermissionError):
        return UndecodableError("no permission to read it.", "no_permission")
    if isinstance(error, IsADirectoryError):
        return UndecodableError("a folder, not a photo.", "not_a_photo")
    if isinstance(error, OSError) and error.errno is not None:
        return UndecodableError(f"cannot be read ({error.strerror}).", "unreadable_file")
    empty = len(source) == 0 if isinstance(source, bytes) else source.stat().st_size == 0
    return UndecodableError("is empty (0 bytes).", "empty_file") if empty else None


def _damage(data: bytes, error: Exception) -> UndecodableError:
    """What is wrong with bytes that could not be decoded at all."""
    if isinstance(error, UnidentifiedImageError) and not any(data.startswith(start) for start, _ in STARTS):
        return UndecodableError(f"is not an image of a known format ({', '.join(FORMATS)}).", "unknown_format")
    what = "its head is damaged" if isinstance(error, UnidentifiedImageError) else _line(error)
    return UndecodableError(f"damaged or truncated ({what}).")


def _line(error: object) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def _without_metadata(data: bytes) -> Iterator[bytes]:
    """A file's bytes reduced to what its pixels need: first with its EXIF data, then without."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield _bare_png(data, (*PIXEL_CHUNKS, b"eXIf"))
        yield _bare_png(data, PIXEL_CHUNKS)
    elif data.startswith(b"\xff\xd8"):
        yield _bare_jpeg(data, exif=True)
        yield _bare_jpeg(data, exif=False)


def _bare_png(data: bytes, kinds: tuple[bytes, ...]) -> bytes:
    """A PNG with the chunks of some kinds only; optional ones (lower-case first letter) only if their checksum is right."""
    parts, at = [data[:8]], 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, chunk = data[at + 4 : at + 8], data[at:end]
        is_sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind in kinds and (is_sound or kind[:1].isupper() or kind == b"tRNS"):
            parts.append(chunk)
        at = end
    return b"".join(parts)


def _bare_jpeg(data: bytes, exif: bool) -> bytes:
    """A JPEG without application data and comments, except APP0 and APP14, which say how colours are stored.

    Shorter ones of these say nothing to libjpeg either (`examine_app0` and `examine_app14` of jdmarker.c), and break Pillow.
    """
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        on_colours = end - at - 4 >= COLOUR_SEGMENTS.get(marker, math.inf)
        if not metadata or on_colours or (exif and marker == 0xE1 and data[at + 4 : at + 8] == b"Exif"):
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])


_own = threading.local()
_lock = threading.Lock()
_state: dict[str, Any] = {"depth": 0, "before": None, "filter": None}


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Replaces `warnings.showwarning`: a decoding thread collects its warnings as notes."""
    notes = getattr(_own, "notes", None)
    if notes is None:
        _state["before"](message, category, filename, lineno, file, line)
    else:
        notes.append(_line(message) + ".")


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects Pillow's warnings of this thread; `warnings.catch_warnings` would mix up threads, and leave filters behind."""
    before, notes = getattr(_own, "notes", None), list[str]()
    with _lock:
        _state["depth"] += 1
        if warnings.showwarning is not _show:
            _state["before"] = warnings.showwarning
            warnings.showwarning = _show
        if _state["filter"] is None or _state["filter"] not in warnings.filters:
            warnings.filterwarnings("always", module=r"PIL\.")
            _state["filter"] = warnings.filters[0]
    _own.notes = notes
    try:
        yield notes
    finally:
        _own.notes = before
        with _lock:
            _state["depth"] -= 1
            if not _state["depth"]:
                if warnings.showwarning is _show:
                    warnings.showwarning = _state["before"]
                if _state["filter"] in warnings.filters:
                    warnings.filters.remove(_state["filter"])  # type: ignore[attr-defined]  # a list, whatever the stubs say
                _state["filter"] = None

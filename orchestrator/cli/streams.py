"""Standard output and error that survive odd file names and readers that have gone.

A file name may be invalid UTF-8, and a terminal may know only ASCII: what cannot be encoded is escaped. If a reader
closes the pipe (`orch ... | head -1`), a terminal hangs up or a stream was closed (`>&-`), the output for it is
dropped, and the command ends as usual, with the same exit code.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import Any, TextIO

__all__ = ["as_written", "configure_streams", "in_utf8", "is_utf8"]

GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET)
"""Errors of a reader that has gone; EIO: a terminal that hung up. A full disk (`> file`) is reported instead."""

LONE = range(0xDC80, 0xDD00)
"""Code points for bytes of a file name that are not UTF-8 (PEP 383)."""


class _Output(io.RawIOBase):
    """A file descriptor that drops output once its reader has gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._gone = descriptor, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        if not self._gone:
            try:
                return os.write(self._descriptor, data)
            except OSError as error:
                if error.errno not in GONE:
                    raise
                self._gone = True
        return len(data)


def as_written(text: str) -> str:
    """A text as stdout will show it: letters that its encoding does not know are escaped, and on a terminal stray bytes."""
    if is_utf8(sys.stdout) and not sys.stdout.isatty():
        return text
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "orch-terminal").decode(encoding)


def in_utf8() -> None:
    """Restarts the program with file names in UTF-8 if Python would use another encoding for them.

    Tables, libraries and folders all name files in UTF-8. In a locale of ASCII or of older encodings Python would look for other
    names, and give libraries names that they cannot open. What is printed stays in the terminal's encoding.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":
        letters = sys.stdout.encoding if sys.stdout is not None else "utf-8"
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING") or letters}
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def configure_streams() -> None:
    """Makes standard streams fit for any name and any reader; safe to repeat. Streams that were replaced (in tests) stay."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next opened file would get its number, and then the output meant for this stream
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # as long as the process
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _opened(1, sys.stdout)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _opened(2, sys.stderr)


def is_utf8(stream: TextIO) -> bool:
    """Whether a stream can show any letter."""
    return bool(stream.encoding) and codecs.lookup(stream.encoding).name == "utf-8"


def _opened(descriptor: int, before: TextIO | None) -> TextIO:
    """A stream on a descriptor, with the encoding that Python chose for it."""
    if isinstance(before, io.TextIOWrapper):
        before.flush()
    raw = _Output(descriptor)
    terminal = raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), before.encoding if before is not None else "utf-8",
        "orch-terminal" if terminal else "orch-pipe", line_buffering=terminal or descriptor == 2,
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )  # fmt: skip


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """For a terminal: `\\xff` for a stray byte, `\\ud55c` for a letter that it does not know."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(
        rf"\x{ord(letter) - 0xDC00:02x}" if ord(letter) in LONE else _code(letter) for letter in letters
    ), error.end


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """For files and pipes: a stray byte is that byte, so that a name goes on as it is (`| xargs`)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    parts = [
        bytes([ord(letter) - 0xDC00]) if ord(letter) in LONE else _code(letter).encode("ascii") for letter in letters
    ]
    return b"".join(parts), error.end


def _code(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error("orch-terminal", _escaped)
codecs.register_error("orch-pipe", _as_bytes)

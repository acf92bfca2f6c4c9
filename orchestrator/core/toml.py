"""TOML files written by users: read however their editor saved them, or refused with an error that names the file.

Windows editors add a byte-order mark and carriage returns; both are ignored. This module knows nothing about the
purpose of a file.
"""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.core.errors import ConfigError

__all__ = ["parse_toml", "read_toml", "toml_text", "toml_value"]

OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte-order marks of other encodings, longer ones first."""


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """Reads a TOML file that a user wrote.

    Args:
        path: the file.
        option: option that named the file, for messages.

    Raises:
        ConfigError: no such file, not UTF-8 text, or not TOML.
    """
    return parse_toml(toml_text(path, option), f"{option}: {path}")


def toml_text(path: Path, option: str) -> str:
    """A TOML file's text, without a byte-order mark.

    Raises:
        ConfigError: no such file, or not UTF-8 text.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise ConfigError(f"{option}: {path}: {getattr(error, 'strerror', None) or error}.") from None
    for mark, name in OTHER_MARKS.items():
        if data.startswith(mark):
            raise ConfigError(f"{option}: {path}: is text in {name}, and TOML is UTF-8. Save it as UTF-8.")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{option}: {path}: is not a text file (UTF-8): line {line}. Save it as UTF-8.") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """The values of TOML text.

    Args:
        text: TOML.
        where: name of the source, for messages.

    Raises:
        ConfigError: the text is not valid TOML.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and numbers of more digits than Python converts
        raise ConfigError(f"{where}: not valid TOML: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid TOML: nested too deeply.") from None


def toml_value(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    return str(_item(value).as_string())


def _item(value: Any) -> Any:
    import tomlkit  # here, since it takes 20 ms that only writing needs

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update({key: _item(item) for key, item in value.items()})
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(map(_item, value))
        return array
    return tomlkit.item(value)

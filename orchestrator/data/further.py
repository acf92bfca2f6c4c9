"""Further columns of a source's table, such as `race`: nothing is trained on them, and scores can be divided by them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.core.errors import ConfigError, DataError, nearest, quantity
from orchestrator.data.manifest import MANIFEST_COLUMNS, path_on_disk
from orchestrator.data.paths import contest_table, find_file, is_folder
from orchestrator.data.spelling import clean
from orchestrator.data.tables import read_table, text

__all__ = ["column_of"]

EMPTY = "(empty)"
"""Value of an empty cell."""


def column_of(source: Path, name: str, photos: Sequence[str], columns: Mapping[str, str] | None = None) -> list[str]:
    """The value of a column for each photo.

    Args:
        source: a folder with train.csv and images/, or a manifest.
        name: the column's name in the table.
        photos: paths of photos, as `Photos` of this source has them.
        columns: our name -> the manifest's, for `path`.

    Raises:
        ConfigError: the table has no such column.
        DataError: the table cannot be read, or names none of some photos.
    """
    if name in MANIFEST_COLUMNS:
        raise ConfigError(
            f"--by {name}: photos are divided by gender, age and mask anyway; give a further column of the table."
        )
    is_contest = is_folder(source) or (source.name == "train.csv" and not columns)
    table = read_table(contest_table(source if is_folder(source) else source.parent) if is_contest else source)
    if clean(name) not in table:
        hint = nearest(name, table.columns)
        raise ConfigError(f"--by {name}: {table.path} has no such column; it has {', '.join(table.columns)}.{hint}")
    names = [text(path) for path in table.column("path" if is_contest else (columns or {}).get("path", "path"))]
    folder = table.path.parent
    if is_contest:  # a row is a person, whose photos lie in one folder
        images = folder / "images"
        keys = [f"images/{find_file(images, os.path.normpath(name)) or clean(name)}" for name in names]
        wanted = [path.rpartition("/")[0] for path in photos]
    else:
        keys, wanted = [path_on_disk(name, folder) for name in names], list(photos)
    value_of = dict(zip(keys, (clean(text(value)) or EMPTY for value in table.column(clean(name))), strict=True))
    if missing := [path for path, key in zip(photos, wanted, strict=True) if key not in value_of]:
        raise DataError(
            f"--by {name}: {table.path} names no row for {quantity(len(missing), 'photo')}, {missing[0]} among them. Give the "
            "data that was scored with --data."
        )
    return [value_of[key] for key in wanted]

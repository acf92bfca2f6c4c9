"""A user's note and tags for a run, stored in a separate file: the run itself stays unchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.artifacts.locks import check_not_deleted, workspace_lock
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import ConfigError
from orchestrator.core.sealed import after_setting_aside, damaged_error, read_sealed, write_sealed
from orchestrator.core.typed import check_types

__all__ = ["Annotations", "annotate", "check_tag"]

FILE = "notes.json"
ANNOTATIONS_FORMAT, KIND = 2, "notes"
TAG = re.compile(r"[\w.+-]{1,40}")


@dataclass(frozen=True)
class Annotations:
    """A run's note and tags.

    Attributes:
        note: free text; empty for none.
        tags: words, sorted.
    """

    note: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Annotations:
        """Reads the note and tags of a run's folder; empty if there are none.

        Raises:
            DamagedError: the file is damaged, or another run's.
        """
        path = folder / FILE
        if not os.path.lexists(path):
            return cls()
        way_out = after_setting_aside(path, "go on without its note and tags.")
        value = read_sealed(path, KIND, folder.name, ANNOTATIONS_FORMAT, way_out)
        try:
            annotations = cls(value["note"], tuple(value["tags"]))
            check_types(annotations)
            return annotations
        except (KeyError, TypeError) as error:
            raise damaged_error(path, f"not a note and tags ({error})", way_out) from None

    def write(self, folder: Path) -> None:
        """Writes the note and tags beside the run's record, atomically."""
        write_sealed(folder / FILE, KIND, folder.name, ANNOTATIONS_FORMAT, asdict(self))


def annotate(
    run: RunRecord, note: str | None = None, tags: Iterable[str] = (), untags: Iterable[str] = ()
) -> Annotations:
    """Changes a run's note and tags, whatever other commands change at the same time.

    Args:
        run: the run.
        note: its note; None: unchanged.
        tags: tags to add.
        untags: tags to remove.

    Raises:
        ConfigError: an invalid tag, or a tag to remove that the run does not have.
        DamagedError: the file is damaged.
        WorkspaceError: the run was deleted meanwhile.
    """
    with workspace_lock(run.root):
        check_not_deleted(run.folder)
        present = Annotations.read(run.folder)
        if absent := sorted(set(untags) - set(present.tags)):
            raise ConfigError(f"--untag {' '.join(absent)}: {run.id} has the tags {' '.join(present.tags) or 'none'}.")
        kept = {*present.tags, *map(check_tag, tags)} - set(untags)
        annotations = Annotations(present.note if note is None else note, tuple(sorted(kept)))
        annotations.write(run.folder)
    return annotations


def check_tag(tag: str) -> str:
    """Returns a tag that is valid.

    Raises:
        ConfigError: it is too long, or holds spaces or signs that are not allowed.
    """
    if not TAG.fullmatch(tag):
        raise ConfigError(f"--tag '{tag}': a tag is one word of letters, digits and . _ + -, at most 40.")
    return tag

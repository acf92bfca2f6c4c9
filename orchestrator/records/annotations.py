"""What people write beside a run: a note and tags. The run itself stays as it was trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.data.files import check_format, read_json, write_json
from orchestrator.errors import ConfigError

__all__ = ["Annotations", "check_tag"]

FILE = "notes.json"
ANNOTATIONS_FORMAT = 1
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
        """Those of a run's folder; empty where nobody has written any."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        value = read_json(path)
        check_format(path, value, ANNOTATIONS_FORMAT)
        return cls(str(value.get("note", "")), tuple(value.get("tags", ())))

    def write(self, folder: Path) -> None:
        """Writes them atomically."""
        write_json(folder / FILE, {"format": ANNOTATIONS_FORMAT, **asdict(self)})

    def tagged(self, tags: Iterable[str], remove: bool = False) -> Annotations:
        """With some tags more, or fewer."""
        known = set(self.tags)
        return Annotations(self.note, tuple(sorted(known - set(tags) if remove else known | set(tags))))


def check_tag(word: str) -> str:
    """A word that may be a tag.

    Raises:
        ConfigError: it holds spaces or signs.
    """
    if not TAG.fullmatch(word):
        raise ConfigError(f"--tag '{word}': a tag is one word of letters, digits and . _ + -, at most 40.")
    return word

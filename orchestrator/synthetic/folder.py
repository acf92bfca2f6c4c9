"""The folder that synthetic people are drawn into: new, empty, or left unfinished; checked before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.errors import ConfigError, DataError

__all__ = ["FEWEST_PEOPLE", "UNFINISHED", "check_request", "is_unfinished"]

UNFINISHED = ".unfinished"
"""Name of a file in a folder whose people have not all been drawn yet."""

FEWEST_PEOPLE = 6
"""One for each gender and age band."""


def check_request(root: Path, people: int) -> None:
    """Refuses too few people, and a folder that holds other files.

    Raises:
        ConfigError: too few people.
        DataError: the folder is not empty.
    """
    if people < FEWEST_PEOPLE:
        raise ConfigError(f"--people {people}: at least {FEWEST_PEOPLE}, one for each gender and age band.")
    if root.exists() and any(root.iterdir()) and not is_unfinished(root):
        raise DataError(
            f"{root}: is not empty; synthetic people are never mixed into other files. Choose a new folder."
        )


def is_unfinished(root: Path) -> bool:
    """Whether a drawing of people into this folder was stopped; the next one starts again."""
    return (root / UNFINISHED).is_file()

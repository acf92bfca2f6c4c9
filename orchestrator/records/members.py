"""Sharing a complete member between runs: the same bytes, hard-linked where the disk can, copied where not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from orchestrator.data.files import atomic, sha256_of, sweep
from orchestrator.errors import WorkspaceError
from orchestrator.records.run import RunRecord
from orchestrator.training.checkpoints import BEST, CARD, CHECKPOINT, HISTORY, PROGRESS, read_card

__all__ = ["check_member", "clear", "share_member"]


def clear(folder: Path) -> None:
    """Removes what a kill left behind in a member's folder; the caller holds the run's lock."""
    sweep(folder)
    if (folder / CARD).is_file():
        for name in (CHECKPOINT, BEST, PROGRESS):
            (folder / name).unlink(missing_ok=True)


def check_member(run: RunRecord, fold: int | None) -> dict[str, Any]:
    """The member's card, when its files are those that were written.

    Raises:
        WorkspaceError: a file of the member is missing or was changed.
    """
    there = run.member(fold)
    card = read_card(there)
    for name, digest in card["sha256"].items():
        if not (there / name).is_file() or sha256_of(there / name) != digest:
            raise WorkspaceError(
                f"{there / name}: missing or not the file that was written (sha256 differs). Restore it, or retrain that "
                f"fold too: --fold {fold}."
            )
    return card


def share_member(source: RunRecord, target: RunRecord, fold: int | None) -> None:
    """Gives `target` the member of `source`, checked against its card; safe to repeat.

    Members are immutable, so a hard link is as good as a copy, and deleting either run leaves the other whole.

    Raises:
        WorkspaceError: a file of the member is missing or was changed.
    """
    there, here = source.member(fold), target.member(fold)
    card = check_member(source, fold)
    here.mkdir(parents=True, exist_ok=True)
    for name in (*card["sha256"], HISTORY, CARD):  # the card last: it marks the member complete
        with atomic(here / name) as temporary:
            temporary.unlink()
            try:
                os.link(there / name, temporary)
            except OSError:
                shutil.copy2(there / name, temporary)

"""The members of a run: checks them, repairs damaged ones, and shares them between runs.

Shared members are identical files: hard links if the disk supports them, copies otherwise.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from orchestrator.artifacts.cards import (
    CARD,
    CHECKPOINT,
    HISTORY,
    PROGRESS,
    MemberCard,
    best_file,
    check_files,
    check_identity,
    retrain_advice,
)
from orchestrator.artifacts.run import COMPLETE, UNFINISHED, RunRecord, member_folder
from orchestrator.artifacts.summary import pooled_score
from orchestrator.core.errors import DamagedError, WorkspaceError
from orchestrator.core.files import remove_own_file, remove_temporaries, set_aside, share_file
from orchestrator.core.sealed import damaged_error

__all__ = ["check_member", "is_intact", "remove_leftovers", "set_aside_damaged", "share_member", "update_status"]

log = logging.getLogger(__name__)


def remove_leftovers(folder: Path) -> None:
    """Removes what a kill left behind in a member's folder; the caller holds the run's lock."""
    remove_temporaries(folder)
    if (folder / CARD).is_file():
        for name in (CHECKPOINT, PROGRESS, *(path.name for path in folder.glob(best_file("*")))):
            remove_own_file(folder / name)


def check_member(run: RunRecord, fold: int | None, files: bool = True) -> MemberCard:
    """The member's card, checked to belong to the run, with the member's files intact.

    Args:
        run: run of the member.
        fold: held-out fold of the member; None: no fold.
        files: whether to hash weights and held-out table too, not only the card.

    Raises:
        DamagedError: a file of the member is missing, damaged, or another member's.
    """
    folder = run.member(fold)
    card = MemberCard.load(folder)
    on_record = run.files.get(member_folder(fold))
    if on_record is None:
        check_identity(folder, card.id, run.identity(fold))
    elif card.sha256 != on_record:
        raise damaged_error(folder / CARD, f"not the card that {run.id} was completed with", retrain_advice(folder))
    if files:
        check_files(folder, card)
    return card


def is_intact(run: RunRecord) -> bool:
    """Whether every file of a run's members is the one that was written."""
    try:
        for fold in run.folds:
            check_member(run, fold)
    except DamagedError:
        return False
    return True


def update_status(run: RunRecord, files: bool = True) -> list[int | None]:
    """Saves the state of a run: complete if all its members are intact, unfinished otherwise.

    Args:
        run: record of the run, modified and saved.
        files: whether to hash weights and held-out tables too; unnecessary right after training.

    Returns:
        The folds whose members are missing or damaged.

    Raises:
        DamagedError: a file of a member is damaged and may not be replaced.
    """
    missing: list[int | None] = []
    cards: dict[int | None, MemberCard] = {}
    recorded = dict(run.files)
    for fold in run.folds:
        try:
            cards[fold] = check_member(run, fold, files)
        except DamagedError as error:
            if not error.replaceable:
                raise
            recorded.pop(member_folder(fold), None)
            missing.append(fold)
    seconds = round(sum(card.seconds for fold, card in cards.items() if fold in run.own_folds), 2)
    if missing:
        run.update(status=UNFINISHED, seconds=seconds, files=recorded, score=None)
    else:  # written last: a complete run has all its members
        recorded = {member_folder(fold): dict(card.sha256) for fold, card in cards.items()}
        run.update(status=COMPLETE, seconds=seconds, files=recorded, score=pooled_score(cards.values()))
    return missing


def set_aside_damaged(run: RunRecord) -> None:
    """Sets damaged members aside, so that they are trained again; the caller holds the run's lock.

    A complete run that lacks a member is unfinished again. Nothing is deleted.

    Args:
        run: record of the run, modified and saved if members were set aside or are missing.

    Raises:
        DamagedError: a file of a member is damaged and may not be replaced.
    """
    for fold in run.folds:
        folder = run.member(fold)
        is_incomplete = not run.complete and not os.path.lexists(folder / CARD)
        if is_incomplete and (folder.is_dir() or not os.path.lexists(folder)):
            continue  # its turn has not come, or it is under way
        try:
            check_member(run, fold)
        except DamagedError as error:
            if not error.replaceable:
                raise
            aside = set_aside(folder)
            note = f" (the old files were set aside as {aside.name})" if aside else ""
            others = {name: files for name, files in run.files.items() if name != member_folder(fold)}
            run.update(status=UNFINISHED, files=others)
            if _share_again(run, fold):
                log.warning(f"{error.fact}: {run.id} takes it from {run.parent} again{note}.")
                continue
            log.warning(f"{error.fact}: {run.id} trains it again{note}.")


def _share_again(run: RunRecord, fold: int | None) -> bool:
    """Shares a member again from the run that it came from; returns False if it is not intact there either."""
    if run.parent is None or fold in run.retrained or run.derived:
        return False
    try:
        share_member(RunRecord.load(run.root / run.parent), run, fold)
    except WorkspaceError:
        return False
    return True


def share_member(source: RunRecord, target: RunRecord, fold: int | None) -> None:
    """Gives `target` the member of `source`, checked against its card; safe to repeat.

    Members are immutable, so a hard link is as good as a copy, and deleting either run leaves the other complete.

    Raises:
        DamagedError: a file of the member is missing or was changed.
    """
    source_folder, target_folder = source.member(fold), target.member(fold)
    card = check_member(source, fold)
    target_folder.mkdir(parents=True, exist_ok=True)
    for name in (*card.sha256, HISTORY, CARD):  # the card last: it marks the member complete
        if name == HISTORY and not (source_folder / name).is_file():
            continue
        share_file(source_folder / name, target_folder / name)
    name, seed = member_folder(fold), source.seed_of(fold)
    seeds = target.shared_seeds if seed == target.seed else {**target.shared_seeds, name: seed}
    target.update(files={**target.files, name: dict(card.sha256)}, shared_seeds=seeds)

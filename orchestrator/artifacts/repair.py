"""Checks a workspace's records, and restores lost ones whose contents are known from other files."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from orchestrator.artifacts.annotations import Annotations
from orchestrator.artifacts.cards import CARD, MemberCard
from orchestrator.artifacts.ensembles import CASCADE
from orchestrator.artifacts.locks import run_lock
from orchestrator.artifacts.members import check_member, update_status
from orchestrator.artifacts.origins import photo_hashes_of, plan_of, save_plan
from orchestrator.artifacts.run import RECORD, TRACKING, RunRecord
from orchestrator.artifacts.workspace import MARK, Workspace, now, write_mark
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, WorkspaceError
from orchestrator.core.files import set_aside
from orchestrator.core.labels import CLASSES
from orchestrator.core.sealed import after_setting_aside, check_sealed
from orchestrator.core.strategies import ENSEMBLE_KINDS

__all__ = ["WorkspaceFindings", "check", "repair"]

log = logging.getLogger(__name__)

ID = re.compile(rf"\b({'|'.join((*CLASSES, *ENSEMBLE_KINDS))})-(\d{{4,}})\b")
"""A run's or an ensemble's id within a text."""

COMMAND = re.compile(r"`[^`]+`")
"""A command to paste within a text."""


@dataclass
class WorkspaceFindings:
    """What a check of a workspace found, for `orch workspace check`.

    Attributes:
        files: files read.
        damaged: one error for each that is not as it was written.
        notes: sentences on choices that are missing: deleted with what was chosen, or lost.
    """

    files: int = 0
    damaged: list[DamagedError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, check: Callable[[], object], files: int = 1) -> None:
        """Runs a check of some files, and stores its DamagedError."""
        self.files += files
        try:
            check()
        except DamagedError as error:
            # Several runs may use one plan or one table of photos: each file is reported once.
            if error.path not in [reported.path for reported in self.damaged]:
                self.damaged.append(self._once(error))

    def _once(self, error: DamagedError) -> DamagedError:
        """The error without a way out that the same commands of an earlier one are: they need to be given once."""
        known = {command for earlier in self.damaged for command in COMMAND.findall(earlier.way_out)}
        commands = COMMAND.findall(error.way_out)
        if not commands or not known.issuperset(commands):
            return error
        way_out = "Restore it; or follow the way out above first, and check again."
        return DamagedError(error.path, error.what, way_out, error.problems, error.replaceable)


def check(root: Path) -> WorkspaceFindings:
    """Reads every essential file of a workspace; caches, locks, logs and pictures are not essential.

    Raises:
        WorkspaceError: there is no workspace, or its own file is damaged.
    """
    workspace, findings = Workspace(root), WorkspaceFindings(1)
    for run in _runs(workspace, findings):
        for fold in run.folds:
            if run.complete or os.path.lexists(run.member(fold) / CARD):
                findings.run(partial(check_member, run, fold), files=3)
        if run.plan is not None:
            findings.run(partial(plan_of, workspace, run))
        findings.run(partial(photo_hashes_of, workspace, run))
        findings.run(partial(Annotations.read, run.folder))
        tracking = run.folder / TRACKING
        findings.run(partial(_check_other, tracking, run.id, f"send it again: `{_track_command(run)}`."))
    for kind in (*CLASSES, "ensemble"):
        findings.run(partial(workspace.current, kind), files=workspace.has_current(kind))
        if note := workspace.missing_choice(kind):
            findings.notes.append(note)
    for name in workspace.ensembles():  # after the choices: what was said of a lost one is not said again
        findings.run(partial(_check_ensemble, workspace, name))
    findings.damaged += workspace.blocked_folders()
    return findings


def _runs(workspace: Workspace, findings: WorkspaceFindings) -> Iterator[RunRecord]:
    runs, errors = workspace.read_runs()
    findings.damaged += errors
    findings.files += len(runs) + len(errors)
    yield from runs


def _check_ensemble(workspace: Workspace, name: str) -> None:
    record = workspace.ensemble(name)
    again = after_setting_aside(record.folder, record.rebuild_advice())
    for file in record.files:
        record.file(file, again)
    workspace.check_members(record, choices_are_told=True)
    cascade = record.folder / CASCADE
    again = orch("cascade", "PHOTOS", "--ensemble", name, workspace=workspace.root)
    _check_other(cascade, name, f"measure it again: `{again}`.")


def _check_other(path: Path, name: str, way_out: str) -> None:
    """Checks an optional sealed file of another module: unchanged, and belonging to `name`."""
    if os.path.lexists(path):
        check_sealed(path, name, after_setting_aside(path, way_out))


def _track_command(run: RunRecord) -> str:
    return orch("runs", "track", run.id, "--to", "KIND", workspace=run.root)


def repair(root: Path) -> int:
    """Rewrites lost or damaged records; what is damaged is set aside.

    Args:
        root: the workspace's folder.

    Returns:
        The number of records that were rewritten or set aside.

    Raises:
        WorkspaceError: the folder holds nothing of a workspace, or its own record may not be replaced.
    """
    done = _repair_mark(root)
    from filelock import Timeout

    workspace = Workspace(root)
    for folder in workspace.run_folders():
        try:
            RunRecord.load(folder)
        except DamagedError as error:
            if error.replaceable:
                done += 1
                try:
                    with run_lock(folder) if folder.is_dir() else nullcontext():
                        _repair_run(workspace, folder)
                except Timeout:
                    raise WorkspaceError(
                        f"{folder.name}: another orch command is working on it. Wait for it, or stop it."
                    ) from None
    return done + _repair_plans(workspace)


def _repair_plans(workspace: Workspace) -> int:
    """Rewrites lost fold plans from the answers of the runs that followed them."""
    done = 0
    for run in workspace.read_runs()[0]:
        try:
            if run.plan is not None:
                plan_of(workspace, run)
        except DamagedError as error:
            from orchestrator.artifacts.held_out import plan_on_record

            plan = plan_on_record(workspace, run) if error.replaceable else None
            if plan is not None:
                save_plan(workspace, plan)
                log.info(f"{error.path} is rewritten from the answers of {run.id}.")
                done += 1
            elif error.replaceable:
                log.info(
                    f"{error.path}: the runs' answers do not give this plan; `{run.way_to_complete.split('`')[1]}` may."
                )
    return done


def _repair_mark(root: Path) -> int:
    try:
        Workspace(root)
        return 0
    except DamagedError as error:
        if not error.replaceable or Path(str(error.path)) != root / MARK:
            raise
        numbers = _retired_numbers(root / MARK)
        aside = set_aside(root / MARK)
    for kind, number in _mentioned_numbers(root).items():
        numbers[kind] = max(numbers.get(kind, 0), number)
    write_mark(root, now(), numbers)
    log.info(f"{root / MARK} is rewritten{f'; the old one was set aside as {aside.name}' if aside else ''}.")
    return 1


def _retired_numbers(path: Path) -> dict[str, int]:
    """What a damaged file still says of numbers that were deleted; too high a number does no harm."""
    try:
        retired = json.loads(path.read_text(encoding="utf-8"))["retired"]
        return {
            kind: int(retired[kind]) for kind in (*CLASSES, *ENSEMBLE_KINDS) if 0 < int(retired.get(kind, 0)) < 10**6
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _mentioned_numbers(root: Path) -> dict[str, int]:
    """Kind -> highest number of a deleted run or ensemble that files in the workspace still mention.

    A search or a tracker that refers to a run by its id must never find another run under this id. Existing runs and
    ensembles are counted when an id is assigned.
    """
    names = [path.name for folder in ("deleted", "tensorboard") for path in (root / folder).glob("*")]
    names += [path.read_bytes().decode("latin-1") for path in (root / "sweeps").glob("*") if path.is_file()]
    numbers: dict[str, int] = {}
    for match in (match for name in names for match in ID.finditer(name)):
        numbers[match[1]] = max(numbers.get(match[1], 0), int(match[2]))
    return numbers


def _repair_run(workspace: Workspace, folder: Path) -> None:
    """Restores a run's record from its members' cards, each with a copy from when the member was trained."""
    run = _record_in_cards(folder)
    if run is None:
        aside = set_aside(folder)
        log.info(
            f"{folder.name}: none of its members is complete, so it cannot be restored; set aside as "
            f"{aside and aside.name}."
        )
        return
    aside = set_aside(folder / RECORD)
    run = replace(run, make_current="never", was_offered=workspace.current_or_none(run.task) == run.id)
    run.save()
    missing = update_status(run)
    aside_note = f"; the old one was set aside as {aside.name}" if aside else ""
    advice = f" Fold {', '.join(map(str, missing))} is missing: {run.way_to_complete}" if missing else ""
    log.info(f"{folder / RECORD} is rewritten from the members' cards{aside_note}: {run.id} is {run.status}.{advice}")


def _record_in_cards(folder: Path) -> RunRecord | None:
    """The record that a member's card holds of its own run; None where no card does."""
    for member in sorted(folder.glob("*")):
        try:
            card = MemberCard.load(member)
        except WorkspaceError:
            continue
        if card.run == folder.name:
            return RunRecord.of(folder, {**card.record, "files": {}}, "")
    return None

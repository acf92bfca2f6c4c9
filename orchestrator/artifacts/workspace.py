"""The workspace: one folder (`runs/` by default) with fold plans, runs, ensembles and caches.

workspace.json          format, so that another version's workspace is refused, not misread; numbers never used again
plans/<name>.json       fold plans
photos/<name>.json      hashes of the files that runs were trained on
age-0001/ ...           runs
current/age.json ...    which run is current for each specialist, and which ensemble
soft-0001/ ...          ensembles
sweeps/                 saved searches
deleted/                runs and ensembles that are being deleted
store/                  decoded pixels       } caches: deleting
cache/                  hashes, weights      } them loses nothing

Every essential file is sealed (core/sealed.py), and stores the sha256 of the files that belong to it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.artifacts.cards import CARD, WEIGHTS, missing_file, retrain_advice
from orchestrator.artifacts.ensembles import ENSEMBLE, EnsembleMember, EnsembleRecord
from orchestrator.artifacts.locks import workspace_lock
from orchestrator.artifacts.run import RECORD, RunRecord
from orchestrator.core.commands import display_path, orch, set_aside_command
from orchestrator.core.errors import DamagedError, WorkspaceError, escape_non_utf8, nearest, printable
from orchestrator.core.files import aside_path, set_aside, why_no_folder
from orchestrator.core.labels import CLASSES, TASKS
from orchestrator.core.outputs import Output, check_outputs
from orchestrator.core.sealed import (
    after_setting_aside,
    damaged_error,
    read_sealed,
    unreadable_error,
    write_sealed,
)
from orchestrator.core.strategies import ENSEMBLE_KINDS, VOTES
from orchestrator.core.typed import check_types

if TYPE_CHECKING:
    from filelock import FileLock

    from orchestrator.data.hashes import HashCache

__all__ = ["MARK", "WORKSPACE_FORMAT", "Workspace", "now", "write_mark"]

WORKSPACE_FORMAT = 3
CURRENT_FORMAT = 2
FEW = 12  # ids that an error lists
MARK = "workspace.json"
KIND, NAME = "workspace", "workspace"
MAKING = ".making-"  # prefix of a folder that is being made, so that a kill leaves no incomplete one under its name
RECORDS = ("current", "plans", "photos")
"""Folders of a workspace that every command relies on, besides those of its runs and ensembles."""

REBUILT = ("store", "cache", "sweeps", "deleted")
"""Folders that commands make when they need them."""

FOLDER = re.compile(r"([a-z_]+)-(\d{4,})")


def write_mark(root: Path, created: str, retired: Mapping[str, int]) -> None:
    """Writes the file that makes a folder a workspace.

    Args:
        root: the folder.
        created: local time, ISO 8601.
        retired: kind -> the highest number that was deleted.
    """
    write_sealed(root / MARK, KIND, NAME, WORKSPACE_FORMAT, {"created": created, "retired": dict(retired)})


@dataclass(frozen=True)
class _Mark:
    """What the file holds that makes a folder a workspace."""

    created: str
    retired: dict[str, int]


class Workspace:
    """A workspace folder, opened.

    Args:
        root: the folder.
        create: whether to make it if it is missing.

    Raises:
        WorkspaceError: the folder is missing, or is not a workspace.
        DamagedError: its own file is missing, damaged, or of another format.
    """

    def __init__(self, root: Path, create: bool = False) -> None:
        self.root = root
        self._check_name(root)
        if self.is_at(root):
            self._about()
            self._check_folders()
            return
        self._check_room(root)
        if not create:
            train = orch("train-all", "--data", "DIR", workspace=root)
            raise WorkspaceError(f"{root}: no workspace here. `{train}` makes one; --workspace names another folder.")
        root.mkdir(parents=True, exist_ok=True)
        write_mark(root, now(), {})

    @classmethod
    def check(cls, root: Path) -> None:
        """Refuses a folder in which a workspace can neither be opened nor made, before anything is made.

        Raises:
            WorkspaceError: something else is there.
            DamagedError: a workspace's own file is missing, damaged, or of another format.
            ConfigError: no file can be written there.
        """
        cls._check_name(root)
        if cls.is_at(root):
            cls(root)
            return
        cls._check_room(root)
        check_outputs([Output("--workspace", root, folder=True)])

    @staticmethod
    def _check_name(root: Path) -> None:
        """Refuses a name that is not UTF-8: weights and networks are opened by names in UTF-8 alone."""
        if str(root) != escape_non_utf8(str(root)):
            raise WorkspaceError(
                f"{printable(str(root))}: the name of a workspace must be UTF-8. Choose another folder with --workspace, or "
                "rename this one; from within it, `--workspace .` does as well."
            )

    @staticmethod
    def _check_room(root: Path) -> None:
        """Refuses a folder that is no workspace, and cannot become one: `train-all` would fail there."""
        for folder in (root, *root.parents):
            if reason := why_no_folder(folder):
                aside = set_aside_command(folder)
                raise WorkspaceError(
                    f"{folder}: {reason}. Restore the folder; or move this away (`{aside}`), or choose another folder with "
                    "--workspace."
                )
        if root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
            raise WorkspaceError(
                f"{root}: is not empty and not a workspace. Choose an empty or new folder with --workspace."
            )

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether a folder is a workspace, or was one and has lost the file that says so: it holds records or members."""
        folders = [path for path in root.glob("*") if FOLDER.fullmatch(path.name)]
        marks = [root / MARK, *(folder / name for folder in folders for name in (RECORD, ENSEMBLE))]
        cards = (card for folder in folders for card in folder.glob(f"*/{CARD}"))
        return any(map(os.path.lexists, marks)) or any(True for _ in cards)

    def _about(self) -> dict[str, Any]:
        repair = orch("workspace", "repair", workspace=self.root)
        way_out = f"run `{repair}`, which rewrites it."
        value = read_sealed(self.root / MARK, KIND, NAME, WORKSPACE_FORMAT, way_out)
        try:
            check_types(_Mark(value["created"], value["retired"]))
        except (KeyError, TypeError) as error:
            raise damaged_error(self.root / MARK, f"not the file of a workspace ({error})", way_out) from None
        return value

    def _check_folders(self) -> None:
        """Refuses a file, or a link that leads nowhere, where a folder belongs: what lay there would count as missing."""
        for error in self.blocked_folders(RECORDS):
            raise error

    def blocked_folders(self, names: Sequence[str] = REBUILT) -> list[DamagedError]:
        """One error for each folder in whose place there is a file, or a link that leads nowhere."""
        reasons = {self.root / name: why_no_folder(self.root / name) for name in names}
        return [
            DamagedError(path, reason, f"Restore it; or move it away (`{set_aside_command(path)}`), and try again.")
            for path, reason in reasons.items()
            if reason
        ]

    @property
    def store(self) -> Path:
        """The folder of pixel stores."""
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """The folder of caches, which may be deleted while nothing trains."""
        return self.root / "cache"

    @property
    def faces(self) -> Path:
        """Where the boxes of faces are kept."""
        return self.cache / "faces"

    @property
    def engines(self) -> Path:
        """The cache of engines: exports of members, and results of checks and trials."""
        return self.cache / "engines"

    @property
    def sweeps(self) -> Path:
        """The folder of searches' memories."""
        return self.root / "sweeps"

    @property
    def deleted(self) -> Path:
        """The folder of runs that are being deleted; a killed command may leave some, which the next deletion removes."""
        return self.root / "deleted"

    def hashes(self) -> HashCache:
        """The cache of photos' content hashes, by path, size and times."""
        from orchestrator.data.hashes import HashCache

        return HashCache(self.cache / "hashes.json")

    def lock(self) -> FileLock:
        """The lock that is held while ids are assigned, runs are looked up and records are changed."""
        return workspace_lock(self.root)

    def _folders(self) -> list[tuple[str, Path]]:
        """Kind and folder of everything named like a run or an ensemble, sorted by name."""
        named = [(FOLDER.fullmatch(path.name), path) for path in sorted(self.root.iterdir())]
        return [(match[1], path) for match, path in named if match]

    def run_folders(self, task: str | None = None) -> list[Path]:
        """The folders of all runs, or of a specialist's, readable or not."""
        return [path for kind, path in self._folders() if kind in CLASSES and task in (None, kind)]

    def read_runs(self, task: str | None = None) -> tuple[list[RunRecord], list[DamagedError]]:
        """All runs that can be read, in order of their ids, and one error for each of the others."""
        runs, errors = [], []
        for folder in self.run_folders(task):
            try:
                runs.append(RunRecord.load(folder))
            except DamagedError as error:
                errors.append(error)
        return runs, errors

    def runs(self, task: str | None = None) -> list[RunRecord]:
        """All runs, or a specialist's, in order of their ids.

        Raises:
            DamagedError: some cannot be read; names all of them.
        """
        runs, errors = self.read_runs(task)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            problems = [error.problem("damaged") for error in errors]
            raise DamagedError(self.root, f"{len(errors)} runs cannot be read", problems=problems)
        return runs

    def run(self, name: str) -> RunRecord:
        """A run by its id.

        Raises:
            WorkspaceError: there is none of that name; the nearest is suggested.
            DamagedError: its record cannot be read.
        """
        # An id is the name of a folder in this workspace: a path could lead into another one.
        ids = [path.name for path in self.run_folders()]
        if name not in ids:
            names = ", ".join(ids[:FEW]) + (f" and {len(ids) - FEW} more" if len(ids) > FEW else "")
            raise WorkspaceError(
                f"run '{name}' is not in {self.root}; there {'is' if len(ids) == 1 else 'are'} {names or 'none'}."
                f"{nearest(name, ids)}"
            )
        return RunRecord.load(self.root / name)

    @contextmanager
    def new_folder(self, kind: str) -> Iterator[tuple[str, Path]]:
        """Makes the next folder `kind-NNNN`, which is named so only if the block succeeds; the caller holds the lock.

        Yields:
            The name, and the temporary folder.
        """
        for left_over in self.root.glob(f"{MAKING}*"):
            shutil.rmtree(left_over, ignore_errors=True)
        pattern = re.compile(rf"{re.escape(kind)}-(\d{{4,}})(\..+)?")  # those set aside count too
        taken = [int(match[1]) for path in self.root.iterdir() if (match := pattern.fullmatch(path.name))]
        number = max([*taken, self._about()["retired"].get(kind, 0)]) + 1
        name = f"{kind}-{number:04d}"
        temporary = self.root / f"{MAKING}{name}"
        temporary.mkdir()
        try:
            yield name, temporary
            temporary.rename(self.root / name)
        except BaseException:  # Ctrl-C too: the incomplete folder is removed, and the exception re-raised
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def newest_run(self, task: str, key: str, *, open_only: bool = False) -> RunRecord | None:
        """The newest run of a key (`RunRecord.key`), complete or not; None when there is none.

        Args:
            task: its specialist.
            key: the key.
            open_only: only runs with something left to do: unfinished, or killed before they were offered.

        Raises:
            DamagedError: some runs of the specialist cannot be read.
        """
        runs = [run for run in self.runs(task) if run.key == key]
        if open_only:
            runs = [run for run in runs if not run.complete or run.to_be_offered]
        return runs[-1] if runs else None

    def add_run(self, run: RunRecord) -> None:
        """Gives a new run its id and its folder, and writes its record; the caller holds the lock."""
        with self.new_folder(run.task) as (run.id, run.folder):
            run.save()
        run.folder = self.root / run.id

    def retire(self, name: str) -> None:
        """Ensures that an id is never used again: notes and tables may refer to it. The caller holds the lock."""
        mark, (kind, _, number) = self._about(), name.rpartition("-")
        retired: dict[str, int] = mark["retired"]
        write_mark(self.root, mark["created"], {**retired, kind: max(retired.get(kind, 0), int(number))})

    # What is current: `kind` is a task, `joint`, or `ensemble`

    def _current(self, kind: str) -> Path:
        return self.root / "current" / f"{kind}.json"

    def current(self, kind: str) -> str | None:
        """The id of a specialist's current run, or of the current ensemble; None when there is none.

        Raises:
            DamagedError: the file that says so is damaged, or names a folder that no longer exists.
        """
        path = self._current(kind)
        try:
            path.lstat()
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise unreadable_error(path, error) from None
        try:
            name = read_sealed(path, "current", kind, CURRENT_FORMAT, "").get("name")
            if not isinstance(name, str):
                raise damaged_error(path, "names nothing", "")
        except DamagedError as error:
            if not error.replaceable:
                raise
            raise damaged_error(path, error.what, self.choose_current_advice(kind)) from None
        if not (self.root / name).is_dir():
            reason = why_no_folder(self.root / name)
            if reason and kind == "ensemble":  # as `ensemble` says of it, so that a check reports it once
                raise damaged_error(self.root / name, reason, self._without_ensemble(self.root / name))
            fault = f"names {name}, of which there is no folder in {self.root}"
            raise damaged_error(path, fault, self._repair() if reason else self.choose_current_advice(kind))
        return name

    def names_as_current(self, kind: str, name: str) -> bool:
        """Whether the file that says what is current names this, whatever lies in its place."""
        with suppress(DamagedError, OSError):
            return bool(read_sealed(self._current(kind), "current", kind, CURRENT_FORMAT, "").get("name") == name)
        return False

    def has_current(self, kind: str) -> bool:
        """Whether there is a file that says what is current, damaged or not."""
        return os.path.lexists(self._current(kind))

    def missing_choice(self, kind: str) -> str:
        """A sentence that nothing is current though something was, with the way out; empty otherwise."""
        if self.has_current(kind):
            return ""
        if kind == "ensemble":
            missing = self._current(kind)
            advice = f"no ensemble is the current one ({missing} is missing): {self.choose_current_advice(kind)}"
            return advice if self.usable_ensembles() else ""
        try:
            self.current_unless_lost(kind)
        except WorkspaceError as error:
            return error.message.removeprefix(f"{self.root}: ")
        return ""

    def _repair(self) -> str:
        """The way out for a run's folder without a record, to complete a sentence."""
        return f"run `{orch('workspace', 'repair', workspace=self.root)}`, which restores the run or sets it aside."

    def current_or_none(self, kind: str) -> str | None:
        """Like `current`, before the choice is replaced: None also if the file is damaged but may be rewritten."""
        try:
            return self.current(kind)
        except DamagedError as error:
            if not error.replaceable:
                raise
            return None

    def choose_current_advice(self, kind: str) -> str:
        """The way out if nothing is current, to complete a sentence."""
        group = "ensembles" if kind == "ensemble" else "runs"
        names = self.usable_ensembles() if kind == "ensemble" else self.usable_runs(kind)
        if not names:
            command = ("ensemble",) if kind == "ensemble" else ("train", kind, "--data", "DIR")
            return after_setting_aside(self._current(kind), f"`{orch(*command, workspace=self.root)}` makes one.")
        others = f" (there are {', '.join(names[-FEW:])})" if len(names) > 1 else ""
        return f"choose one: `{orch(group, 'use', names[-1], workspace=self.root)}`{others}."

    def usable_runs(self, task: str) -> list[str]:
        """Complete runs whose members are all there, in order of their ids."""
        runs = (run for run in self.read_runs(task)[0] if run.complete)
        return [run.id for run in runs if all(missing_file(folder) is None for folder in run.members)]

    def usable_ensembles(self) -> list[str]:
        """Ensembles that can be read and whose members are there, the newest last."""
        usable = []
        for name in self.ensembles():
            with suppress(DamagedError):  # whose way out may be to choose a usable one: none is asked for it here
                record = None if why_no_folder(self.root / name) else self.ensemble(name)
                if record and self._lost_member(record) is None:
                    usable.append((record.created, name))
        return [name for _, name in sorted(usable)]

    def set_current(self, kind: str, name: str) -> None:
        """Makes a run or an ensemble the current one.

        Raises:
            DamagedError: a newer version wrote the file that says which is current.
        """
        path = self._current(kind)
        self.current_or_none(kind)  # refuses to write over a newer version's file
        if path.is_dir() or (path.is_symlink() and not path.exists()):
            set_aside(path)
        write_sealed(path, "current", kind, CURRENT_FORMAT, {"name": name, "since": now()})

    def clear_current(self, kind: str) -> None:
        """Leaves a specialist without a current run, or the workspace without a current ensemble."""
        self._current(kind).unlink(missing_ok=True)

    def current_unless_lost(self, task: str) -> str | None:
        """The id of a specialist's current run; None while none has ever been offered as one.

        Raises:
            WorkspaceError: none is current though complete runs were offered: the choice was deleted, or is lost.
            DamagedError: the file that says which is current is damaged.
        """
        name = self.current(task)
        if name is None:
            offered = {run.id for run in self.read_runs(task)[0] if run.was_offered}
            if offered & set(self.usable_runs(task)):
                raise self._none_current(task)
        return name

    def _none_current(self, task: str) -> WorkspaceError:
        missing, advice = self._current(task), self.choose_current_advice(task)
        return WorkspaceError(f"{self.root}: no {task} run is the current one ({missing} is missing): {advice}")

    def current_run(self, task: str) -> RunRecord:
        """A specialist's current run.

        Raises:
            WorkspaceError: it has none.
            DamagedError: the file that says which is current, or the run's record, is damaged.
        """
        name = self.current(task)
        if name is not None:
            return RunRecord.load(self.root / name)
        if self.usable_runs(task):
            raise self._none_current(task)
        unfinished = self.runs(task)
        last = f" {unfinished[-1].id} is unfinished: {unfinished[-1].way_to_complete}" if unfinished else ""
        train_all = orch("train-all", "--data", "DIR", workspace=self.root)
        train = orch("train", task, "--data", "DIR", workspace=self.root)
        raise WorkspaceError(
            f"{self.root}: the {task} specialist has no complete run.{last} `{train_all}` or `{train}` trains one."
        )

    # Ensembles

    def ensembles(self) -> list[str]:
        """The ids of all ensembles, readable or not."""
        return [
            path.name
            for kind, path in self._folders()
            if kind in ENSEMBLE_KINDS or (kind not in CLASSES and os.path.lexists(path / ENSEMBLE))
        ]

    def ensemble_folder(self, name: str) -> Path:
        """The folder of an ensemble, readable or not.

        Raises:
            WorkspaceError: there is none of that name; the nearest is suggested.
        """
        ids = self.ensembles()
        if name not in ids:
            raise WorkspaceError(
                f"ensemble '{name}' is not in {self.root}; there {'is' if len(ids) == 1 else 'are'} "
                f"{', '.join(ids) or 'none'}.{nearest(name, ids)}"
            )
        return self.root / name

    def ensemble(self, name: str | None = None) -> EnsembleRecord:
        """An ensemble's record; the current one's without a name.

        Raises:
            WorkspaceError: there is none.
            DamagedError: its record, or the file that says which is current, is damaged.
        """
        is_named, name = bool(name), name or self.current("ensemble")
        if name is None:
            make = orch("ensemble", "--strategy", "soft", workspace=self.root)
            if self.ensembles():
                path = self._current("ensemble")
                raise WorkspaceError(
                    f"{self.root}: no ensemble is the current one ({path} is missing): {self.choose_current_advice('ensemble')}"
                )
            raise WorkspaceError(f"{self.root}: there is no ensemble yet. `{make}` makes one.")
        folder = self.ensemble_folder(name) if is_named else self.root / name
        if reason := why_no_folder(folder):
            raise damaged_error(folder, reason, self._without_ensemble(folder))
        tables = [aside_path(folder) / path.name for path in sorted(folder.glob("external-*.parquet"))]
        options = [word for path in tables for word in ("--with", display_path(path))]
        kind = name.partition("-")[0]
        strategy = ("--strategy", kind) if kind in VOTES else ()  # others say no more than that tasks vote differently
        make = orch("ensemble", *strategy, *options, workspace=self.root)
        and_tables = " and the tables of this one" if tables else ""
        way_out = after_setting_aside(folder, f"run `{make}`, which makes one of the current runs{and_tables}.")
        return EnsembleRecord.load(folder, way_out)

    def _without_ensemble(self, folder: Path) -> str:
        """The way out where a link or a file stands for an ensemble's folder, to complete a sentence."""
        return after_setting_aside(folder, self.choose_current_advice("ensemble"))

    def check_members(self, ensemble: EnsembleRecord, weights: bool = False, choices_are_told: bool = False) -> None:
        """Checks that the members that an ensemble uses are there, and by their runs' records are still the same.

        Args:
            ensemble: its record.
            weights: whether the members' weights must be there too; whoever loads them names all that are not.
            choices_are_told: the caller reports lost choices itself, each with its way out: a command that can be
                given once is not named twice.

        Raises:
            DamagedError: one of them is not; names the first.
        """
        member = self._lost_member(ensemble, weights)
        if member is None:
            return
        folder, run = self.root / member.folder, self.root / member.run
        missing = missing_file(folder, weights)
        if missing is None:
            fault = f"not the card of the member that {ensemble.id} was built from: {member.run} was trained anew"
            way_out = self._without_run(ensemble.id, choices_are_told)
        else:
            fault = f"missing, and {ensemble.id} answers with that member"
            if not os.path.lexists(run):
                way_out = self._without_run(ensemble.id, choices_are_told)
            else:
                way_out = retrain_advice(folder) if self._is_run(run) else self._repair()
        raise damaged_error(missing or folder / CARD, fault, way_out)

    def _lost_member(self, ensemble: EnsembleRecord, weights: bool = True) -> EnsembleMember | None:
        """The first member of an ensemble that is missing, or that its run has no more: its id was given to another."""
        on_record: dict[str, str] = {}
        for run in ensemble.run_ids:
            with suppress(DamagedError):  # reported where the run is
                files = RunRecord.load(self.root / run).files
                on_record |= {f"{run}/{member}": sha256[WEIGHTS] for member, sha256 in files.items()}
        for member in ensemble.members:
            same = on_record.get(member.folder, member.sha256) == member.sha256
            if not same or missing_file(self.root / member.folder, weights):
                return member
        return None

    def _is_run(self, folder: Path) -> bool:
        """Whether a folder holds its own run's record; `orch resume` refuses others."""
        try:
            return bool(RunRecord.load(folder))
        except DamagedError:
            return False

    def _without_run(self, ensemble: str, choices_are_told: bool) -> str:
        """The way out for an ensemble of which a run is lost or trained anew, to complete a sentence."""
        delete = orch("ensembles", "delete", ensemble, "--yes", workspace=self.root)
        current = self.current_or_none("ensemble")
        if current != ensemble and current in self.usable_ensembles():  # another was made already, or chosen
            return f"delete this ensemble: `{delete}`."
        again = f"`{orch('ensemble', workspace=self.root)}` makes another ensemble, and `{delete}` deletes this one."
        steps = list(filter(None, (self._step_to_choose(task, choices_are_told) for task in TASKS)))
        if not steps:
            return f"make another ensemble of runs that are there: {again}"
        return f"{'; then '.join(steps)}; then {again}"

    def _step_to_choose(self, task: str, choices_are_told: bool) -> str:
        """What gives a specialist a current run that is whole, as a clause; empty if it has one."""
        chosen, usable = self.current_or_none(task), self.usable_runs(task)
        if chosen in usable:
            return ""
        if chosen is not None:
            return f"complete {chosen}: `{orch('resume', chosen, workspace=self.root)}`"
        if choices_are_told and self.has_current(task):
            return f"once {display_path(self._current(task))} names another run, as is said of it"
        if usable or self.has_current(task):
            return self.choose_current_advice(task).removesuffix(".")
        return f"train another run: `{orch('train', task, '--data', 'DIR', workspace=self.root)}`"


def now() -> str:
    """Local time to the second, ISO 8601 with its offset."""
    return datetime.now().astimezone().isoformat(timespec="seconds")

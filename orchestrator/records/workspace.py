"""The workspace: one folder (`runs/` by default) with fold plans, runs, ensembles and caches.

workspace.json          the format, so that a newer workspace is refused and not misread
plans/<digest>.json     fold plans
age-0001/ ...           runs
current/age.json ...    which run is current for each specialist, and which ensemble
soft-0001/ ...          ensembles
sweeps/                 memories of searches
deleted.json            ids of deleted runs, never given out again
deleted/                runs on their way out
store/                  decoded pixels       } caches: deleting
cache/                  hashes, weights      } them loses nothing
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from orchestrator.data.files import check_format, read_json, write_json
from orchestrator.data.folds import FoldPlan
from orchestrator.data.photos import HashCache
from orchestrator.errors import LeakError, WorkspaceError, nearest
from orchestrator.records.run import COMPLETE, RECORD, RunRecord

__all__ = ["ENSEMBLE", "ENSEMBLE_FORMAT", "Workspace", "now"]

WORKSPACE_FORMAT = 1
ENSEMBLE_FORMAT = 1
FEW = 12  # ids that an error lists
MARK = "workspace.json"
ENSEMBLE = "ensemble.json"
RETIRED = "deleted.json"


class Workspace:
    """A workspace folder, opened.

    Args:
        root: the folder.
        create: make it when it is not there.

    Raises:
        WorkspaceError: it is not there, is something else, or was written by a newer version.
    """

    def __init__(self, root: Path, create: bool = False) -> None:
        self.root = root
        mark = root / MARK
        if mark.exists():
            check_format(mark, read_json(mark), WORKSPACE_FORMAT)
        elif not create:
            raise WorkspaceError(
                f"{root}: no workspace here. `orch train-all --data DIR` makes one; --workspace names another folder."
            )
        elif root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
            raise WorkspaceError(
                f"{root}: is not empty and no workspace. Choose an empty or new folder with --workspace."
            )
        else:
            root.mkdir(parents=True, exist_ok=True)
            write_json(mark, {"format": WORKSPACE_FORMAT, "created": now()})

    @property
    def store(self) -> Path:
        """The folder of pixel stores."""
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """The folder of caches."""
        return self.root / "cache"

    @property
    def faces(self) -> Path:
        """Where the boxes of faces are kept."""
        return self.cache / "faces"

    @property
    def sweeps(self) -> Path:
        """The folder of searches' memories."""
        return self.root / "sweeps"

    @property
    def deleted(self) -> Path:
        """The folder of runs that are being deleted; a killed command may leave some, which the next deletion takes along."""
        return self.root / "deleted"

    def hashes(self) -> HashCache:
        """The photos' content hashes."""
        return HashCache(self.cache / "hashes.json")

    def lock(self) -> FileLock:
        """Held while ids are given out and runs are looked up."""
        return FileLock(self.root / "workspace.lock")

    @staticmethod
    def is_at(root: Path) -> bool:
        """Whether a folder is a workspace."""
        return (root / MARK).exists()

    def keep_plan(self, plan: FoldPlan) -> FoldPlan:
        """Saves a plan, or finds it saved.

        Raises:
            PlanError: the saved one was edited or damaged.
        """
        path = self.root / "plans" / f"{plan.digest[:12]}.json"
        if not path.exists():
            plan.save(path)
        return FoldPlan.load(path)

    def keep_content(self, fingerprint: str, content: Sequence[str]) -> None:
        """Remembers the files' hashes of photos that runs are about to learn from, by the fingerprint that runs record."""
        path = self._content(fingerprint)
        if not path.exists():
            write_json(path, list(content))

    def trained_content(self) -> set[str]:
        """The hashes of every file that a run of this workspace has learnt from, photos from elsewhere among them.

        Raises:
            LeakError: a run is of an older version, which did not write them down.
        """
        found: set[str] = set()
        for run in self.runs():
            for fingerprint in (run.data["fingerprint"], run.extra):
                if fingerprint is None:
                    continue
                if not self._content(fingerprint).exists():
                    raise LeakError(
                        f"{run.id}: which photos it was trained on cannot be told, for {self._content(fingerprint)} is gone or "
                        "was never written. Run its training command again: it finds the run complete, and writes them down."
                    )
                found.update(read_json(self._content(fingerprint)))
        return found

    def _content(self, fingerprint: str) -> Path:
        return self.root / "photos" / f"{fingerprint[:12]}.json"

    def load_plan(self, digest: str) -> FoldPlan:
        """A saved plan by its digest."""
        return FoldPlan.load(self.root / "plans" / f"{digest[:12]}.json")

    def runs(self) -> list[RunRecord]:
        """All runs, in order of their ids."""
        return [RunRecord.load(path.parent) for path in sorted(self.root.glob(f"*-*/{RECORD}"))]

    def run(self, name: str) -> RunRecord:
        """A run by its id.

        Raises:
            WorkspaceError: there is none of that name; the nearest is suggested.
        """
        # An id is the name of a folder right here: a path would lead into another workspace.
        if Path(name).name != name or not (self.root / name / RECORD).is_file():
            known = [run.id for run in self.runs()]
            told = ", ".join(known[:FEW]) + (f" and {len(known) - FEW} more" if len(known) > FEW else "")
            raise WorkspaceError(
                f"run '{name}' is not in {self.root}; there {'is' if len(known) == 1 else 'are'} {told or 'none'}."
                f"{nearest(name, known)}"
            )
        return RunRecord.load(self.root / name)

    def new_folder(self, kind: str) -> Path:
        """Makes the next free folder `kind-NNNN`. The caller holds the workspace's lock until something is in it."""
        pattern = re.compile(rf"{re.escape(kind)}-(\d{{4,}})")
        names = [*(path.name for path in self.root.iterdir()), *self._retired()]
        taken = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
        number = max(taken, default=0) + 1
        last = self.root / f"{kind}-{number - 1:04d}"
        if last.is_dir() and not any(last.iterdir()):
            return last  # of a command that was killed right here; the caller holds the lock
        while True:
            folder = self.root / f"{kind}-{number:04d}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder

    def current(self, what: str) -> str | None:
        """The id of a specialist's current run, or of the current ensemble; None when there is none."""
        path = self.root / "current" / f"{what}.json"
        return str(read_json(path)["id"]) if path.exists() else None

    def set_current(self, what: str, name: str) -> None:
        """Makes a run or an ensemble the current one."""
        write_json(self.root / "current" / f"{what}.json", {"id": name, "since": now()})

    def clear_current(self, what: str) -> None:
        """Leaves a specialist without a current run, or the workspace without a current ensemble."""
        (self.root / "current" / f"{what}.json").unlink(missing_ok=True)

    def retire(self, name: str) -> None:
        """Never gives an id out again: notes and tables elsewhere may speak of it."""
        write_json(self.root / RETIRED, sorted({*self._retired(), name}))

    def _retired(self) -> list[str]:
        path = self.root / RETIRED
        return list(read_json(path)) if path.exists() else []

    def current_run(self, task: str) -> RunRecord:
        """A specialist's current run.

        Raises:
            WorkspaceError: it has none.
        """
        name = self.current(task)
        if name is None:
            unfinished = [run.id for run in self.runs() if run.task == task and run.status != COMPLETE]
            hint = (
                f" ({unfinished[-1]} is unfinished: run its training command again to complete it)"
                if unfinished
                else ""
            )
            raise WorkspaceError(
                f"{self.root}: the {task} specialist has no complete run{hint}. `orch train-all --data DIR` or "
                f"`orch train {task} --data DIR` trains it."
            )
        return self.run(name)

    def ensembles(self) -> list[str]:
        """The ids of all ensembles."""
        return [path.parent.name for path in sorted(self.root.glob(f"*-*/{ENSEMBLE}"))]

    def ensemble(self, name: str | None = None) -> tuple[Path, Mapping[str, Any]]:
        """An ensemble's folder and record; the current one without a name.

        Raises:
            WorkspaceError: there is none.
        """
        name = name or self.current("ensemble")
        known = self.ensembles()
        if name is None:
            raise WorkspaceError(f"{self.root}: there is no ensemble yet. `orch ensemble --strategy soft` makes one.")
        if name not in known:
            raise WorkspaceError(
                f"ensemble '{name}' is not in {self.root}; there {'is' if len(known) == 1 else 'are'} "
                f"{', '.join(known) or 'none'}.{nearest(name, known)}"
            )
        record = read_json(self.root / name / ENSEMBLE)
        check_format(self.root / name / ENSEMBLE, record, ENSEMBLE_FORMAT)
        return self.root / name, record


def now() -> str:
    """Local time to the second, ISO 8601 with its offset."""
    return datetime.now().astimezone().isoformat(timespec="seconds")

"""A run: one training of one specialist by one recipe over the folds of one plan; immutable once complete.

    runs/age-0001/
        run.json       the record; its status says `complete` once every member has its card
        fold-0/ ...    one folder per member (`all/` when trained on everything)

A run's key is a digest of everything that its result depends on. The same key continues an unfinished run; anything
else is another run, so settings, data or plans never mix. It is computed from the record whenever it is asked for, so a run
of an older version is held against today's settings with those that it did not know at their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.data.files import check_format, digest_of, read_json, write_json
from orchestrator.errors import WorkspaceError
from orchestrator.recipe import Recipe

__all__ = ["COMPLETE", "RECORD", "RUN_LOCK", "UNFINISHED", "RunRecord", "member_folder", "run_key"]

RUN_FORMAT = 1
RECORD = "run.json"
RUN_LOCK = "run.lock"
"""Held in a run's folder by whoever works on it."""
COMPLETE = "complete"
UNFINISHED = "unfinished"


def member_folder(fold: int | None) -> str:
    """The name of a member's folder in its run."""
    return "all" if fold is None else f"fold-{fold}"


@dataclass
class RunRecord:
    """What `run.json` holds.

    Attributes:
        folder: the run's folder; not in the file.
        id: the run's name, `age-0001`.
        task: its specialist.
        status: `unfinished` or `complete`.
        created: local time, ISO 8601.
        recipe_name: as it was asked for.
        changes: the `--set` words on top of it.
        recipe: every number of it.
        seed: of the training.
        folds: folds trained in this run or taken from its parent; [None] for a run without a plan.
        plan: k, seed and digest of the fold plan; None without one.
        data: source, layout, fingerprint, numbers of photos and people; of photos from elsewhere likewise, as `extra`.
        initial_weights: source and sha256.
        threads: CPU threads of each member's training.
        device: `cpu` or `cuda`.
        environment: versions, hardware, git revision.
        parent: the run that members not in `retrained` were taken from.
        retrained: folds trained anew, when there is a parent.
        seconds: wall-clock seconds of the commands that worked on it.
        published: whether it was offered as its specialist's current run, the last step of training. Runs of an experiment
            count as offered from the start.
        score: out-of-fold macro F1, written when it is complete; None before, and where nobody is held out.
    """

    folder: Path
    id: str
    task: str
    status: str
    created: str
    recipe_name: str
    changes: list[str]
    recipe: dict[str, Any]
    seed: int
    folds: list[int | None]
    plan: dict[str, Any] | None
    data: dict[str, Any]
    initial_weights: dict[str, str]
    threads: int
    device: str
    environment: dict[str, Any]
    parent: str | None = None
    retrained: list[int] = field(default_factory=list)
    seconds: float = 0.0
    published: bool = False
    score: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every member is there."""
        return self.status == COMPLETE

    @property
    def own_folds(self) -> list[int | None]:
        """The folds that this run trains itself."""
        return list(self.retrained) if self.parent else list(self.folds)

    @property
    def covers(self) -> str:
        """Which people the run's out-of-fold probabilities cover, in words."""
        if self.plan is None:
            return "nobody: trained on everything"
        if len(self.folds) == self.plan["k"]:
            return "everybody"
        return f"people of fold {', '.join(map(str, self.folds))} of {self.plan['k']}"

    @property
    def extra(self) -> str | None:
        """Fingerprint of the photos from elsewhere that it learnt from; None without any."""
        fingerprint: str | None = self.data.get("extra", {}).get("fingerprint")
        return fingerprint

    @property
    def key(self) -> str:
        """Digest of all that the result depends on; empty when the recipe has settings that this version does not know."""
        try:
            recipe = Recipe.model_validate(self.recipe)
        except ValidationError:
            return ""
        digest = self.plan["digest"] if self.plan else None
        weights, data = self.initial_weights["sha256"], self.data["fingerprint"]
        return run_key(
            self.task, recipe, weights, data, digest, self.own_folds, self.seed, self.device, self.parent, self.extra
        )

    def member(self, fold: int | None) -> Path:
        """The folder of a member."""
        return self.folder / member_folder(fold)

    @property
    def members(self) -> list[Path]:
        """The folders of all members."""
        return [self.member(fold) for fold in self.folds]

    def save(self) -> None:
        """Writes the record atomically."""
        value = asdict(self)
        del value["folder"]
        write_json(self.folder / RECORD, {"format": RUN_FORMAT, **value})

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Reads a record.

        Raises:
            WorkspaceError: missing, damaged, or written by a newer version.
        """
        value = read_json(folder / RECORD)
        check_format(folder / RECORD, value, RUN_FORMAT)
        value.pop("format")
        value.pop("key", None)  # kept on disk by early workspaces
        try:
            return cls(folder=folder, **value)
        except TypeError as error:
            raise WorkspaceError(f"{folder / RECORD}: not the record of a run ({error}).") from None


def run_key(
    task: str,
    recipe: Recipe,
    weights: str,
    data: str,
    plan: str | None,
    folds: Sequence[int | None],
    seed: int,
    device: str,
    parent: str | None,
    extra: str | None,
) -> str:
    """The key of a run from all that its result depends on.

    Args:
        task: its specialist.
        recipe: how it is trained.
        weights: sha256 of what its members start from.
        data: fingerprint of photos and labels.
        plan: digest of the fold plan; None without one.
        folds: that the run trains itself.
        seed: of the training.
        device: `cpu`, `cuda` or `cuda:N`; all GPUs count as one.
        parent: the run that other members are shared with.
        extra: fingerprint of photos from elsewhere that join training; None without any.
    """
    return digest_of(
        {
            "task": task, "recipe": recipe.digest(), "weights": weights, "data": data, "plan": plan, "folds": list(folds),
            "seed": seed, "device": device.partition(":")[0], "parent": parent,
            "extra": extra,
        }
    )  # fmt: skip

"""A run: one training of one specialist by one recipe over the folds of one plan; immutable once complete.

    runs/age-0001/
        run.json       the record; its status says `complete` once every member has its card
        fold-0/ ...    one folder per member (`all/` when trained on everything)

A run's key is a digest of everything that its result depends on. The same key continues an unfinished run; anything
else is another run, so settings, data or plans never mix. It is computed from the record each time, so settings
that the version that trained a run did not have count as their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from orchestrator.artifacts.ingredients import Ingredients
from orchestrator.artifacts.locks import check_not_deleted, workspace_lock
from orchestrator.artifacts.provenance import Environment, TrainingData, WeightsSource
from orchestrator.core.commands import orch
from orchestrator.core.errors import DamagedError, WorkspaceError
from orchestrator.core.files import why_no_folder
from orchestrator.core.sealed import damaged_error, read_sealed, write_sealed
from orchestrator.core.typed import check_types

if TYPE_CHECKING:
    from orchestrator.recipes.schema import Recipe

__all__ = [
    "COMPLETE",
    "RECORD",
    "RUN_FORMAT",
    "TRACKING",
    "UNFINISHED",
    "PlanKey",
    "RunRecord",
    "member_folder",
]

RUN_FORMAT = 6
KIND = "run"
RECORD, TRACKING = "run.json", "tracking.json"
COMPLETE: Final = "complete"
UNFINISHED: Final = "unfinished"


def member_folder(fold: int | None) -> str:
    """The name of a member's folder in its run."""
    return "all" if fold is None else f"fold-{fold}"


@dataclass(frozen=True)
class PlanKey:
    """Which fold plan a run follows.

    Attributes:
        digest: the plan's digest.
        k: number of folds.
        seed: the plan's seed.
    """

    digest: str
    k: int
    seed: int


@dataclass
class RunRecord:
    """What `run.json` holds. Once it is written, only `update` changes it.

    Attributes:
        folder: the run's folder; not in the file.
        id: the run's name, `age-0001`.
        task: its specialist.
        status: `unfinished` or `complete`.
        created: local time, ISO 8601.
        recipe_name: name of the recipe, or the absolute path of its file.
        changes: arguments of `--set` applied to it.
        recipe: all settings of the recipe.
        chosen: keys of the settings that were not at their defaults when the run was made, as `lr` and `augment.flip`.
        seed: seed of the training.
        folds: folds trained in this run or taken from its parent; [None] for a run without a plan.
        plan: the fold plan; None without one.
        data: what it was trained from.
        initial_weights: where its initial weights came from.
        threads: CPU threads of each member's training.
        device: `cpu` or `cuda`.
        environment: versions, machine and code.
        parent: the run that members not in `retrained` were taken from.
        retrained: folds retrained, when there is a parent.
        seconds: training seconds of its own members, summed; shared members are not counted.
        make_current: `auto`: the last step of training offers it as its specialist's current run; `never`: it does not, as for
            the runs of an experiment.
        was_offered: whether it has been offered, or a user has made it current; a later loss of the choice is then noticed.
        score: out-of-fold macro F1, written when it is complete; None before, and where nobody is held out.
        files: folder of a member -> file -> sha256; shared members from the start, the others once the run is complete.
        shared_seeds: fold -> the seed of a shared member, where it is not this run's.
    """

    folder: Path
    id: str
    task: str
    status: Literal["unfinished", "complete"]
    created: str
    recipe_name: str
    changes: list[str]
    recipe: dict[str, Any]
    chosen: list[str]
    seed: int
    folds: list[int | None]
    plan: PlanKey | None
    data: TrainingData
    initial_weights: WeightsSource
    threads: int
    device: str
    environment: Environment
    parent: str | None = None
    retrained: list[int] = field(default_factory=list)
    seconds: float = 0.0
    make_current: Literal["auto", "never"] = "auto"
    was_offered: bool = False
    score: float | None = None
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    shared_seeds: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder of its workspace."""
        return self.folder.parent

    @property
    def complete(self) -> bool:
        """Whether every member is there."""
        return self.status == COMPLETE

    @property
    def recipe_title(self) -> str:
        """The recipe's name; of a file, the file's."""
        return Path(self.recipe_name).name

    def setting(self, key: str) -> Any:
        """A setting of its recipe, as a JSON value.

        Args:
            key: the setting's name, as `lr` or `augment.flip`.

        Raises:
            KeyError: the version of orch that recorded it had no such setting.
        """
        table, _, name = key.rpartition(".")
        return self.recipe[table][name] if table else self.recipe[key]

    @property
    def backbone(self) -> str:
        """The backbone that the run's recipe names."""
        return str(self.setting("backbone"))

    @property
    def weights(self) -> str:
        """Its recipe's initial weights: `hub`, `packaged`, `none`, or a file."""
        return str(self.setting("weights"))

    @property
    def views(self) -> list[str]:
        """The views that its members answer for."""
        return list(self.setting("views"))

    @property
    def trains_heads_alone(self) -> bool:
        """Whether its members are heads on features of a frozen backbone."""
        return bool(self.setting("train") == "head")

    @property
    def to_be_offered(self) -> bool:
        """Whether training has yet to offer it as the current run."""
        return self.make_current == "auto" and not self.was_offered

    @property
    def data_read(self) -> datetime:
        """When its data was read, to tell which of several runs has seen the newest."""
        return datetime.fromisoformat(self.data.read)

    @property
    def own_folds(self) -> list[int | None]:
        """The folds that this run trains itself."""
        return list(self.retrained) if self.parent else list(self.folds)

    def seed_of(self, fold: int | None) -> int:
        """The seed that a member was trained with: a shared one has that of the run that trained it."""
        return self.shared_seeds.get(member_folder(fold), self.seed)

    @property
    def seeds(self) -> list[int]:
        """The seeds of its members, sorted."""
        return sorted({self.seed_of(fold) for fold in self.folds})

    @property
    def derived(self) -> bool:
        """Whether it was made from another run without training: the same weights, with views."""
        return self.parent is not None and not self.retrained

    @property
    def way_to_complete(self) -> str:
        """The command that completes it, as the end of a sentence."""
        if self.derived:
            views = ["--views", ",".join(self.views), "--keep"]
            return f"`{orch('tta', self.parent or '', *views, workspace=self.root)}` makes it again."
        return f"`{orch('resume', self.id, workspace=self.root)}` completes it."

    @property
    def plan_digest(self) -> str | None:
        """Digest of its fold plan; None without one."""
        return None if self.plan is None else self.plan.digest

    @property
    def partial(self) -> bool:
        """Whether it covers only some folds of its plan."""
        return self.plan is not None and len(self.folds) < self.plan.k

    @property
    def covers(self) -> str:
        """Which people the run's out-of-fold probabilities cover, in words."""
        if self.plan is None:
            return "nobody: trained on everything"
        if len(self.folds) == self.plan.k:
            return "everybody"
        return f"people of fold {', '.join(map(str, self.folds))} of {self.plan.k}"

    @property
    def extra(self) -> str | None:
        """Fingerprint of the extra photos that it was trained on; None without any."""
        return None if self.data.extra is None else self.data.extra.fingerprint

    @property
    def ingredients(self) -> Ingredients | None:
        """What it was made from; None when the recipe has settings that this version does not know."""
        try:
            recipe = self.checked_recipe().digest()
        except WorkspaceError:
            return None
        return Ingredients(
            self.task, recipe, self.initial_weights.sha256, self.data.fingerprint, self.plan_digest, self.extra
        )

    @property
    def key(self) -> str:
        """Digest of all that the result depends on; empty when the recipe has settings that this version does not know."""
        made_from = self.ingredients
        return "" if made_from is None else made_from.run_key(self.own_folds, self.seed, self.device, self.parent)

    def identity(self, fold: int | None) -> str:
        """The identity of a member that was trained as this record says: the id of its card; empty as for `key`."""
        made_from = self.ingredients
        return "" if made_from is None else made_from.member_id(fold, self.seed_of(fold))

    def checked_recipe(self) -> Recipe:
        """The recipe that the run was trained by, as a checked value.

        Raises:
            WorkspaceError: another version of orch recorded it, with settings that this one does not know.
        """
        from pydantic import ValidationError

        from orchestrator.recipes.schema import Recipe

        try:
            return Recipe.model_validate(self.recipe)
        except ValidationError as error:
            keys = ", ".join(dict.fromkeys(".".join(map(str, detail["loc"])) for detail in error.errors()))
            raise WorkspaceError(
                f"{self.id}: another version of orch recorded its recipe, with settings that this one does not take: {keys}. "
                "Name another recipe (--recipe NAME), or use the version that trained it."
            ) from None

    def member(self, fold: int | None) -> Path:
        """The folder of a member."""
        return self.folder / member_folder(fold)

    @property
    def members(self) -> list[Path]:
        """The folders of all members."""
        return [self.member(fold) for fold in self.folds]

    def as_json(self) -> dict[str, Any]:
        """The record without its folder and id, as JSON values."""
        value = asdict(self)
        del value["folder"], value["id"]
        return value

    def save(self) -> None:
        """Writes a new or repaired record, atomically; `update` changes one that is there."""
        write_sealed(self.folder / RECORD, KIND, self.id, RUN_FORMAT, self.as_json())

    def update(self, **changes: Any) -> None:
        """Changes values of the record, here and on the disk; other values that have changed there meanwhile are taken over.

        Raises:
            WorkspaceError: the run was deleted.
            DamagedError: the record was damaged, and may not be replaced.
        """
        with workspace_lock(self.root):
            check_not_deleted(self.folder)
            try:
                present = RunRecord.load(self.folder)
            except DamagedError as error:
                if not error.replaceable:
                    raise
                present = self
            present = replace(present, **changes)
            for field in fields(self):
                setattr(self, field.name, getattr(present, field.name))
            self.save()

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Reads a run's record from its folder.

        Raises:
            DamagedError: the record is missing, damaged, another run's, or of another format.
        """
        repair = orch("workspace", "repair", workspace=folder.parent)
        way_out = (
            f"run `{repair}`, which rewrites it from the members' cards, or sets the run aside where none is its own."
        )
        if reason := why_no_folder(folder):
            raise damaged_error(folder, reason, f"run `{repair}`, which sets it aside.")
        return cls.of(folder, read_sealed(folder / RECORD, KIND, folder.name, RUN_FORMAT, way_out), way_out)

    @classmethod
    def of(cls, folder: Path, value: Mapping[str, Any], way_out: str) -> RunRecord:
        """A record from JSON values.

        Args:
            folder: the run's folder.
            value: what the file holds.
            way_out: what to do if it is damaged, to complete a sentence.

        Raises:
            DamagedError: the values are not those of a run.
        """
        try:
            plan = None if value["plan"] is None else PlanKey(**value["plan"])
            typed = {
                "plan": plan, "data": TrainingData.from_dict(value["data"]),
                "initial_weights": WeightsSource(**value["initial_weights"]),
                "environment": Environment.from_dict(value["environment"]),
            }  # fmt: skip
            record = cls(folder=folder, id=folder.name, **{**value, **typed})
            check_types(record)
            for key in ("backbone", "weights", "views", "train", *record.chosen):
                record.setting(key)
            return record
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged_error(folder / RECORD, f"not the record of a run ({error})", way_out) from None

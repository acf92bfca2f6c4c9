"""What a user asks for, and its checks that need no heavy imports."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.arguments import MOST_SEED, check_folds, check_range, checked_arguments
from orchestrator.core.device_names import check_device
from orchestrator.core.errors import ConfigError, DataError, Mistakes
from orchestrator.core.extras import require
from orchestrator.core.labels import CLASSES
from orchestrator.core.typed import declared_types
from orchestrator.data.readers import check_source
from orchestrator.data.sharing import check_jobs
from orchestrator.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.execution.executor import Executor
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialist import Specialist
    from orchestrator.training.cancelling import Cancel

__all__ = [
    "DEFAULT_FOLDS",
    "Settings",
    "add_mistakes",
    "base_recipe",
    "changes_of",
    "check_early",
    "check_face",
    "check_tables",
    "recipes_of",
]

DEFAULT_FOLDS = 5
"""Folds of a plan that nobody chose."""


@dataclass(frozen=True)
class Settings:
    """What a user asks for. Paths may be given as strings, and recipes as paths.

    Attributes:
        data: a folder in the contest's layout, or a manifest.
        workspace: folder of the workspace.
        columns: our name -> the manifest's name.
        recipes: `NAME`, `FILE.toml`, `TASK=NAME` or `TASK=FILE.toml`; empty: as in the run that training starts from, or the
            default recipe.
        changes: `KEY=VALUE` or `TASK.KEY=VALUE`.
        folds: folds of the plan; 0: one member trained on everything, without a score; None: as in the run that training starts
            from or the current runs, or 5.
        folds_used: number of the plan's first folds to train, 1 for a single split; 0: all.
        seed: seed of the training.
        plan_seed: seed of the fold plan; None: as in the run that training starts from or the current runs, or 0.
        new_plan: whether to draw a fold plan though the workspace has one for people of the data.
        follow: id of the run whose fold plan is followed; None: the newest that knows people of the data.
        jobs: members trained at once; 0: automatic.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: whether to decode each photo once, into the workspace's pixel store.
        profile: whether to record the time of each stage in the members' histories.
        extra: tables of extra photos, which are trained on and never scored.
        distinct_people: whether names that differ only in spelling are different people.
        executor: where members are trained; None: on this machine, `jobs` at once.
        cancel: stop requests, checked once per batch while members are trained.

    Raises:
        ConfigError: values of wrong types, all of them at once. The range of numbers is checked later.
    """

    data: Path
    workspace: Path = Path("runs")
    _: KW_ONLY
    columns: Mapping[str, str] = field(default_factory=dict)
    recipes: Sequence[str] = ()
    changes: Sequence[str] = ()
    folds: int | None = None
    folds_used: int = 0
    seed: int = 0
    plan_seed: int | None = None
    new_plan: bool = False
    follow: str | None = None
    jobs: int = 0
    device: str = "auto"
    store: bool = True
    profile: bool = False
    extra: Sequence[Path] = ()
    distinct_people: bool = False
    executor: Executor | None = None
    cancel: tuple[Cancel, ...] = ()

    def __post_init__(self) -> None:
        path = str | os.PathLike[str]
        paths = {"data": path, "workspace": path, "recipes": Sequence[path], "extra": Sequence[path]}
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        values = checked_arguments(given, {**declared_types(type(self)), **paths})  # type: ignore[arg-type]  # a class is hashable
        values |= {name: Path(values[name]) for name in ("data", "workspace")}
        values |= {"recipes": tuple(map(os.fspath, values["recipes"])), "extra": tuple(map(Path, values["extra"]))}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def or_defaults(self) -> Settings:
        """The same, where what is left out is as in no run: the settings of all specialists' training."""
        return replace(
            self, recipes=self.recipes or (DEFAULT_RECIPE,), folds=DEFAULT_FOLDS if self.folds is None else self.folds,
            plan_seed=self.plan_seed or 0,
        )  # fmt: skip

    def executor_or_default(self) -> Executor:
        """The given executor; by default this machine."""
        from orchestrator.execution.local import LocalExecutor

        return self.executor or LocalExecutor(self.jobs)


def recipes_of(
    settings: Settings, specialists: Mapping[str, Specialist], base: RunRecord | None
) -> Mapping[str, Recipe]:
    """The requested recipes; if none is named, the base run's with the changes.

    Raises:
        ConfigError: every wrong name, key and value, with the allowed ones.
    """
    from orchestrator.recipes.load import load_recipes

    recipe = base_recipe(settings, base)
    bases = {base.task: recipe} if base and recipe else None
    return load_recipes(specialists, settings.recipes, settings.changes, bases)


def base_recipe(settings: Settings, base: RunRecord | None) -> Recipe | None:
    """The base run's recipe where the settings name none for its task; None where they do, or without a base.

    Raises:
        WorkspaceError: another version of orch recorded it, with settings that this one does not know.
    """
    from orchestrator.recipes.load import choices_of

    is_named = base is not None and base.task in choices_of((base.task,), settings.recipes)[0]
    return None if base is None or is_named else base.checked_recipe()


def changes_of(settings: Settings, specialist: Specialist, base: RunRecord | None) -> list[str]:
    """The `--set` changes that affect a specialist's recipe, after those of the base run.

    Args:
        settings: what the command asks for, without mistakes.
        specialist: the specialist of the recipe.
        base: the run whose recipe is used if none is named.
    """
    from orchestrator.recipes.load import choices_of

    task, specialists = specialist.name, {specialist.name: specialist}
    recipe_name = choices_of((task,), settings.recipes)[0].get(task, "")
    recipes = (recipe_name,) if recipe_name else () if base else (DEFAULT_RECIPE,)
    changes = [change for change in settings.changes if _is_for(change, task)]
    recipe = recipes_of(replace(settings, recipes=recipes, changes=changes), specialists, base)[task]
    for change in list(changes):
        rest = [*changes]
        rest.remove(change)
        try:
            same = recipes_of(replace(settings, recipes=recipes, changes=rest), specialists, base)[task] == recipe
        except ConfigError:  # changes that are valid only together: `loss=focal` and `focal_gamma=3`
            continue
        if same:
            changes = rest
    base_changes = base.changes if base and not recipe_name else []
    by_key = {change.partition("=")[0].removeprefix(f"{task}."): change for change in (*base_changes, *changes)}
    return list(by_key.values())  # a key that is set again counts once


def _is_for(change: str, task: str) -> bool:
    """Whether a `--set` change affects a task."""
    first = change.partition("=")[0].partition(".")[0]
    return first == task or first not in CLASSES


def check_tables(tables: Sequence[Path]) -> None:
    """Rejects missing tables of extra photos.

    Raises:
        DataError: some are missing; names all of them.
    """
    missing = [str(path) for path in tables if not path.is_file()]
    if missing:
        raise DataError("\n".join(f"--extra {path}: no such file." for path in missing))


def add_mistakes(settings: Settings, mistakes: Mistakes) -> None:
    """Adds the mistakes that can be seen from the settings alone."""
    if settings.folds is not None:
        with mistakes.collect():
            check_folds(settings.folds, "or 0 to train on everything, without a score")
    for option, value, high in (
        ("--folds-used", settings.folds_used, None),
        ("--seed", settings.seed, MOST_SEED),
        ("--plan-seed", settings.plan_seed, MOST_SEED),
    ):
        with mistakes.collect():
            check_range(option, value, 0, high)
    if settings.folds_used and settings.folds == 0:
        mistakes.add(
            ConfigError(
                "--valid-only and --folds-used hold people out, and --folds 0 holds nobody out: give one of them."
            )
        )
    if settings.folds and 0 < settings.folds < settings.folds_used:
        mistakes.add(ConfigError(f"--folds-used {settings.folds_used}; the plan has {settings.folds} folds."))
    with mistakes.collect():
        check_jobs(settings.jobs)


def check_face(recipe: Recipe, otherwise: str = "crop without it (face=0)") -> None:
    """Refuses a recipe that crops around faces where the detector is not installed.

    Args:
        recipe: the recipe.
        otherwise: what can be done without the detector, to complete a sentence after ", or"; empty: nothing.

    Raises:
        ConfigError: the detector is missing; names the extra to install.
    """
    if recipe.face:
        require(f"face = {recipe.face:g}", "face", otherwise=otherwise)


def check_early(settings: Settings, specialists: Mapping[str, Specialist], base: RunRecord | None = None) -> None:
    """Rejects mistakes that names and small files show, before the slow imports of training.

    Args:
        settings: what the command asks for.
        specialists: task -> specialist.
        base: the run whose recipe is used if none is named.

    Raises:
        ConfigError: wrong recipes and settings.
        DataError: there is nothing at a path.
        WeightsError: a recipe's weights are not a file.
        WorkspaceError: no workspace can be opened or made where it is to be.
    """
    mistakes = Mistakes()
    add_mistakes(settings, mistakes)
    with mistakes.collect():
        check_device(settings.device)
    with mistakes.collect():
        check_source(settings.data, settings.columns)
    with mistakes.collect():
        check_tables(settings.extra)
    with mistakes.collect():
        Workspace.check(settings.workspace)
    if tuple(settings.recipes) in ((), (DEFAULT_RECIPE,)) and not settings.changes:
        mistakes.raise_if_any()  # nobody chose the recipe, and its schema is slow to build
    with mistakes.collect():
        recipes = recipes_of(settings, specialists, base)
        from orchestrator.recipes.schema import check_weights  # slow to build, and no use to a recipe of a wrong name

        for task, recipe in recipes.items():
            with mistakes.collect(task):
                if base is not None and recipe.weights == base.weights:
                    from orchestrator.artifacts.sources import check_initial_weights

                    check_initial_weights(base)
                check_weights(recipe.weights)
            with mistakes.collect(task):
                check_face(recipe)
    mistakes.raise_if_any()

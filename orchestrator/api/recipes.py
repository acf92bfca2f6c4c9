"""Recipes: functions for `orch recipes`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.arguments import PathLike, checks_arguments
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.outputs import Output, check_outputs, replace_output
from orchestrator.recipes.names import is_file_name

if TYPE_CHECKING:
    from orchestrator.recipes.schema import Recipe

__all__ = [
    "NamedRecipe",
    "check_recipe",
    "compare_recipes",
    "copy_recipe",
    "list_recipes",
    "load_recipe",
    "setting_help",
]


@dataclass(frozen=True)
class NamedRecipe:
    """A specialist's named recipe.

    Attributes:
        task: the specialist.
        name: the recipe's name.
        recipe: its settings.
    """

    task: str
    name: str
    recipe: Recipe

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"specialist": self.task, "name": self.name, **self.recipe.model_dump(mode="json")}


@checks_arguments
def list_recipes() -> list[NamedRecipe]:
    """Every specialist's named recipes: `orch recipes list`."""
    from orchestrator.recipes.load import load_recipes, recipe_files
    from orchestrator.specialists import TRAINABLE

    return [
        NamedRecipe(task, name, load_recipes({task: specialist}, [name])[task])
        for task, specialist in TRAINABLE.items()
        for name in recipe_files(specialist)
    ]


@checks_arguments
def load_recipe(task: str, name: PathLike) -> Recipe:
    """A recipe with every setting: `orch recipes show`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        name: the recipe's name, or the path of a .toml file.

    Raises:
        OrchestratorError: no such task or recipe, or invalid settings.
    """
    from orchestrator.recipes.load import load_recipes
    from orchestrator.specialists import trainable

    return load_recipes({task: trainable(task)}, [f"{task}={os.fspath(name)}"])[task]  # a path may contain `=`


@checks_arguments
def compare_recipes(task: str, first: PathLike, *, second: PathLike) -> Mapping[str, tuple[Any, Any]]:
    """The settings in which two recipes differ, each with both values: `orch recipes diff`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        first: a recipe's name, or the path of a .toml file.
        second: the name or path of another.

    Raises:
        OrchestratorError: no such task or recipe, or invalid settings.
    """
    from orchestrator.artifacts.differences import differences

    left, right = (load_recipe(task, name).model_dump(mode="json") for name in (first, second))
    return differences(left, right)


@checks_arguments
def check_recipe(task: str, name: PathLike) -> list[Problem]:
    """Settings that are ignored, that cannot work, or that harm faces: `orch recipes lint`.

    A file's network is built as well; those of named recipes are known to work.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        name: the recipe's name, or the path of a .toml file.

    Raises:
        OrchestratorError: no such task or recipe, or invalid settings.
    """
    from orchestrator.specialists import trainable

    recipe = load_recipe(task, name)
    from orchestrator.recipes.lint import lint  # imports the schema, which a wrong name needs not

    problems = lint(trainable(task), recipe)
    if is_file_name(os.fspath(name)) and not any(problem.fatal for problem in problems):
        from orchestrator.networks.backbones import check_backbone

        try:
            check_backbone(recipe)
        except ConfigError as error:
            problems.append(Problem("backbone", error.message))
    return problems


@checks_arguments
def copy_recipe(task: str, name: PathLike, *, to: PathLike) -> None:
    """Writes a recipe, every setting spelled out, as a file to edit: `orch recipes copy`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        name: the recipe's name, or the path of a .toml file.
        to: the new file, ending in .toml.

    Raises:
        OrchestratorError: no such task or recipe, or a file that is there already.
    """
    to = Path(to)
    check_outputs([Output("", to, (".toml",))])  # --recipe tells a file from a name by its suffix
    if to.is_file():
        raise ConfigError(f"{to}: is there already; choose another name, or delete it first.")
    from orchestrator.recipes.load import recipe_as_toml

    recipe = load_recipe(task, name)
    with replace_output(to) as temporary:
        temporary.write_text(recipe_as_toml(recipe), encoding="utf-8")


@checks_arguments
def setting_help() -> dict[str, str]:
    """What each setting of a recipe means, `augment.flip` and the like included."""
    from orchestrator.data.augmentation import Augment
    from orchestrator.recipes.schema import Recipe

    fields = {**Recipe.model_fields, **{f"augment.{key}": field for key, field in Augment.model_fields.items()}}
    return {key: str(field.description) for key, field in fields.items() if key not in ("about", "augment")}

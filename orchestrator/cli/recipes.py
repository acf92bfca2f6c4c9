"""`orch recipes list | show | diff | lint | copy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.artifacts.differences import in_words
from orchestrator.cli.console import emit, grid, out, put, say
from orchestrator.cli.options import JsonOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, counted
from orchestrator.core.labels import TASKS

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Recipes: list, show, compare, check and copy them.", rich_markup_mode="rich"
)

TaskArgument = Annotated[str, typer.Argument(help=f"The specialist: {', '.join(TASKS)}; or joint.")]
NameArgument = Annotated[str, typer.Argument(help="The recipe's name.")]


@app.command("list")
def list_recipes(json: JsonOption = False) -> None:
    """List every specialist's named recipes.

    \b
    Examples:
      orch recipes list
    """
    from orchestrator.recipes.load import load_recipes, recipe_files
    from orchestrator.specialists import TRAINABLE

    found = [
        (task, name, load_recipes({task: specialist}, [name])[task])
        for task, specialist in TRAINABLE.items()
        for name in recipe_files(specialist)
    ]
    if json:
        emit([{"specialist": task, "name": name, **recipe.model_dump(mode="json")} for task, name, recipe in found])
        return
    table = grid(
        "",
        "specialist",
        "recipe",
        "backbone",
        "input",
        "epochs",
        keep=("recipe", "backbone"),
        text=("recipe", "backbone"),
    )
    for task, name, recipe in found:
        size = f"{recipe.height} x {recipe.width}"
        table.add_row(task, name, recipe.backbone.partition(".")[0], size, str(recipe.epochs))
    out().print(table)


@app.command("show")
def show_recipe(task: TaskArgument, name: NameArgument, json: JsonOption = False) -> None:
    """Show every number of a recipe with its meaning.

    \b
    Examples:
      orch recipes show age quick
    """
    from orchestrator.data.augmentation import Augment
    from orchestrator.recipes.load import load_recipes
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialists import trainable

    recipe = load_recipes({task: trainable(task)}, [name])[task]
    if json:
        emit(recipe.model_dump(mode="json"))
        return
    title = f"{task} / {name}: {recipe.about}".rstrip(": ")
    table = grid(title, "key", "value", "means", keep=("value", "means"), text=("value", "means"))
    for key, field in Recipe.model_fields.items():
        if key not in ("about", "augment"):
            table.add_row(key, in_words(getattr(recipe, key)), field.description)
    for key, field in Augment.model_fields.items():
        table.add_row(f"augment.{key}", in_words(getattr(recipe.augment, key)), field.description)
    out().print(table)


@app.command("diff")
def diff_recipes(
    task: TaskArgument,
    one: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")],
    other: Annotated[str, typer.Argument(help="Another.")],
    json: JsonOption = False,
) -> None:
    """Show how two recipes of a specialist differ, each number with its meaning.

    \b
    Examples:
      orch recipes diff age quick standard
      orch recipes diff age quick my_age.toml
    """
    from orchestrator.artifacts.differences import differences
    from orchestrator.data.augmentation import Augment
    from orchestrator.recipes.load import load_recipes
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialists import trainable

    left, right = (load_recipes({task: trainable(task)}, [name])[task] for name in (one, other))
    found = differences(left.model_dump(mode="json"), right.model_dump(mode="json"))
    if json:
        emit({key: list(values) for key, values in found.items()})
        return
    if not found:
        say(f"{one} and {other} are the same recipe for {task}.")
        return
    table = grid(
        f"{task}: {counted(len(found), 'difference')}",
        "key",
        one,
        other,
        "means",
        keep=(one, other),
        text=(one, other, "means"),
    )
    for key, (one_value, other_value) in found.items():
        model = Augment if key.startswith("augment.") else Recipe
        table.add_row(
            key,
            in_words(one_value),
            in_words(other_value),
            model.model_fields[key.removeprefix("augment.")].description,
        )
    out().print(table)


@app.command("lint")
def lint_recipe(
    task: TaskArgument, name: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")]
) -> None:
    """Check a recipe for settings that it ignores, that cannot work, or that harm faces. Exit code 1 if there are any.

    Training refuses settings that cannot work, and warns of the others.

    \b
    Examples:
      orch recipes lint age my_age.toml
    """
    from orchestrator.recipes.lint import lint
    from orchestrator.recipes.load import load_recipes
    from orchestrator.specialists import trainable

    found = lint(trainable(task), load_recipes({task: trainable(task)}, [name])[task])
    for problem in found:
        put(str(problem), "harms", 33)
    say(
        f"{name}: {counted(len(found), 'setting')} that harm{'s' * (len(found) == 1)}."
        if found
        else f"{name}: in order."
    )
    raise typer.Exit(1 if found else 0)


@app.command("copy")
def copy_recipe(
    task: TaskArgument,
    name: NameArgument,
    to: Annotated[Path, typer.Argument(help="The new file, ending in .toml.")],
) -> None:
    """Copy a recipe into a file of your own to edit, every number spelled out.

    \b
    Examples:
      orch recipes copy age quick my_age.toml
      orch train age --data people/train --recipe my_age.toml
    """
    from orchestrator.core.outputs import Output, check_outputs, written
    from orchestrator.recipes.load import load_recipes, recipe_as_toml
    from orchestrator.specialists import trainable

    check_outputs([Output("", to, (".toml",))])  # by its ending --recipe knows a file from a name
    if to.is_file():
        raise ConfigError(f"{to}: is there already; choose another name, or delete it first.")
    recipe = load_recipes({task: trainable(task)}, [name])[task]
    with written(to) as temporary:
        temporary.write_text(recipe_as_toml(recipe), encoding="utf-8")
    say(f"{to} written. Edit it, then: {orch('train', task, '--data', 'DIR', '--recipe', to)}")

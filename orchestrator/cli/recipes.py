"""`orch recipes list | show | diff | lint | copy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.artifacts.differences import format_value
from orchestrator.cli.console import grid, print_json, print_message, print_result, stdout_console
from orchestrator.cli.options import JsonOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import quantity
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
    from orchestrator import api

    recipes = api.list_recipes()
    if json:
        print_json([named.as_dict() for named in recipes])
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
    for named in recipes:
        recipe = named.recipe
        size = f"{recipe.height} x {recipe.width}"
        table.add_row(named.task, named.name, recipe.backbone.partition(".")[0], size, str(recipe.epochs))
    stdout_console().print(table)


@app.command("show")
def show_recipe(task: TaskArgument, name: NameArgument, json: JsonOption = False) -> None:
    """Show every setting of a recipe with its meaning.

    \b
    Examples:
      orch recipes show age quick
    """
    from orchestrator import api

    recipe = api.load_recipe(task, name)
    if json:
        print_json(recipe.model_dump(mode="json"))
        return
    title = f"{task} / {name}: {recipe.about}".rstrip(": ")
    table = grid(title, "key", "value", "means", text=("means",), essential=("value",))
    for key, meaning in api.setting_help().items():
        value = getattr(recipe.augment if key.startswith("augment.") else recipe, key.removeprefix("augment."))
        table.add_row(key, format_value(value), meaning)
    stdout_console().print(table)


@app.command("diff")
def diff_recipes(
    task: TaskArgument,
    first: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")],
    second: Annotated[str, typer.Argument(help="Another.")],
    json: JsonOption = False,
) -> None:
    """Show how two recipes of a specialist differ, each setting with its meaning.

    \b
    Examples:
      orch recipes diff age quick standard
      orch recipes diff age quick my_age.toml
    """
    from orchestrator import api

    differences = api.compare_recipes(task, first, second=second)
    if json:
        print_json({key: list(values) for key, values in differences.items()})
        return
    if not differences:
        print_message(f"{first} and {second} are the same recipe for {task}.")
        return
    table = grid(
        f"{task}: {quantity(len(differences), 'difference')}",
        "key",
        first,
        second,
        "means",
        text=("means",),
        essential=(first, second),
    )
    meanings = api.setting_help()
    for key, (first_value, second_value) in differences.items():
        table.add_row(key, format_value(first_value), format_value(second_value), meanings[key])
    stdout_console().print(table)


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
    from orchestrator import api

    problems = api.check_recipe(task, name)
    for problem in problems:
        print_result(str(problem), "harms", 33)
    print_message(
        f"{name}: {quantity(len(problems), 'setting')} that harm{'s' * (len(problems) == 1)}."
        if problems
        else f"{name}: in order."
    )
    raise typer.Exit(1 if problems else 0)


@app.command("copy")
def copy_recipe(
    task: TaskArgument,
    name: NameArgument,
    to: Annotated[Path, typer.Argument(help="The new file, ending in .toml.")],
) -> None:
    """Copy a recipe into a file of your own to edit, every setting spelled out.

    \b
    Examples:
      orch recipes copy age quick my_age.toml
      orch train age --data people/train --recipe my_age.toml
    """
    from orchestrator import api

    api.copy_recipe(task, name, to=to)
    print_message(f"{to} written. Edit it, then: {orch('train', task, '--data', 'DIR', '--recipe', to)}")

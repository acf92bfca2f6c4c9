"""Builds recipes from names, files and `--set`; precedence: specialist's defaults < recipe < `--set`.

Unknown keys are refused with the nearest valid one, and all mistakes of all specialists are reported together. The schema,
which takes as long to import as a small command to run, is imported only where a value is checked: a wrong name is reported
without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Problem, nearest, quantity
from orchestrator.core.files import absolute_text
from orchestrator.core.labels import CLASSES
from orchestrator.core.toml import parse_toml, read_toml, toml_value
from orchestrator.recipes.names import DEFAULT_RECIPE, is_file_name, recipe_path

if TYPE_CHECKING:
    from pydantic import BaseModel

    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialist import Specialist

__all__ = ["choices_of", "load_recipes", "recipe_as_toml", "recipe_files"]


def recipe_files(specialist: Specialist) -> dict[str, Path]:
    """The named recipes of a specialist, name -> file, sorted."""
    return {path.stem: path for path in sorted(specialist.recipes.glob("*.toml"))}


def load_recipes(
    specialists: Mapping[str, Specialist],
    choices: Sequence[str],
    changes: Sequence[str] = (),
    bases: Mapping[str, Recipe] | None = None,
) -> dict[str, Recipe]:
    """The recipe of each specialist.

    Args:
        specialists: task -> specialist.
        choices: `NAME` or `FILE.toml` for all of them, `TASK=NAME` or `TASK=FILE.toml` for one; the last one wins.
        changes: `KEY=VALUE` for all, `TASK.KEY=VALUE` for one; VALUE as in TOML, text without quotes allowed.
        bases: task -> recipe to change if `choices` names none; without a base it is the task's recipe `quick`.

    Raises:
        ConfigError: names, keys or values are wrong; lists all of them, with the allowed ones.
    """
    problems: list[Problem] = []
    broken: set[str] = set()
    names, name_problems = choices_of(specialists, choices)
    problems += name_problems
    values: dict[str, dict[str, Any]] = {}
    for task, specialist in specialists.items():
        try:
            if task not in names and bases and task in bases:
                values[task] = bases[task].model_dump(mode="json")
            else:
                values[task] = _layers(specialist, names.get(task, DEFAULT_RECIPE))
        except ConfigError as error:
            values[task] = dict(specialist.defaults) | {"augment": dict(specialist.defaults.get("augment", {}))}
            broken.add(task)
            problems += error.problems or [Problem("--recipe", error.message.removeprefix("--recipe: "))]
    for change in changes:
        _apply(values, tuple(specialists), change, problems)
    recipes: dict[str, Recipe] = {}
    for task, layers in values.items():
        if task in broken and not changes:
            continue  # its keys are unknown, so only the --set options can be checked
        name = (
            "of the run it starts from"
            if task not in names and bases and task in bases
            else names.get(task, DEFAULT_RECIPE)
        )
        recipe_problems, recipe = _validate(specialists[task], layers, name, changes)
        problems += [
            problem
            for problem in recipe_problems
            if task not in broken or problem.kind in ("unknown_key", "wrong_value")
        ]
        if recipe is not None:
            recipes[task] = recipe
    if problems:
        unique = _merged(problems)
        raise ConfigError(f"{quantity(len(unique), 'mistake')} in the settings:", unique)
    return recipes


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, with one instead of several that differ only in `where`."""
    wheres: dict[tuple[str, str, str], dict[str, None]] = {}
    for problem in problems:
        wheres.setdefault((problem.what, problem.fix, problem.kind), {})[problem.where] = None
    return [Problem(", ".join(where), what, fix, kind) for (what, fix, kind), where in wheres.items()]


def choices_of(tasks: Collection[str], choices: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """Task -> recipe that `--recipe` names for it, and the problems of these names.

    A path may contain `=`: unless the text before the first `=` is a task, all of it is a path.
    """
    names: dict[str, str] = {}
    problems: list[Problem] = []
    for choice in choices:
        task, equals, name = choice.partition("=")
        if equals and task in tasks:
            names[task] = name
        elif not equals or (task not in CLASSES and recipe_path(choice).is_file()):
            names = dict.fromkeys(tasks, choice)
        else:
            what = f"'{task}' is not a task of this command; allowed: {', '.join(tasks)}.{nearest(task, tasks)}"
            hint = "" if task in CLASSES else f" There is no file '{choice}' either."
            problems.append(Problem(f"--recipe {choice}", what + hint))
    return names, problems


def _layers(specialist: Specialist, name: str) -> dict[str, Any]:
    """Defaults and recipe file of one specialist, merged, unchecked."""
    values: dict[str, Any] = {**specialist.defaults, "augment": dict(specialist.defaults.get("augment", {}))}
    files = recipe_files(specialist)
    if is_file_name(name):
        layer = read_toml(recipe_path(name), "--recipe")
    elif name in files:
        layer = parse_toml(files[name].read_text(encoding="utf-8"), f"--recipe: {files[name]}")
    else:  # reported once where several tasks have recipes of the same names (`_merged`)
        what = f"no recipe '{name}'; allowed: {', '.join(files)}, or the path of a .toml file.{nearest(name, files)}"
        problem = Problem(f"{specialist.name} recipe", what, f"`{orch('recipes', 'list')}` shows them.")
        raise ConfigError("--recipe", [problem])
    augment = layer.pop("augment", {})
    if isinstance(augment, dict):
        values["augment"].update(augment)
    else:
        values["augment"] = augment
    values.update(layer)
    return values


def _apply(values: dict[str, dict[str, Any]], tasks: tuple[str, ...], change: str, problems: list[Problem]) -> None:
    """Writes the value of one `--set` into the layered values of the tasks that it names."""
    key, equals, text = change.partition("=")
    if not equals:
        problems.append(Problem(f"--set {change}", "has no '='.", "Write TASK.KEY=VALUE, as in age.epochs=8."))
        return
    parts = key.split(".")
    chosen = tasks
    if parts[0] in tasks:
        chosen, parts = (parts[0],), parts[1:]
    if not parts or (len(parts) > 1 and parts[0] != "augment") or len(parts) > 2:
        allowed = [*tasks, "augment"]
        what = f"'{key}' is not a setting; write KEY or TASK.KEY with a task of {', '.join(tasks)}."
        problems.append(Problem(f"--set {change}", what + nearest(parts[0] if parts else key, allowed)))
        return
    for task in chosen:
        if task not in values:
            continue
        table = values[task]
        for part in parts[:-1]:
            table = table.setdefault(part, {})
        if isinstance(table, dict):
            table[parts[-1]] = _value(text)
        else:
            problems.append(Problem(f"--set {change}", f"'{parts[0]}' is a table, and was given a plain value."))
            return


def _value(text: str) -> Any:
    """A value as TOML reads it; text if it is not TOML; None for `none`."""
    if text.lower() == "none":
        return None
    try:
        return parse_toml(f"value = {text}", "")["value"]
    except ConfigError:
        return text


def _validate(
    specialist: Specialist, values: dict[str, Any], name: str, changes: Sequence[str]
) -> tuple[list[Problem], Recipe | None]:
    from pydantic import ValidationError

    from orchestrator.recipes.lint import lint
    from orchestrator.recipes.schema import WEIGHTS_WORDS, Recipe

    # `none` is one of the allowed values of `weights`, so a None from --set means this value.
    if values.get("weights", "") is None:
        values["weights"] = "none"
    source = values.get("weights")
    if isinstance(source, str) and source not in WEIGHTS_WORDS and Path(source).is_file():
        values["weights"] = absolute_text(Path(source))  # so that the run can be resumed from any folder
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        return [_problem(specialist.name, name, fault, changes) for fault in error.errors()], None
    problems = [
        replace(problem, where=f"{specialist.name} recipe {name}")
        for problem in lint(specialist, recipe)
        if problem.fatal
    ]
    # Only `--set` is checked: the specialist's default augmentation is not the user's choice.
    for change in changes if recipe.train == "head" else ():
        if change.partition("=")[0].removeprefix(f"{specialist.name}.").startswith("augment."):
            what = "train = head augments nothing."
            problems.append(Problem(f"--set {change}", what, "Leave it out, or use --set train=network."))
    return problems, recipe


def _problem(task: str, name: str, error: Any, changes: Sequence[str]) -> Problem:
    """A pydantic error as a problem in our terms, whose `where` is what the user wrote."""
    from orchestrator.data.augmentation import Augment
    from orchestrator.recipes.lint import REFUSED
    from orchestrator.recipes.schema import Recipe

    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    model: type[BaseModel] = Augment if path[0] == "augment" and len(path) > 1 else Recipe
    changed = [change for change in changes if change.partition("=")[0] in (key, f"{task}.{key}")]
    where = f"--set {changed[-1]}" if changed else f"{task} recipe {name}"
    if error["type"] == "extra_forbidden" and path[-1] in REFUSED:
        return Problem(where, f"there is no '{key}'.", REFUSED[path[-1]], "unknown_key")
    if error["type"] == "extra_forbidden":
        fields = [("augment." if model is Augment else "") + field for field in model.model_fields]
        return Problem(
            where,
            f"unknown key '{key}'.{nearest(key, fields)}",
            f"Allowed: {', '.join(fields)}.",
            "unknown_key",
        )
    if error["type"] == "missing":
        return Problem(where, f"'{key}' is missing.", _meaning(model, path), "missing_key")
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    hint = ""
    if error["type"] == "literal_error":
        allowed = [value.strip("' ") for value in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        message, hint = f"allowed: {', '.join(allowed)}", nearest(str(error["input"]), allowed)
    if changed and "," in str(error["input"]) and error["type"] != "literal_error":
        hint = f" Several values, to try each, are for --grid {key}=A,B."
    end = "" if message.endswith("?") else "."
    return Problem(where, f"{key} = {error['input']!r}: {message}{end}{hint}", kind="wrong_value")


def _meaning(model: type[BaseModel], path: list[str]) -> str:
    field = model.model_fields.get(path[-1])
    return f"It means: {field.description}." if field and field.description else ""


def recipe_as_toml(recipe: Recipe) -> str:
    """A recipe as a file to edit: every setting with its meaning; keys without a value are comments."""
    from orchestrator.data.augmentation import Augment
    from orchestrator.recipes.schema import Recipe

    lines = []
    for model, value, head in ((Recipe, recipe, ""), (Augment, recipe.augment, "\n[augment]")):
        lines += [head] if head else []
        for key, field in model.model_fields.items():
            item = getattr(value, key)
            if isinstance(item, Augment):
                continue
            text = f"{key} = {toml_value(item)}" if item is not None else f"# {key} ="
            lines.append(f"{text:<36} # {field.description}")
    return "\n".join(lines) + "\n"

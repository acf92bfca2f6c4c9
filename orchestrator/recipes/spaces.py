"""Search spaces: ranges and choices of settings, written as TOML, checked against a recipe before any training.

lr = { low = 3e-4, high = 5e-3, log = true }     # a range; `step` for whole steps
loss = ["cross_entropy", "focal"]                # choices
model = [                                        # linked: each choice sets several; the name is yours
    { backbone = "resnet18", lr = 1e-3 },
    { backbone = "convnext_atto", lr = 5e-4 },
]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes, Problem, nearest, quantity
from orchestrator.core.toml import parse_toml, read_toml, toml_text, toml_value
from orchestrator.recipes.load import load_recipes

if TYPE_CHECKING:
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialist import Specialist

__all__ = ["DEFAULT", "STAGES", "Choice", "Range", "Space", "parse_space", "read_space", "read_stages"]

DEFAULT = (Path(__file__).parent / "space.toml").read_text(encoding="utf-8")
"""Default search space of `orch sweep`."""

STAGES = (Path(__file__).parent / "stages.toml").read_text(encoding="utf-8")
"""Default stages of `orch sweep --stages`, one TOML table for each."""

NEVER = ("about", "augment", "workers", "drop_people")  # settings that are not searched, and the augment table
DIGITS = 3  # significant digits of a number drawn from a range


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        low: smallest number.
        high: largest number.
        log: whether to draw uniformly on a logarithmic scale.
        step: distance between allowed numbers; None: any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_integer(self) -> bool:
        """Whether its numbers are whole numbers."""
        return all(isinstance(bound, int) for bound in (self.low, self.high, self.step or 1))

    def rounded(self, value: float) -> float:
        """A drawn number as it is written into a recipe: three significant digits, within the range."""
        if self.is_integer or not value:
            return value
        short = round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))
        return min(max(short, self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of several settings, or of several groups of settings.

    Attributes:
        options: option's name -> its settings as `KEY=VALUE`.
    """

    options: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Space:
    """All that a search may try.

    Attributes:
        axes: name -> range or choice; a range's name is a setting.
        text: the space as it was written.
    """

    axes: Mapping[str, Range | Choice]
    text: str

    def settings(self, values: Mapping[str, Any]) -> list[str]:
        """The settings at a point of the space, as `KEY=VALUE`.

        Args:
            values: axis -> number of a range, or name of a choice's option.
        """
        settings: list[str] = []
        for name, value in values.items():
            axis = self.axes[name]
            settings += (
                axis.options[value] if isinstance(axis, Choice) else [f"{name}={toml_value(axis.rounded(value))}"]
            )
        return settings

    @property
    def points(self) -> list[dict[str, Any]] | None:
        """Every point of a space that has only choices; None if it has a range."""
        axes = [axis for axis in self.axes.values() if isinstance(axis, Choice)]
        if len(axes) < len(self.axes):
            return None
        return [dict(zip(self.axes, names, strict=True)) for names in product(*(axis.options for axis in axes))]

    @property
    def all_settings(self) -> list[list[str]]:
        """The settings of every choice, and of the ends of every range."""
        settings: list[list[str]] = []
        for name, axis in self.axes.items():
            if isinstance(axis, Choice):
                settings += map(list, axis.options.values())
            else:
                settings += [self.settings({name: end}) for end in (axis.low, axis.high)]
        return settings

    def check(
        self, specialist: Specialist, recipes: Sequence[str], changes: Sequence[str], base: Recipe | None
    ) -> None:
        """Tries every choice and the ends of every range on the recipe, alone or together with one other choice.

        A later trial whose settings contradict each other fails without training.

        Args:
            specialist: specialist to train.
            recipes: argument `choices` of `load_recipes`.
            changes: argument `changes` of `load_recipes`.
            base: recipe to change if `recipes` names none.

        Raises:
            ConfigError: settings that cannot be used; names all of them.
        """
        mistakes, task = Mistakes(), specialist.name
        problems: list[Problem] = []

        def load(settings: Sequence[str]) -> None:
            prefixed = [f"{task}.{setting}" for setting in settings]
            load_recipes({task: specialist}, recipes, [*changes, *prefixed], {task: base} if base else None)

        for settings in self.all_settings:
            try:
                load(settings)
            except ConfigError as error:
                compatible = [other for other in self.all_settings if not _keys(other) & _keys(settings)]
                if not any(_loads(load, [*settings, *other]) for other in compatible):
                    # An error of the base recipe occurs with every choice; one of a choice is reported as the space's.
                    prefixed = {f"--set {task}.{setting}": f"the space: {setting}" for setting in settings}
                    problems += [
                        replace(problem, where=prefixed.get(problem.where, problem.where)) for problem in error.problems
                    ]
                    if not error.problems:
                        mistakes.add(error)
        mistakes.raise_if_any()
        if problems:
            unique = list(dict.fromkeys(problems))
            raise ConfigError(f"{quantity(len(unique), 'mistake')} in what to try:", unique)


def _keys(settings: Sequence[str]) -> set[str]:
    return {setting.partition("=")[0] for setting in settings}


def _loads(load: Callable[[Sequence[str]], None], settings: Sequence[str]) -> bool:
    try:
        load(settings)
    except ConfigError:
        return False
    return True


def read_space(path: Path | None) -> Space:
    """The space in a file, or the default one.

    Raises:
        ConfigError: no such file, not TOML, or not a search space.
    """
    return parse_space(toml_text(path, "--space") if path else DEFAULT, str(path or "the default space"))


def read_stages(path: Path | None, names: Sequence[str]) -> dict[str, Space]:
    """The named stages, in that order, from a file or the default ones.

    Args:
        path: a TOML file with a table for each stage; a stage without one has its default.
        names: names of the stages.

    Raises:
        ConfigError: unknown stages, no such file, not TOML, or a stage that is not a search space.
    """
    default = parse_toml(STAGES, "")
    own = read_toml(path, "--space") if path else {}
    tables = {**default, **own}
    mistakes = Mistakes()
    if path and not any(isinstance(own.get(name), dict) for name in names):
        mistakes.add(
            ConfigError(
                f"--space {path}: with --stages it has a table for each stage, and it has none called {', '.join(names)}. "
                f"`{orch('sweep', 'TASK', '--print-space', '--stages', 'all')}` prints the default ones."
            )
        )
    for name in names:
        if name not in tables or not isinstance(tables[name], dict):
            stage_names = [key for key, value in tables.items() if isinstance(value, dict)]
            mistakes.add(
                ConfigError(
                    f"--stages: no stage is called '{name}'; allowed: {', '.join(stage_names)}.{nearest(name, stage_names)}"
                )
            )
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if repeated or not names:
        mistakes.add(ConfigError(f"--stages: {'name a stage' if not names else f'{repeated[0]} appears twice'}."))
    mistakes.raise_if_any()
    spaces = {}
    for name in names:
        with mistakes.collect():
            spaces[name] = _space(tables[name], f"{path or 'the default stages'}: [{name}]")
    mistakes.raise_if_any()
    return spaces


def parse_space(text: str, where: str) -> Space:
    """A space from its TOML text.

    Args:
        text: TOML.
        where: name of its source, for messages.

    Raises:
        ConfigError: not TOML, or axes are wrong; names all of them.
    """
    return _space(parse_toml(text, where), where)


def _space(tables: Mapping[str, Any], where: str) -> Space:
    from orchestrator.data.augmentation import Augment  # slow to build, like the schema, and no use to a wrong name
    from orchestrator.recipes.schema import Recipe

    settings = [
        *(key for key in Recipe.model_fields if key not in NEVER),
        *(f"augment.{key}" for key in Augment.model_fields),
    ]
    problems: list[Problem] = []
    axes: dict[str, Range | Choice] = {}
    inner = tables.get("augment")
    if isinstance(inner, dict) and not {"low", "high"} & set(inner):  # [augment], as recipes have it
        tables = {key: value for key, value in tables.items() if key != "augment"}
        tables |= {f"augment.{key}": value for key, value in inner.items()}
    for name, value in tables.items():
        try:
            axes[name] = _axis(name, value, settings)
        except ValueError as error:
            problems.append(Problem(f"{where}: {name}", str(error)))
    keys: dict[str, str] = {}
    for name, axis in axes.items():
        axis_keys = (
            {setting.partition("=")[0] for option in axis.options.values() for setting in option}
            if isinstance(axis, Choice)
            else {name}
        )
        for key in axis_keys:
            if key in keys:
                problems.append(
                    Problem(f"{where}: {name}", f"{key} is changed by {keys[key]} too; let only one of them change it.")
                )
            keys[key] = name
    if not tables:
        problems.append(
            Problem(where, "nothing to try.", "Write, for instance, lr = { low = 1e-4, high = 1e-2, log = true }.")
        )
    if problems:
        raise ConfigError(f"{where}: {quantity(len(problems), 'mistake')} in what to try:", problems)
    return Space(axes, toml_value(dict(tables)))


def _axis(name: str, value: Any, settings: Sequence[str]) -> Range | Choice:
    """Reads one axis of a search space: a range, or choices.

    Raises:
        ValueError: what is wrong with it, in a sentence.
    """
    if isinstance(value, list):
        return _choice(name, value, settings)
    if name not in settings:
        raise ValueError(f"there is no such setting.{nearest(name, settings)}")
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is one value; write choices [a, b] or a range {{ low = ..., high = ... }}.")
    return _range(value)


def _choice(name: str, value: list[Any], settings: Sequence[str]) -> Choice:
    """An axis of choices; raises ValueError, as `_axis` does."""
    if not value:
        raise ValueError("no choices; write at least two.")
    groups = all(isinstance(option, dict) for option in value)
    if name not in settings and not groups:
        raise ValueError(
            f"there is no such setting.{nearest(name, settings)} Choices that are tables, each of several settings, may be "
            "given any name."
        )
    options: dict[str, tuple[str, ...]] = {}
    for option in value:
        linked = groups and name not in ("sample_factor",)
        pairs = option if linked else {name: option}
        unknown = [key for key in pairs if key not in settings]
        if unknown:
            raise ValueError(f"there is no setting '{unknown[0]}'.{nearest(unknown[0], settings)}")
        changes = tuple(f"{key}={toml_value(item)}" for key, item in pairs.items())
        options[" ".join(changes) or "(as it is)"] = changes
    return Choice(options)


def _range(value: Mapping[str, Any]) -> Range:
    """An axis of numbers; raises ValueError likewise."""
    unknown = [key for key in value if key not in ("low", "high", "log", "step")]
    if unknown:
        raise ValueError(f"a range has no '{unknown[0]}'; allowed: low, high, log, step.")
    low, high, log, step = value.get("low"), value.get("high"), value.get("log", False), value.get("step")
    numbers = [number for number in (low, high, step) if number is not None]
    if (
        low is None
        or high is None
        or not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    ):
        raise ValueError("a range needs numbers: { low = 1e-4, high = 1e-2, log = true }.")
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a range needs finite numbers.")
    if not low < high:
        raise ValueError(f"low = {low} is not below high = {high}.")
    if not isinstance(log, bool) or (log and low <= 0) or (log and step is not None):
        raise ValueError("log = true goes with low above 0 and without step.")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step = {step}: above 0, and at most {high - low:g}.")
    return Range(low, high, log, step)

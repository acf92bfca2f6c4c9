"""What the benchmark is asked for, and the checks of it that need no heavy imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.arguments import check_range
from orchestrator.core.device_names import check_device
from orchestrator.core.errors import ConfigError, Mistakes, nearest
from orchestrator.data.readers import check_source
from orchestrator.pipeline.settings import check_face
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.names import DEFAULT_RECIPE
from orchestrator.specialist import Specialist

__all__ = ["PARTS", "Load", "check_load"]

PARTS = ("training", "prediction", "voting", "growth", "commands")
FEWEST_PHOTOS = 16
FEWEST_VOTES = 1000


@dataclass(frozen=True)
class Load:
    """What the benchmark works on.

    Attributes:
        data: a source of photos with labels; None draws synthetic people.
        folder: scratch folder for people, a workspace and members.
        recipe: the recipe of the measured members.
        people: approximate number of people to use.
        photos: number of photos to predict.
        steps: number of training steps to time.
        votes: number of photos in the voting benchmark.
        rounds: number of measurement rounds.
        device: as `--device`.
    """

    data: Path | None
    folder: Path
    recipe: str = DEFAULT_RECIPE
    people: int = 60
    photos: int = 256
    steps: int = 32
    votes: int = 10_000_000
    rounds: int = 3
    device: str = "auto"


def check_load(parts: Sequence[str], load: Load, specialists: Mapping[str, Specialist]) -> None:
    """Rejects unknown parts, devices, recipes and data, and numbers out of range, all at once.

    Raises:
        ConfigError: an unknown part, device or recipe, or a number out of range; a recipe that trains heads alone, or crops
            around faces where the detector is not installed.
        DataError: there is nothing at the path of the data.
    """
    mistakes = Mistakes()
    for part in parts:
        if part not in PARTS:
            mistakes.add(
                ConfigError(
                    f"'{part}' is not a part of the benchmark; allowed: {', '.join(PARTS)}.{nearest(part, PARTS)}"
                )
            )
    for option, value, low in (
        ("--rounds", load.rounds, 1),
        ("--photos", load.photos, FEWEST_PHOTOS),
        ("--steps", load.steps, 1),
        ("--votes", load.votes, FEWEST_VOTES),
    ):
        with mistakes.collect():
            check_range(option, value, low)
    with mistakes.collect():
        check_device(load.device)
    if load.data is not None:
        with mistakes.collect():
            check_source(load.data)
    if load.recipe == DEFAULT_RECIPE:
        mistakes.raise_if_any()  # nobody chose the recipe, and its schema is slow to build
    with mistakes.collect():
        recipes = load_recipes(specialists, [load.recipe])
        measured = recipes if set(parts) - {"voting"} else {}  # voting needs no members
        for recipe in measured.values():
            with mistakes.collect():
                check_face(recipe)
        heads = [task for task, recipe in measured.items() if recipe.train == "head"]
        if heads:
            raise ConfigError(
                f"--recipe {load.recipe}: trains only heads ({', '.join(heads)}); measure one that trains networks."
            )
    mistakes.raise_if_any()

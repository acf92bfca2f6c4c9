"""Options that several commands share, each spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.core.arguments import MOST_SEED
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError
from orchestrator.core.strategies import CALIBRATIONS, DECISIONS, LEARNED_VOTES, VOTES

__all__ = [
    "CALIBRATE_WORDS",
    "DECIDE_WORDS",
    "MOST_PEOPLE",
    "OTHER_WORDS",
    "STRATEGY_WORDS",
    "BaseRecipeOption",
    "ByOption",
    "ColumnsOption",
    "DataOption",
    "DeviceOption",
    "DistinctOption",
    "ExtraOption",
    "FoldsOption",
    "FoldsUsedOption",
    "JobsOption",
    "JsonOption",
    "NewPlanOption",
    "NoStoreOption",
    "PlanSeedOption",
    "ProfileOption",
    "RecipeOption",
    "SeedOption",
    "SetOption",
    "TasksOption",
    "TrackOption",
    "ValidOnlyOption",
    "WorkspaceOption",
    "column_names",
    "folds_trained",
    "split_commas",
]  # fmt: skip

MOST_PEOPLE = 1_000_000
"""Synthetic people at most: seven million photos, 60 GB."""

EACH_TASK = "Or one for each task: mask=hard,age=soft"
STRATEGY_WORDS = f"{'; '.join(f'{word}: {about}' for word, about in VOTES.items())}. {EACH_TASK}"
"""The values of `--strategy` for its help."""

OTHER_WORDS = f"{', '.join(word for word in VOTES if word not in LEARNED_VOTES)}. {EACH_TASK}"
"""Those that may stand in for an ensemble's own, for the help of commands that predict."""

CALIBRATE_WORDS = "; ".join(f"{word}: {about}" for word, about in CALIBRATIONS.items())
DECIDE_WORDS = "; ".join(f"{word}: {about}" for word, about in DECISIONS.items())
"""The values of `--calibrate` and `--decide` for their help."""

DataOption = Annotated[
    Path,
    typer.Option("--data", "-d", help="A folder with train.csv and images/, or a manifest (.csv, .parquet)."),
]
WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", help="Where plans, runs, ensembles and caches are kept.", envvar="ORCH_WORKSPACE"
    ),
]
ColumnsOption = Annotated[
    list[str],
    typer.Option("--columns", help="A manifest's column name: OURS=THEIRS, as in person=subject_id. May be repeated."),
]
DistinctOption = Annotated[
    bool,
    typer.Option(
        "--distinct-people", help="Treat names that differ only in spelling (a1, A1, a01) as different people."
    ),
]


def _no_empty_recipe(words: list[str]) -> list[str]:
    if "" in words:  # as by an unset variable
        raise typer.BadParameter(f"an empty word; `{orch('recipes', 'list')}` shows what can be named.")
    return words


RecipeOption = Annotated[
    list[str],
    typer.Option(
        "--recipe",
        "-r",
        callback=_no_empty_recipe,
        help="NAME or FILE.toml for all, TASK=NAME for one; by default quick; see `orch recipes list`.",
    ),
]
BaseRecipeOption = Annotated[
    list[str],
    typer.Option(
        "--recipe", "-r", callback=_no_empty_recipe, help="NAME or FILE.toml; the current run's recipe, if left out."
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Change one setting: age.epochs=8, or epochs=8 for all specialists."),
]
FoldsOption = Annotated[
    int, typer.Option("--folds", "-k", help="Folds of the plan; 0 trains on everything, without a score.")
]
TasksOption = Annotated[str, typer.Option("--tasks", help="Only these specialists, as in gender,mask.")]
ValidOnlyOption = Annotated[bool, typer.Option("--valid-only", help="Train fold 0 only: a single split of people.")]
FoldsUsedOption = Annotated[
    int, typer.Option("--folds-used", min=0, help="Train only the first folds of the plan; 0: all. 1 is --valid-only.")
]
ExtraOption = Annotated[
    list[Path],
    typer.Option("--extra", help="A table of extra photos, or of pseudo-labels: trained on, never scored."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Seed of the training.")]
PlanSeedOption = Annotated[
    int,
    typer.Option("--plan-seed", min=0, max=MOST_SEED, help="Seed of the fold plan; one plan serves all specialists."),
]
NewPlanOption = Annotated[
    bool,
    typer.Option("--new-plan", help="Draw a fold plan, though the workspace has one that these people could follow."),
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", help="Members trained at once; 0: one per core, or per GPU.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
NoStoreOption = Annotated[
    bool, typer.Option("--no-store", help="Decode photos at every use instead of once; needs no disk.")
]
ProfileOption = Annotated[bool, typer.Option("--profile", help="Show the time that each stage took.")]
TrackOption = Annotated[
    list[str],
    typer.Option("--track", help="Also send to tensorboard, mlflow or wandb, in the workspace; KIND=PLACE elsewhere."),
]
ByOption = Annotated[
    list[str], typer.Option("--by", help="A further column of the data's table, such as race. May be repeated.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def split_commas(text: str) -> list[str]:
    """The comma-separated values of an option."""
    return [word.strip() for word in text.split(",") if word.strip()]


def folds_trained(folds_used: int, valid_only: bool) -> int:
    """How many of the plan's first folds to train; 0: all.

    Raises:
        ConfigError: the two options say different numbers.
    """
    if valid_only and folds_used > 1:
        raise ConfigError(
            f"--valid-only trains fold 0 only, and --folds-used {folds_used} the first {folds_used}: choose one."
        )
    return folds_used or int(valid_only)


def column_names(columns: list[str]) -> dict[str, str]:
    """`OURS=THEIRS` words as a mapping.

    Raises:
        ConfigError: a word has no `=`.
    """
    wrong = [word for word in columns if "=" not in word]
    if wrong:
        raise ConfigError(f"--columns {' '.join(wrong)}: write OURS=THEIRS, as in person=subject_id.")
    return dict(word.split("=", 1) for word in columns)

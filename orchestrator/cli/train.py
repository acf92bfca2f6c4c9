"""`orch train-all` and `orch train TASK`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import (
    duration_text,
    elapsed,
    print_error,
    print_message,
)
from orchestrator.cli.options import (  # fmt: skip
    BaseRecipeOption,
    ColumnsOption,
    DataOption,
    DeviceOption,
    DistinctOption,
    ExtraOption,
    FoldsOption,
    FoldsUsedOption,
    JobsOption,
    JsonOption,
    NewPlanOption,
    NoStoreOption,
    PlanSeedOption,
    ProfileOption,
    RecipeOption,
    SeedOption,
    SetOption,
    TasksOption,
    TrackOption,
    ValidOnlyOption,
    WorkspaceOption,
    column_names,
    folds_trained,
    split_commas,
)
from orchestrator.cli.training import UNFINISHED, listening, report_training
from orchestrator.core.arguments import MOST_SEED
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS

if TYPE_CHECKING:
    from orchestrator.pipeline.training import Report

__all__ = ["train", "train_all"]


def train_all(
    data: DataOption,
    workspace: WorkspaceOption = Path("runs"),
    folds: FoldsOption = 5,
    valid_only: ValidOnlyOption = False,
    folds_used: FoldsUsedOption = 0,
    recipe: RecipeOption = [],
    change: SetOption = [],
    tasks: TasksOption = ",".join(TASKS),
    jobs: JobsOption = 0,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    plan_seed: PlanSeedOption = 0,
    new_plan: NewPlanOption = False,
    columns: ColumnsOption = [],
    no_store: NoStoreOption = False,
    profile: ProfileOption = False,
    extra: ExtraOption = [],
    distinct: DistinctOption = False,
    track: TrackOption = [],
    json: JsonOption = False,
) -> None:
    """Train the three specialists over the folds of one plan of people.

    If killed at any moment (Ctrl-C, kill -9, power), the same command resumes and ends with the same weights (on a CPU
    bit for bit).
    Changed settings or data make new runs; nothing is ever mixed or overwritten. When the data has grown, people keep
    their folds and new people are dealt out to them. A specialist whose labels did not change is not trained again.

    \b
    Examples:
      orch train-all --data people/train
      orch train-all --data people/train --folds 3 --set age.epochs=8
      orch train-all --data people/train --recipe standard --recipe age=my.toml
      orch train-all --data faces.csv --columns path=file --columns person=id
    """
    from orchestrator import api

    settings = api.Settings(
        data, workspace, columns=column_names(columns), recipes=recipe, changes=change, folds=folds,
        folds_used=folds_trained(folds_used, valid_only), seed=seed, plan_seed=plan_seed, new_plan=new_plan,
        jobs=jobs, device=device, store=not no_store, profile=profile, extra=extra, distinct_people=distinct,
    )  # fmt: skip
    with listening(track, workspace) as listen:
        report = api.train_all(settings, tasks=split_commas(tasks), listen=listen)
    report_training(report, json, lambda: api.next_step(report.runs))


def train(
    task: Annotated[
        str, typer.Argument(help=f"The specialist: {', '.join(TASKS)}; or joint, one network for all three.")
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="KEY=A,B", help="More settings of --grid.")] = None,
    *,
    data: DataOption,
    workspace: WorkspaceOption = Path("runs"),
    folds: Annotated[
        int | None, typer.Option("--folds", "-k", help="Folds of the plan; as the current runs, if left out.")
    ] = None,
    valid_only: ValidOnlyOption = False,
    folds_used: FoldsUsedOption = 0,
    fold: Annotated[
        list[int],
        typer.Option("--fold", help="Retrain only this fold; the other members are shared with the base run."),
    ] = [],
    base: Annotated[
        str | None,
        typer.Option("--base", help="The run to start from; the current one if left out."),
    ] = None,
    recipe: BaseRecipeOption = [],
    change: SetOption = [],
    jobs: JobsOption = 0,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    plan_seed: Annotated[
        int | None,
        typer.Option("--plan-seed", min=0, max=MOST_SEED, help="Seed of the plan; as the current runs, if left out."),
    ] = None,
    new_plan: NewPlanOption = False,
    grid_words: Annotated[
        list[str],
        typer.Option(
            "--grid", help="Train every combination: KEY=A,B for each setting, as in loss=focal,f1 lr=1e-3,3e-4."
        ),
    ] = [],
    again: Annotated[
        bool, typer.Option("--again", help="Train it even if a run has the same recipe, data, plan and seed.")
    ] = False,
    columns: ColumnsOption = [],
    no_store: NoStoreOption = False,
    profile: ProfileOption = False,
    extra: ExtraOption = [],
    distinct: DistinctOption = False,
    track: TrackOption = [],
    json: JsonOption = False,
) -> None:
    """Retrain one specialist into a new run; the others' files are not touched.

    Recipe and folds are the current run's unless you change them; people keep their folds when labels were corrected or
    the data has grown. When the run is complete it becomes the
    specialist's current one, which `orch ensemble` uses; a run of fewer folds (--valid-only) does not replace it.
    No run is trained twice: one with the same recipe, data, plan and seed is reused.

    \b
    Examples:
      orch train age --data people/train --set age.epochs=30
      orch train age --data people/train --seed 1
      orch train mask --data people/train --fold 2 --seed 1
      orch train age --data people/train --grid loss=focal,f1 lr=1e-3,3e-4
    """
    from orchestrator import api

    grid = [*grid_words, *(more or [])]
    settings = api.Settings(
        data, workspace, columns=column_names(columns), recipes=recipe, changes=change, folds=folds,
        folds_used=folds_trained(folds_used, valid_only), seed=seed, plan_seed=plan_seed, new_plan=new_plan,
        jobs=jobs, device=device, store=not no_store, profile=profile, extra=extra, distinct_people=distinct,
    )  # fmt: skip
    _check_grid(grid_words, more or [], bool(fold or base or again or profile))
    with listening(track, workspace) as listen:
        if grid:
            report = api.train_grid(task, settings, grid=grid, listen=listen)
        else:
            report = api.train(task, settings, retrain_folds=fold, base=base, again=again, listen=listen)
    if grid:
        _conclude_grid(report, workspace, json)
    else:
        report_training(report, json, lambda: api.next_step(report.runs))


def _check_grid(grid_words: list[str], more: list[str], has_other_options: bool) -> None:
    """Rejects extra words without --grid, and options that do not go with --grid."""
    if more and not grid_words:
        each = " ".join(f"--set {word}" for word in more if "=" in word) or "--set KEY=VALUE"
        raise ConfigError(
            f"{' '.join(more)}: only --grid takes more words, to try each of several values: --grid {' '.join(more)}. "
            f"One value is set by {each}."
        )
    if grid_words and has_other_options:
        raise ConfigError(
            "--grid trains whole combinations, each once: leave --fold, --base, --again and --profile out."
        )


def _conclude_grid(report: Report, workspace: Path, json: bool) -> None:
    """The comparison of a grid's runs, the best one named."""
    from orchestrator import api
    from orchestrator.cli.comparison import print_comparison, trust_of_best
    from orchestrator.core.interval import VERDICTS

    complete = [run for run in report.runs if run.complete]
    if json or len(complete) < 2 or complete[0].plan is None:
        report_training(report, json)
        return
    comparison = api.compare([run.id for run in complete], workspace=workspace)
    print_comparison(comparison)
    best = max(comparison.runs, key=lambda compared: compared.scores.macro_f1)
    print_message(f"{duration_text(elapsed())} in all.")
    for (run_id, fold), reason in report.failures.items():
        print_error(f"{run_id} {'all' if fold is None else f'fold {fold}'}: {reason}")
    if not report.complete:
        print_message(UNFINISHED)
        raise typer.Exit(1)
    beside = "the first"
    if best.gain is not None:
        sign = "from" if best.gain.verdict == "noise" else "than"
        beside = f"{VERDICTS[best.gain.verdict]} {sign} the first; {trust_of_best(best.gain)}"
    print_message(f"best: {best.run.id} ({beside}).")
    print_message(api.next_step([best.run], of_experiment=True))

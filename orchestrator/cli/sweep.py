"""`orch sweep`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import elapsed, emit, grid, minutes, out, put, say, share
from orchestrator.cli.options import (
    ColumnsOption,
    DeviceOption,
    DistinctOption,
    ExtraOption,
    FoldsUsedOption,
    JobsOption,
    JsonOption,
    NoStoreOption,
    SeedOption,
    SetOption,
    TrackOption,
    ValidOnlyOption,
    WorkspaceOption,
    column_names,
)
from orchestrator.cli.train import listening
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS

if TYPE_CHECKING:
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.core.events import Listener
    from orchestrator.experiments.sweeps import Sweep
    from orchestrator.experiments.tuning import Stage
    from orchestrator.pipeline.settings import Settings
    from orchestrator.recipes.spaces import Space
    from orchestrator.specialist import Specialist

__all__ = ["sweep"]

SHOWN = 15  # trials


def sweep(
    task: Annotated[
        str, typer.Argument(help=f"The specialist: {', '.join(TASKS)}; or joint, one network for all three.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="A folder with train.csv and images/, or a manifest (.csv, .parquet)."),
    ] = None,
    workspace: WorkspaceOption = Path("runs"),
    space: Annotated[
        Path | None, typer.Option("--space", help="A .toml file of ranges and choices; see --print-space.")
    ] = None,
    stages: Annotated[
        str,
        typer.Option(
            "--stages", help="Tune in stages, as in model,loss,augment,lr,tta: each on the last one's winner."
        ),
    ] = "",
    trials: Annotated[
        int, typer.Option("--trials", min=1, max=10_000, help="Trials in all; with --stages: of each stage.")
    ] = 20,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0, help="After so many minutes no trial begins; no limit if left out."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", "-k", help="Folds of the plan; as the current runs, if left out.")
    ] = None,
    valid_only: ValidOnlyOption = False,
    folds_used: FoldsUsedOption = 0,
    recipe: Annotated[
        list[str], typer.Option("--recipe", "-r", help="NAME or FILE.toml; the current run's recipe, if left out.")
    ] = [],
    change: SetOption = [],
    small: Annotated[
        float, typer.Option("--small", min=0.3, max=1, help="With --stages: photos' size while searching, as a share.")
    ] = 0.75,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Train every trial to its end.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write the winner's recipe here, a .toml.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw every trial here, a .png.")] = None,
    print_space: Annotated[
        bool,
        typer.Option("--print-space", help="Print what is tried without --space, to start a file from; nothing else."),
    ] = False,
    jobs: JobsOption = 0,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    columns: ColumnsOption = [],
    no_store: NoStoreOption = False,
    extra: ExtraOption = [],
    distinct: DistinctOption = False,
    track: TrackOption = [],
    json: JsonOption = False,
) -> None:
    """Search for better settings of one specialist, or tune it stage by stage.

    Trials are drawn by Optuna, trained as runs and held against the recipe as it is; those that stay below the median of the
    others are given up early, their checkpoints kept. The same command goes on with a search that was stopped or killed, and with
    more --trials one that has ended. Needs Optuna (the extra `sweep`).

    \b
    Examples:
      orch sweep age --data people/train --folds-used 1 --trials 40 --minutes 60
      orch sweep age --data people/train --space space.toml --picture trials.png
      orch sweep age --data people/train --stages model,loss,lr --folds-used 1
      orch sweep age --print-space > space.toml
    """
    from orchestrator.recipes.spaces import DEFAULT, STAGES, read_space, read_stages

    if print_space:
        put((STAGES if stages else DEFAULT).removesuffix("\n"))
        return
    from orchestrator.core.outputs import Output, check_outputs
    from orchestrator.pipeline.retraining import base_run
    from orchestrator.pipeline.settings import Settings, check_early
    from orchestrator.recipes.load import choices_of
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialists import trainable

    specialist = trainable(task)
    if data is None:
        raise ConfigError("--data is missing: a folder with train.csv and images/, or a manifest.")
    if picture is not None and stages:
        raise ConfigError("--picture draws the trials of one search; leave it or --stages out.")
    outputs = [
        Output("--out", to, (".toml",)) if to else None,
        Output("--picture", picture, (".png",)) if picture else None,
    ]
    inputs = [data, *([space] if space else []), *map(Path, choices_of((task,), recipe)[0].values()), *extra]
    check_outputs(filter(None, outputs), inputs, workspace)
    settings = Settings(
        data, workspace, column_names(columns), recipe, change, folds, folds_used or int(valid_only), seed, None, jobs, device,
        not no_store, extra=extra, distinct=distinct,
    )  # fmt: skip
    before = base_run(workspace, task, None)
    check_early(settings, {task: specialist}, before)
    names = [word.strip() for word in stages.split(",") if word.strip()]
    spaces = read_stages(space, names) if stages else {"": read_space(space)}
    for one in spaces.values():
        one.check(specialist, recipe, change, Recipe.model_validate(before.recipe) if before else None)
    with listening(track, workspace) as listen:
        if stages:
            winner = _staged(settings, specialist, spaces, trials, minutes, small, not no_prune, listen, json)
        else:
            winner = _searched(settings, specialist, spaces[""], trials, minutes, not no_prune, listen, picture, json)
    if to is not None and winner is not None:
        _write(winner, to)


def _searched(
    settings: Settings, specialist: Specialist, space: Space, trials: int, minutes: float | None, prune: bool,
    listen: Listener, picture: Path | None, json: bool,
) -> RunRecord | None:  # fmt: skip
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.experiments.curves import draw_sweep
    from orchestrator.experiments.sweeps import sweep as search

    found = search(settings, specialist, space, listen, trials, minutes, prune)
    if picture is not None:
        draw_sweep(found, picture)
    if json:
        emit(found.as_dict())
    else:
        _print_sweep(found)
        if picture is not None:
            say(f"{picture}: every trial by its settings.")
    best = found.best
    better = best is not None and best.score is not None and best.score > found.reference_score
    return Workspace(settings.workspace).run(best.run) if best and best.run and better else found.reference


def _print_sweep(found: Sweep) -> None:
    """The best trials, what mattered, and whether the best one is more than luck."""
    from orchestrator.cli.comparison import next_step

    table = grid(
        f"{found.name}: {found.ended} of {found.asked} trials", "trial", "run", "macro F1", "state", "changes",
        keep=("macro F1", "changes", "run"), text=("changes", "state"),
    )  # fmt: skip
    table.add_row("-", found.reference.id, share(found.reference_score), "complete", "(the recipe as it is)")
    for one in found.ranked[:SHOWN]:
        score = share(one.score) if one.score is not None else ""
        state = one.state if one.state == "complete" else f"{one.state}: {one.why}".strip(": ")
        table.add_row(str(one.number), one.run or "-", score, state, " ".join(one.changes))
    out().print(table)
    if len(found.trials) > SHOWN:
        more = orch(
            "runs", "list", "--where", f"tag={found.name}", "--sort", "score", workspace=found.reference.folder.parent
        )
        say(f"and {len(found.trials) - SHOWN} more: {more}")
    if found.importance:
        told = ", ".join(f"{name} {100 * part:.0f} %" for name, part in found.importance.items() if part >= 0.005)
        say(f"what the differences come from: {told}.")
    say(f"{minutes(elapsed())} in all.")
    if found.out_of_time:
        say("The time was over; the same command goes on from here.")
    if found.comparison is None:
        winner = found.best
        if winner is None:
            say(_why_none(found))
        elif winner.run == found.reference.id:
            say(f"best: {winner.run}, the recipe as it is.")
        else:
            say(f"best: trial {winner.number} ({' '.join(winner.changes)}), whose run {winner.run} was deleted.")
        return
    best = found.comparison.runs[1]
    assert best.gain is not None  # the first of a comparison alone has none
    gain, span = best.gain
    if gain <= 0:
        say(
            f"no trial scores above the recipe as it is ({found.reference.id}). The best, {best.run.id}: {gain:+.4f} "
            f"({span.low:+.4f} to {span.high:+.4f})."
        )
        return
    verdict = {
        "better": "more than these people's chance. It is still the luckiest of several: train it with another --seed before "
        "trusting it.",
        "noise": "noise: other people could turn it around.",
    }[best.verdict]
    say(f"best: {best.run.id}, {gain:+.4f} over {found.reference.id} ({span.low:+.4f} to {span.high:+.4f}): {verdict}")
    say(next_step(best.run))


def _why_none(found: Sweep) -> str:
    """Why a search has no best trial."""
    if not found.ended:
        return "nothing was tried" + (": the time was over before a trial ended." if found.out_of_time else ".")
    counts = Counter(one.state for one in found.trials)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    return f"no trial is complete: {told}."


def _staged(
    settings: Settings, specialist: Specialist, stages: Mapping[str, Space], trials: int, minutes: float | None, small: float,
    prune: bool, listen: Listener, json: bool,
) -> RunRecord | None:  # fmt: skip
    from orchestrator.experiments.tuning import tune

    found = tune(settings, specialist, stages, listen, trials, minutes, small, prune)
    if json:
        emit([stage.as_dict() for stage in found])
    else:
        _print_stages(found)
    return found[-1].after


def _print_stages(found: list[Stage]) -> None:
    """Stage by stage: what was best, by how much, and whether the recipe moved."""
    from orchestrator.cli.comparison import next_step

    table = grid(
        "stage by stage", "stage", "from", "tried", "best", "gain", "95 % interval", "changes", "decision",
        keep=("decision", "gain", "changes", "best", "95 % interval"), text=("changes", "decision"),
    )  # fmt: skip
    for stage in found:
        gain, span, best = "", "", "-"
        if stage.best is not None and stage.best.gain is not None:
            value, interval = stage.best.gain
            gain, span = f"{value:+.4f}", f"{interval.low:+.4f} to {interval.high:+.4f}"
            best = stage.best.run.id
        decision = f"moves to {stage.after.id}" if stage.moved else "stays"
        if stage.best is not None:
            decision += f" ({stage.best.verdict}; log loss {stage.best.surer})"
        table.add_row(stage.name, stage.before.id, str(stage.tried), best, gain, span, " ".join(stage.words), decision)
    out().print(table)
    last = found[-1].after
    say(f"{minutes(elapsed())} in all.")
    if late := [stage.name for stage in found if stage.out_of_time]:
        begun = [stage.name for stage in found if stage.out_of_time and stage.tried]
        never = [name for name in late if name not in begun]
        told = [f"{', '.join(begun)} not tried to the end"] * bool(begun) + [f"{', '.join(never)} not begun"] * bool(
            never
        )
        say(f"The time was over: {'; '.join(told)}. The same command with more --minutes goes on.")
    tried = [stage.name for stage in found if stage.tried]
    if not tried:
        say("Nothing was tried" + ("." if late else ": what stands in the way is told above."))
        return
    if last.id == found[0].before.id:
        of = "" if len(tried) == len(found) else f" in {', '.join(tried)}"
        say(f"Nothing was better beyond noise: the recipe is as good as what was tried{of}, on these people.")
        return
    say(f"{last.id} is what tuning came to. Train it over all folds and with another --seed before trusting it.")
    say(next_step(last))


def _write(run: RunRecord, to: Path) -> None:
    from orchestrator.core.outputs import written
    from orchestrator.recipes.load import recipe_as_toml
    from orchestrator.recipes.schema import Recipe

    with written(to) as temporary:
        recipe = Recipe.model_validate({**run.recipe, "about": f"found by a search: {run.id}, from {run.recipe_name}"})
        temporary.write_text(recipe_as_toml(recipe), encoding="utf-8")
    say(f"{to}: the recipe of {run.id}.")

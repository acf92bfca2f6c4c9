"""`orch sweep`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import (
    duration_text,
    elapsed,
    grid,
    print_json,
    print_message,
    print_result,
    score_text,
    stdout_console,
)
from orchestrator.cli.options import (
    BaseRecipeOption,
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
    folds_trained,
    split_commas,
)
from orchestrator.cli.training import listening
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS

if TYPE_CHECKING:
    from orchestrator.experiments.sweeps import Sweep
    from orchestrator.experiments.tuning import TunedStage

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
            "--stages", help="Tune in stages, as in model,loss,augment,lr,tta: each from the previous winner."
        ),
    ] = "",
    trials: Annotated[
        int, typer.Option("--trials", min=1, max=10_000, help="Trials in all; with --stages: of each stage.")
    ] = 20,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0, help="Minutes after which no trial starts; no limit if left out."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", "-k", help="Folds of the plan; as the current runs, if left out.")
    ] = None,
    valid_only: ValidOnlyOption = False,
    folds_used: FoldsUsedOption = 0,
    recipe: BaseRecipeOption = [],
    change: SetOption = [],
    small: Annotated[
        float, typer.Option("--small", min=0.3, max=1, help="With --stages: photo size while searching, as a share.")
    ] = 0.75,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Train every trial to its end.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Write the winner's recipe here, a .toml.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw every trial here, a .png.")] = None,
    print_space: Annotated[
        bool,
        typer.Option("--print-space", help="Print the default space, to start a file from, and stop."),
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

    Trials are drawn by Optuna, trained as runs and compared with the recipe as it is; those that stay below the median
    of the others are pruned, their checkpoints kept. The same command resumes a search that was stopped or killed;
    with more --trials it extends one that has ended. Needs Optuna (the extra `sweep`).

    \b
    Examples:
      orch sweep age --data people/train --folds-used 1 --trials 40 --minutes 60
      orch sweep age --data people/train --space space.toml --picture trials.png
      orch sweep age --data people/train --stages model,loss,lr --folds-used 1
      orch sweep age --print-space > space.toml
    """
    from orchestrator import api

    if print_space:
        print_result(api.space_template(stages=bool(stages)).removesuffix("\n"))
        return
    from orchestrator.specialists import trainable

    trainable(task)
    if data is None:
        raise ConfigError("--data is missing: a folder with train.csv and images/, or a manifest.")
    if picture is not None and stages:
        raise ConfigError("--picture draws the trials of one search; leave it or --stages out.")
    settings = api.Settings(
        data, workspace, columns=column_names(columns), recipes=recipe, changes=change, folds=folds,
        folds_used=folds_trained(folds_used, valid_only), seed=seed, plan_seed=None, jobs=jobs, device=device,
        store=not no_store, extra=extra, distinct_people=distinct,
    )  # fmt: skip
    with listening(track, workspace) as listen:
        if stages:
            tuned = api.tune(
                task, settings, stages=split_commas(stages), space=space, trials=trials, minutes=minutes, small=small,
                prune=not no_prune, out=to, listen=listen,
            )  # fmt: skip
        else:
            search = api.search(
                task, settings, space=space, trials=trials, minutes=minutes, prune=not no_prune, out=to, picture=picture,
                listen=listen,
            )  # fmt: skip
    if json:
        print_json([stage.as_dict() for stage in tuned] if stages else search.as_dict())
    elif stages:
        _print_stages(tuned)
    else:
        _print_sweep(search)
    if picture is not None and not json:
        print_message(f"{picture}: every trial by its settings.")


def _print_sweep(search: Sweep) -> None:
    """The best trials, which settings mattered, and whether the best trial is more than luck."""
    from orchestrator import api
    from orchestrator.cli.comparison import trust_of_best
    from orchestrator.core.interval import VERDICTS

    table = grid(
        f"{search.name}: {search.ended} of {search.requested} trials", "trial", "run", "macro F1", "state", "changes",
        keep=("macro F1", "changes", "run"), text=("changes", "state"),
    )  # fmt: skip
    table.add_row("-", search.reference.id, score_text(search.reference_score), "complete", "(the recipe as it is)")
    for trial in search.ranked[:SHOWN]:
        score = score_text(trial.score) if trial.score is not None else ""
        state = trial.state if trial.state == "complete" else f"{trial.state}: {trial.why}".strip(": ")
        table.add_row(str(trial.number), trial.run or "-", score, state, " ".join(trial.changes))
    stdout_console().print(table)
    if len(search.trials) > SHOWN:
        more = orch("runs", "list", "--where", f"tag={search.name}", "--sort", "score", workspace=search.reference.root)
        print_message(f"and {len(search.trials) - SHOWN} more: {more}")
    if search.importance:
        shares = ", ".join(f"{name} {100 * part:.0f} %" for name, part in search.importance.items() if part >= 0.005)
        print_message(f"what the differences come from: {shares}.")
    print_message(f"{duration_text(elapsed())} in all.")
    if search.out_of_time:
        print_message("Time ran out; the same command goes on from here.")
    if search.comparison is None:
        winner = search.best
        if winner is None:
            print_message(_why_none(search))
        elif winner.run == search.reference.id:
            print_message(f"best: {winner.run}, the recipe as it is.")
        else:
            print_message(
                f"best: trial {winner.number} ({' '.join(winner.changes)}), whose run {winner.run} was deleted."
            )
        return
    best = search.comparison.runs[1]
    assert best.gain is not None  # the first of a comparison alone has none
    if best.gain.value <= 0:
        print_message(
            f"no trial scores above the recipe as it is ({search.reference.id}). The best, {best.run.id}: {best.gain}."
        )
        return
    over = f"{best.gain.value:+.4f} over {search.reference.id} ({best.gain.interval.signed()})"
    print_message(f"best: {best.run.id}, {over}: {VERDICTS[best.gain.verdict]}; {trust_of_best(best.gain)}.")
    print_message(api.next_step([best.run], of_experiment=True))


def _why_none(search: Sweep) -> str:
    """Why a search has no best trial."""
    if not search.ended:
        return "nothing was tried" + (": time ran out before a trial ended." if search.out_of_time else ".")
    counts = Counter(trial.state for trial in search.trials)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    return f"no trial is complete: {states}."


def _print_stages(stages: list[TunedStage]) -> None:
    """Stage by stage: what was best, by how much, and whether the recipe moved."""
    from orchestrator import api
    from orchestrator.core.interval import VERDICTS

    table = grid(
        "stage by stage", "stage", "from", "tried", "best", "gain", "95 % interval", "changes", "decision",
        keep=("decision", "gain", "changes", "best", "95 % interval"), text=("changes", "decision"),
    )  # fmt: skip
    for stage in stages:
        gain, span, best = "", "", "-"
        if stage.best is not None and stage.best.gain is not None:
            gain, span = f"{stage.best.gain.value:+.4f}", stage.best.gain.interval.signed()
            best = stage.best.run.id
        decision = f"moves to {stage.after.id}" if stage.moved else "stays"
        if stage.best is not None:
            verdicts = [
                VERDICTS[verdict]
                for verdict in (stage.best.verdict, stage.best.log_loss_verdict)
                if verdict is not None
            ]
            decision += f" ({'; log loss '.join(verdicts)})"
        table.add_row(
            stage.name, stage.before.id, str(stage.tried), best, gain, span, " ".join(stage.changes), decision
        )
    stdout_console().print(table)
    last = stages[-1].after
    print_message(f"{duration_text(elapsed())} in all.")
    if late := [stage.name for stage in stages if stage.out_of_time]:
        unfinished = [stage.name for stage in stages if stage.out_of_time and stage.tried]
        never = [name for name in late if name not in unfinished]
        parts = [f"{', '.join(unfinished)} not tried to the end"] * bool(unfinished) + [
            f"no trial of {', '.join(never)} ended"
        ] * bool(never)
        print_message(f"Time ran out: {'; '.join(parts)}. The same command with more --minutes goes on.")
    tried = [stage.name for stage in stages if stage.tried]
    if not tried:
        print_message("Nothing was tried" + ("." if late else ": the reasons are above."))
        return
    if last.id == stages[0].before.id:
        of = "" if len(tried) == len(stages) else f" in {', '.join(tried)}"
        print_message(f"Nothing was clearly better: the recipe is as good as what was tried{of}, on these people.")
        return
    print_message(
        f"{last.id} is the result of tuning. Train it over all folds and with another --seed before trusting it."
    )
    print_message(api.next_step([last], of_experiment=True))

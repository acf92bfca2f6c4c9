"""`orch runs list | show | use`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.console import emit, grid, out, say, share
from orchestrator.cli.options import JsonOption, WorkspaceOption

if TYPE_CHECKING:
    from orchestrator.records.run import RunRecord

__all__ = ["app", "cards_of", "profile_of", "run_as_dict", "scores_of"]

app = typer.Typer(no_args_is_help=True, help="What was trained: list, show, choose.", rich_markup_mode="rich")


def cards_of(run: RunRecord) -> list[dict[str, Any]]:
    """The cards of the run's complete members."""
    from orchestrator.training.checkpoints import CARD, read_card

    return [read_card(folder) for folder in run.members if (folder / CARD).is_file()]


def scores_of(run: RunRecord) -> list[float]:
    """The held-out macro F1 of each complete member that has one."""
    return [card["scores"]["macro_f1"] for card in cards_of(run) if card["scores"]]


def profile_of(run: RunRecord) -> dict[str, float]:
    """Seconds by stage over the members' histories; empty for a run without --profile."""
    from orchestrator.data.files import read_json
    from orchestrator.training.checkpoints import HISTORY

    found: dict[str, float] = {}
    for folder in run.members:
        if (folder / HISTORY).is_file():
            for entry in read_json(folder / HISTORY):
                stages = entry.get("stages", {})
                rest = {"rest": entry["seconds"] - sum(stages.values())} if stages else {}
                for stage, seconds in (stages | rest).items():
                    found[stage] = found.get(stage, 0.0) + max(0.0, seconds)
    return found


def run_as_dict(run: RunRecord) -> dict[str, Any]:
    """For JSON: the record and its members' cards in short."""
    members = [
        {
            "fold": card["fold"], "folder": str(run.member(card["fold"])), "epochs": card["epochs"],
            "best_epoch": card["best_epoch"], "seconds": card["seconds"], "sha256": card["sha256"], **card["scores"],
        }
        for card in cards_of(run)
    ]  # fmt: skip
    value = {key: item for key, item in vars(run).items() if key != "folder"}
    return {**value, "folder": str(run.folder), "covers": run.covers, "members": members}


@app.command("list")
def list_runs(workspace: WorkspaceOption = Path("runs"), json: JsonOption = False) -> None:
    """List the workspace's runs, the current one of each specialist marked.

    \b
    Examples:
      orch runs list
      orch runs list --json
    """
    from orchestrator.records.workspace import Workspace

    place = Workspace(workspace)
    runs = place.runs()
    current = {run.task: place.current(run.task) for run in runs}
    if json:
        emit([{**run_as_dict(run), "current": current[run.task] == run.id} for run in runs])
        return
    table = grid("", "run", "recipe", "backbone", "seed", "folds", "plan", "mean macro F1", "state", "created")
    for run in runs:
        scores = scores_of(run)
        mean = share(sum(scores) / len(scores)) if scores else "-"
        folds = "all photos" if run.plan is None else f"{len(run.folds)} of {run.plan['k']}"
        state = "current" if current[run.task] == run.id else run.status
        recipe, when = recipe_of(run), run.created[:16].replace("T", " ")
        plan = run.plan["digest"][:6] if run.plan else "-"
        table.add_row(run.id, recipe, run.recipe["backbone"], str(run.seed), folds, plan, mean, state, when)
    out().print(table)
    if not runs:
        say("no runs yet: `orch train-all --data DIR` trains some.")


def recipe_of(run: RunRecord) -> str:
    """The recipe's name, and how many `--set` words changed it."""
    return run.recipe_name + (f" +{len(run.changes)}" if run.changes else "")


@app.command("use")
def use_run(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Make a complete run its specialist's current one: back to an earlier run, say.

    \b
    Examples:
      orch runs use age-0001
    """
    from orchestrator.errors import WorkspaceError
    from orchestrator.records.workspace import Workspace

    place = Workspace(workspace)
    record = place.run(run)
    if not record.complete:
        raise WorkspaceError(f"{run} is unfinished: run its training command again to complete it.")
    before = place.current(record.task)
    place.set_current(record.task, record.id)
    say(f"{record.id} is now the current {record.task} run" + (f" (was {before})." if before else "."))


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Show everything on record about a run: recipe, data, plan, members, machine.

    \b
    Examples:
      orch runs show age-0001
    """
    from orchestrator.records.workspace import Workspace

    record = Workspace(workspace).run(run)
    if json:
        emit(run_as_dict(record))
        return
    facts = grid(f"{record.id}: the {record.task} specialist, {record.status}", "", " ")
    facts.columns[1].justify = "left"
    plan = "none: trained on everything"
    if record.plan:
        plan = f"{record.plan['digest'][:12]}, {record.plan['k']} folds, seed {record.plan['seed']}"
    machine, versions = record.environment["hardware"], record.environment["versions"]
    for name, value in {
        "created": record.created,
        "recipe": f"{record.recipe_name} {' '.join(record.changes)} (seed {record.seed})",
        "settings": "  ".join(
            f"{key}={value}" for key, value in record.recipe.items() if key not in ("about", "augment")
        ),
        "augment": "  ".join(f"{key}={value}" for key, value in record.recipe["augment"].items() if value) or "nothing",
        "initial weights": f"{record.initial_weights['source']} {record.initial_weights['sha256'][:12]}",
        "data": f"{record.data['source']}: {record.data['photos']:,} photos of {record.data['people']:,} people, "
        f"fingerprint {record.data['fingerprint'][:12]}",
        "fold plan": plan,
        "held out": record.covers,
        "shared with": f"{record.parent} (retrained here: fold {', '.join(map(str, record.retrained))})"
        if record.parent
        else "-",
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine.get('gpu', 'no GPU')}; "
        f"{record.threads} threads a member",
        "versions": "  ".join(f"{name} {version}" for name, version in versions.items()),
        "git": record.environment["git"] or "-",
        "wall time": f"{record.seconds / 60:.1f} minutes",
        "folder": str(record.folder),
    }.items():
        facts.add_row(name, value)
    out().print(facts)
    members = grid(
        "members, each on the people it did not see",
        "fold",
        "photos",
        "epochs",
        "best",
        "accuracy",
        "macro F1",
        "minutes",
    )
    for card in cards_of(record):
        scores = card["scores"]
        members.add_row(
            "all" if card["fold"] is None else str(card["fold"]), f"{card['held_out']['photos']:,}", str(card["epochs"]),
            str(card["best_epoch"]), share(scores.get("accuracy", float("nan"))), share(scores.get("macro_f1", float("nan"))),
            f"{card['seconds'] / 60:.1f}",
        )  # fmt: skip
    out().print(members)

"""`orch runs list | show | use | note | compare | track | delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import grid, print_json, print_message, score_text, stdout_console
from orchestrator.cli.listing import asked_to_delete, print_list, recipe_of, report_damaged
from orchestrator.cli.options import JsonOption, WorkspaceOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import quantity

if TYPE_CHECKING:
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.run import RunRecord

__all__ = ["app"]


app = typer.Typer(no_args_is_help=True, help="Runs: list, show, compare, choose, delete.", rich_markup_mode="rich")


@app.command("list")
def list_runs(
    workspace: WorkspaceOption = Path("runs"),
    where: Annotated[
        str,
        typer.Option(
            "--where", help="Only runs that meet all conditions: KEY=VALUE, with = != < <= > >= or ~ (contains)."
        ),
    ] = "",
    sort: Annotated[str, typer.Option("--sort", help="By any key; score: the best first. -KEY: in reverse.")] = "",
    json: JsonOption = False,
) -> None:
    """List the workspace's runs, the current one of each specialist marked.

    Keys are the settings of recipes (loss, lr, augment.flip ...) and run, task, recipe, status, current, score, seed, members, k,
    plan, data, extra, created, minutes, device, parent, tag, note, and person: whom a run has learned from.

    \b
    Examples:
      orch runs list
      orch runs list --where 'task=age loss=focal score>0.6' --sort score
      orch runs list --where 'tag=grid augment.flip!=0' --json
      orch runs list --where person=000123      # who learned from somebody who asks to be forgotten
    """
    from orchestrator import api

    listing = api.list_runs(where=where, sort=sort, workspace=workspace)
    if json:
        print_json([listed.as_dict() for listed in listing.runs])
    else:
        print_list(listing)
        if not listing.total and not listing.damaged:
            print_message(f"no runs yet: `{orch('train-all', '--data', 'DIR', workspace=workspace)}` trains some.")
        elif not listing.runs and listing.total:
            print_message(f"none of {listing.total} runs meets the conditions.")
            if "person" in listing.keys:
                print_message("Runs without a fold plan keep no list of people.")
        if listing.runs and "person" in listing.keys:
            _print_users({listed.run.id for listed in listing.runs}, workspace)
    report_damaged(listing.damaged)


def _print_users(runs: set[str], workspace: Path) -> None:
    """Names the ensembles that answer with some runs."""
    from orchestrator import api

    listing = api.list_ensembles(workspace=workspace)
    users = [listed.record.id for listed in listing.ensembles if runs & set(listed.record.run_ids)]
    print_message(f"ensembles that answer with these runs: {', '.join(users) or 'none'}.")


@app.command("use")
def use_run(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Make a complete run its specialist's current one, for example to go back to an earlier run.

    \b
    Examples:
      orch runs use age-0001
    """
    from orchestrator import api

    api.use_run(run, workspace=workspace)


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
    from orchestrator import api

    details = api.run_details(run, workspace=workspace)
    if json:
        print_json(details.as_dict())
    else:
        facts = grid(f"{run}: the {details.run.task} specialist, {details.state}", "", "value", essential=("value",))
        for name, value in _facts(details.run, details.notes).items():
            facts.add_row(name, value)
        stdout_console().print(facts)
        _print_members(details.run)
    report_damaged(details.damaged)


def _facts(record: RunRecord, notes: Annotations) -> dict[str, str]:
    """What a run was made from, how, and on which machine, in words."""
    from orchestrator.artifacts.differences import format_value

    data, environment = record.data, record.environment
    machine, extra = environment.hardware, data.extra
    settings, augment = list[str](), list[str]()
    for key in record.chosen:
        table, _, name = key.rpartition(".")
        (augment if table else settings).append(f"{name}={format_value(record.setting(key))}")
    plan = "none: trained on everything"
    if record.plan:
        plan = f"{record.plan.digest[:12]}, {record.plan.k} folds, seed {record.plan.seed}"
    shared = "-"
    if record.parent:
        retrained = f"retrained here: fold {', '.join(map(str, record.retrained))}"
        shared = f"{record.parent} ({'all, with other views' if record.derived else retrained})"
    facts = {
        "created": record.created,
        "note": notes.note,
        "tags": " ".join(notes.tags),
        "recipe": " ".join([recipe_of(record), *record.changes]),
        "seed": ", ".join(map(str, record.seeds)),
        "settings": "  ".join(settings),
        "augment": "  ".join(augment) or "nothing",
        "": "settings that are not named are at their defaults; --json gives all.",
        "initial weights": f"{record.initial_weights.source} {record.initial_weights.sha256[:12]}",
        "data": f"{data.source}: {data.photos:,} photos of {data.people:,} people, fingerprint {data.fingerprint[:12]}",
        "extra photos": f"{extra.photos:,}, of {', '.join(extra.sources)}; fingerprint {extra.fingerprint[:12]}"
        if extra
        else "",
        "fold plan": plan,
        "held out": record.covers,
        "shared with": shared,
        "machine": f"{machine.processor}, {quantity(machine.cores, 'core')}, {machine.gpu or 'no GPU'}; "
        f"{quantity(record.threads, 'thread')} a member",
        "versions": "  ".join(f"{name} {version}" for name, version in environment.versions.items()),
        "git": environment.git or "-",
        "training": f"{record.seconds / 60:.1f} minutes, its own members added up",
        "folder": str(record.folder),
    }
    return {name: value for name, value in facts.items() if value or name not in ("note", "tags", "extra photos")}


def _print_members(record: RunRecord) -> None:
    """Each member's scores on the people whom it did not see."""
    from orchestrator.artifacts.summary import cards_of

    title, *columns = (
        "members, each on the people it did not see", "fold", "photos", "epochs", "best", "accuracy", "macro F1", "minutes",
    )  # fmt: skip
    members = grid(title, *columns)
    for card in cards_of(record):
        scores = card.scores
        members.add_row(
            "all" if card.fold is None else str(card.fold), f"{card.held_out.photos:,}", str(card.epochs),
            str(card.best_epoch), score_text(scores.accuracy if scores else float("nan")),
            score_text(scores.macro_f1 if scores else float("nan")), f"{card.seconds / 60:.1f}",
        )  # fmt: skip
    stdout_console().print(members)


@app.command("note")
def note_run(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    text: Annotated[str | None, typer.Argument(help="The note; replaces an earlier one.")] = None,
    tag: Annotated[list[str], typer.Option("--tag", help="Add a tag: one word.")] = [],
    untag: Annotated[list[str], typer.Option("--untag", help="Remove a tag.")] = [],
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Add a note to a run, and tags that `orch runs list --where tag=WORD` finds.

    \b
    Examples:
      orch runs note age-0003 "border 58, as the winners had it"
      orch runs note age-0003 --tag border --untag try
    """
    from orchestrator import api

    notes = api.annotate_run(run, note=text, tags=tag, untags=untag, workspace=workspace)
    print_message(f"{run}: {notes.note or 'no note'}; tags: {' '.join(notes.tags) or 'none'}.")


@app.command("compare")
def compare(
    run: Annotated[list[str], typer.Argument(help="Two runs or more; the others are compared with the first.")],
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw learning curves and gains here, a .png.")
    ] = None,
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Compare runs of one specialist: how settings and scores differ, per class, with an interval over people.

    All are scored on the photos that every one of them has held out, by macro F1 and by log loss (lower is better),
    which shows smaller differences. `no clear difference` (`noise` in JSON) means that other people could reverse the
    difference; a clear one may still come from the seed: train the winner with another --seed before trusting it.

    \b
    Examples:
      orch runs compare age-0001 age-0002
      orch runs compare age-0001 age-0002 age-0005 --picture curves.png
    """
    from orchestrator import api
    from orchestrator.cli.comparison import print_comparison

    comparison = api.compare(run, workspace=workspace, picture=picture)
    if json:
        print_json(comparison.as_dict())
        return
    print_comparison(comparison)
    if picture is not None:
        print_message(f"{picture}: learning curves and gains.")


@app.command("track")
def track_runs(
    run: Annotated[list[str], typer.Argument(help="Ids of runs, as in age-0003.")],
    to: Annotated[
        list[str], typer.Option("--to", help="tensorboard, mlflow or wandb, in the workspace; KIND=PLACE elsewhere.")
    ],
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Send trained runs to a tracker; what was sent before is not sent again.

    \b
    Examples:
      orch runs track age-0001 age-0002 --to tensorboard
      orch runs track age-0001 --to mlflow=http://localhost:5000
    """
    from orchestrator import api

    api.track_runs(run, to=to, workspace=workspace)


@app.command("delete")
def delete_runs(
    run: Annotated[list[str], typer.Argument(help="Ids of runs, as in age-0003.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: WorkspaceOption = Path("runs"),
) -> None:
    """Delete runs for good; what an ensemble uses is refused. Their ids are never given out again.

    \b
    Examples:
      orch runs delete age-0003 age-0004
      orch runs list --where tag=grid --json | ...
    """
    from orchestrator import api

    api.delete_runs(run, workspace=workspace, confirm=asked_to_delete(yes))

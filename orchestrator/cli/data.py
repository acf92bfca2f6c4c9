"""`orch data check | alike | diff | describe | faces | folds | synth`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.artifacts.differences import format_value
from orchestrator.cli.bars import bars
from orchestrator.cli.console import grid, print_json, print_message, print_result, stdout_console
from orchestrator.cli.options import (  # fmt: skip
    MOST_PEOPLE,
    ColumnsOption,
    DataOption,
    DistinctOption,
    FoldsOption,
    JsonOption,
    PlanSeedOption,
    TasksOption,
    WorkspaceOption,
    column_names,
    split_commas,
)
from orchestrator.core.commands import display_path, orch
from orchestrator.core.errors import Problem, quantity
from orchestrator.core.labels import TASKS

__all__ = ["app"]

SHOWN_ALIKE = 3
SHOWN_NOTES = 20
SHOWN_PAIRS = 30
SHOWN_CHANGES = 10

app = typer.Typer(
    no_args_is_help=True,
    help="Photos and their tables: check, find copies, compare, describe, find faces, split, synthesise.",
    rich_markup_mode="rich",
)


@app.command("check")
def check_data(
    data: DataOption,
    columns: ColumnsOption = [],
    tasks: TasksOption = ",".join(TASKS),
    folds: FoldsOption = 5,
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Find everything that is wrong with photos and table, all at once; exit code 0 when training may start.

    \b
    Examples:
      orch data check --data people/train
      orch data check --data manifest.csv --tasks gender --folds 3
      orch data check --data manifest.csv --columns person=subject --json
    """
    from orchestrator import api

    with bars() as listen:
        findings = api.check_data(
            data,
            tasks=split_commas(tasks),
            folds=folds,
            columns=column_names(columns),
            distinct_people=distinct,
            listen=listen,
        )
    fatal = len(findings.fatal)
    people = int(findings.photos.table["person"].nunique()) if len(findings.photos) else 0
    if json:
        print_json(
            {
                "may_train": not fatal, "photos": len(findings.photos), "people": people, "opened": findings.opened,
                "fatal": fatal, "notes": len(findings.problems) - fatal,
                "problems": [problem.as_dict() for problem in findings.problems],
            }
        )  # fmt: skip
    else:
        _print_problems(findings.problems)
        notes = len(findings.problems) - fatal
        print_result(
            f"{len(findings.photos):,} photos of {people:,} people, {quantity(findings.opened, 'file')} opened: "
            f"{quantity(fatal, 'error')}, {quantity(notes, 'note')}. Training may {'not ' if fatal else ''}start."
        )
    raise typer.Exit(1 if fatal else 0)


def _print_problems(problems: list[Problem]) -> None:
    """Prints every error, equal ones grouped, and the first twenty notes of each kind."""
    notes: dict[str, int] = {}
    alike: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        if problem.fatal:
            alike.setdefault((problem.what, problem.fix), []).append(problem)
    for same in alike.values():
        for problem in same[:SHOWN_ALIKE]:
            print_result(str(problem), "error", 31)
        if len(same) > SHOWN_ALIKE:
            print_result(
                f"... and {len(same) - SHOWN_ALIKE:,} more places: {same[0].what} --json lists all.", "error", 31
            )
    for problem in problems:
        if problem.fatal:
            continue
        notes[problem.kind] = notes.get(problem.kind, 0) + 1
        if notes[problem.kind] <= SHOWN_NOTES:
            print_result(str(problem), "note ", 33)
    for kind, count in notes.items():
        if count > SHOWN_NOTES:
            omitted = f"... and {count - SHOWN_NOTES:,} more of the kind '{kind}'; --json lists all."
            print_result(omitted, "note ", 33)


@app.command("alike")
def alike_photos(
    data: DataOption,
    bits: Annotated[
        int, typer.Option("--bits", help="In how many of 64 bits hashes may differ; more than 2 finds strangers.")
    ] = 2,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="Another source, as the training's: only pairs between the two count."),
    ] = None,
    folds: Annotated[
        int,
        typer.Option("--folds", "-k", help="Say which pairs the folds of a plan divide; 0: nothing is said of folds."),
    ] = 0,
    plan_seed: PlanSeedOption = 0,
    picture: Annotated[Path | None, typer.Option("--picture", help="A .png of the most similar pairs.")] = None,
    columns: ColumnsOption = [],
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Find photos of different people that look the same: they leak across folds, and make any score too good.

    Equal files are found by `orch data check`; these were saved again, smaller or more compressed. Give such people one key, or
    leave a copy out. Exit code 1 where there are pairs.

    \b
    Examples:
      orch data alike --data people/train --picture pairs.png
      orch data alike --data people/train --folds 5
      orch data alike --data HELDOUT --against people/train
      orch data alike --data faces.csv --bits 4 --json
    """
    from orchestrator import api

    with bars() as listen:
        alike = api.find_alike(
            data, bits=bits, against=against, folds=folds, plan_seed=plan_seed, columns=column_names(columns),
            distinct_people=distinct, picture=picture, listen=listen,
        )  # fmt: skip
    if json:
        print_json(alike.as_dict())
        raise typer.Exit(1 if alike.pairs else 0)
    if alike.pairs:
        headings = ["photo", "looks like", "bits", "people", *(["folds"] if alike.folds is not None else [])]
        table = grid("", *headings, keep=("looks like", "bits"), text=("people",))
        table.columns[1].justify = "left"
        for pair in alike.pairs[:SHOWN_PAIRS]:
            both = (pair.first, pair.second)
            folds_of_pair = [] if alike.folds is None else [" and ".join(str(alike.folds[number]) for number in both)]
            table.add_row(
                *(display_path(alike.paths[number]) for number in both), str(pair.bits),
                ", ".join(alike.persons[number] for number in both), *folds_of_pair,
            )  # fmt: skip
        stdout_console().print(table)
        if len(alike.pairs) > SHOWN_PAIRS:
            print_message(f"... and {len(alike.pairs) - SHOWN_PAIRS:,} more pairs: --json lists all.")
    between = "of photos of different people" if against is None else "of photos, one of each source,"
    divided = "" if alike.across is None else f", {alike.across:,} of them across folds"
    print_result(f"{quantity(len(alike.pairs), 'pair')} {between} look the same{divided}.")
    if alike.pairs:
        print_message("Give both people one key where they are one person, or leave the copy out.")
    if picture is not None:
        print_message(f"{picture}: the most similar pairs.")
    raise typer.Exit(1 if alike.pairs else 0)


@app.command("diff")
def diff_data(
    old: Annotated[Path, typer.Argument(help="A folder with train.csv and images/, or a manifest: as it was.")],
    new: Annotated[Path, typer.Argument(help="The same, as it is now.")],
    columns: ColumnsOption = [],
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Show what changed between two states of the data: people and photos that came or went, corrected labels, moved files.

    Photos are recognised by their content, whatever they are called. Exit code 0 whether anything changed or not.

    \b
    Examples:
      orch data diff people/train newer/train
      orch data diff faces-march.csv faces-april.csv --json
    """
    from orchestrator import api

    with bars() as listen:
        changes = api.data_changes(old, new, columns=column_names(columns), distinct_people=distinct, listen=listen)
    if json:
        print_json(changes.as_dict())
        return
    facts = Counter(
        f"{change.person}: {change.column} {_plain(change.before)} -> {_plain(change.after)}"
        for change in changes.relabelled
    )
    relabelled = [f"{fact} ({quantity(photos, 'photo')})" for fact, photos in facts.items()]
    for noun, what, items in (
        ("person", "added", changes.people_added), ("person", "gone", changes.people_gone),
        ("photo", "added", changes.photos_added), ("photo", "gone", changes.photos_gone),
        ("photo", "with other content", changes.rewritten),
        ("photo", "moved", [f"{before} -> {after}" for before, after in changes.moved]), ("value", "changed", relabelled),
    ):  # fmt: skip
        if items:
            counted = f"{len(items):,} people" if noun == "person" and len(items) > 1 else quantity(len(items), noun)
            print_result(f"{counted} {what}:")
            for item in items[:SHOWN_CHANGES]:
                print_result(f"  {item}")
            if len(items) > SHOWN_CHANGES:
                print_message(f"  ... and {len(items) - SHOWN_CHANGES:,} more: --json lists all.")
    unchanged = quantity(changes.same, "photo")
    print_result(f"{unchanged} unchanged." if changes.any else f"nothing changed in {unchanged}.")


def _plain(value: str | float | None) -> str:
    """A value as people write it: an age without its decimals."""
    return f"{value:g}" if isinstance(value, float) else format_value(value)


@app.command("describe")
def describe_data(
    data: DataOption,
    picture: Annotated[Path | None, typer.Option("--out", "-o", help="Write the picture here, a .png.")] = None,
    columns: ColumnsOption = [],
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Count people and photos by class and joint class, ages and image sizes; as tables and as a picture.

    \b
    Examples:
      orch data describe --data people/train --out people.png
    """
    from orchestrator import api

    with bars() as listen:
        description = api.describe_data(
            data, picture=picture, columns=column_names(columns), distinct_people=distinct, listen=listen
        )
    if json:
        print_json(description.as_dict())
        return
    console = stdout_console()
    print_result(f"{description.photos:,} photos of {description.people:,} people ({data})")
    for title, frame in description.tables.items():
        table = grid(title, *(str(column) for column in frame.columns))
        for row in frame.itertuples(index=False):
            table.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
        console.print(table)


@app.command("faces")
def find_faces(
    data: DataOption,
    workspace: WorkspaceOption = Path("runs"),
    picture: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write photos with their boxes here, a .png.")
    ] = None,
    columns: ColumnsOption = [],
    json: JsonOption = False,
) -> None:
    """Find the face in every photo, as recipes with `face` above 0 do, and list the photos in which none is found.

    Boxes are kept in the workspace, where training finds them.

    \b
    Examples:
      orch data faces --data people/train --out faces.png
      orch data faces --data people/train --json
    """
    from orchestrator import api

    with bars() as listen:
        faces = api.find_faces(data, workspace=workspace, picture=picture, columns=column_names(columns), listen=listen)
    if json:
        print_json(faces.as_dict())
        return
    for path in faces.without[:SHOWN_NOTES]:
        print_result(f"no face  {path}")
    if len(faces.without) > SHOWN_NOTES:
        print_result(f"... and {len(faces.without) - SHOWN_NOTES:,} more; --json lists all.")
    if faces.by_mask:
        words = ", ".join(f"{mask} {with_face:,} of {photos:,}" for mask, (with_face, photos) in faces.by_mask.items())
        print_result(f"By mask: {words}.")
    print_result(f"{faces.detector} found a face in {faces.found:,} of {len(faces.photos):,} photos.")


@app.command("folds")
def show_folds(
    data: DataOption,
    folds: FoldsOption = 5,
    plan_seed: PlanSeedOption = 0,
    workspace: WorkspaceOption = Path("runs"),
    columns: ColumnsOption = [],
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Show the fold plan that training would use: people and photos of each fold by class.

    People who have a fold in the workspace keep it, and new people are dealt out, as in training.

    \b
    Examples:
      orch data folds --data people/train --folds 5
    """
    from orchestrator import api

    planned = api.plan_folds(
        data,
        folds=folds,
        seed=plan_seed,
        workspace=workspace,
        columns=column_names(columns),
        distinct_people=distinct,
    )
    if json:
        print_json(planned.as_dict())
        return
    if planned.about:
        print_message(planned.about)
    frame = planned.table
    table = grid(f"fold plan {planned.plan.digest[:12]}: people of each class", *map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    stdout_console().print(table)


@app.command("synth")
def synthesise(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    people: Annotated[
        int, typer.Option("--people", "-n", min=6, max=MOST_PEOPLE, help="People to train on, seven photos each.")
    ] = 120,
    eval_people: Annotated[
        int, typer.Option("--eval-people", min=0, max=MOST_PEOPLE, help="Other people, without labels.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed draws the same people.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes that draw; 0: one per core.")] = 0,
) -> None:
    """Draw synthetic people in the contest's own layout: no data, no download, no real person.

    \b
    Examples:
      orch data synth people
      orch data synth people --people 600 --eval-people 100 --seed 7
    """
    from orchestrator import api

    with bars() as listen:
        drawn = api.synthesise(folder, people=people, eval_people=eval_people, seed=seed, jobs=jobs, listen=listen)
    print_message(f"{drawn.train}: {people} people, {7 * people} photos.")
    if eval_people:
        print_message(
            f"{folder / 'eval'}: {eval_people} other people, {7 * eval_people} photos; truth.csv has their labels."
        )
    most = drawn.most_folds
    folds = ["--folds", most if most > 1 else 0] if most < 5 else []  # 5 is what train-all takes by itself; 0: no plan
    print_message(f"next: {orch('train-all', '--data', display_path(drawn.train), *folds)}")

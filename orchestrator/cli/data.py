"""`orch data check | describe | faces | folds | synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, put, say
from orchestrator.cli.options import (  # fmt: skip
    ColumnsOption,
    DataOption,
    DistinctOption,
    FoldsOption,
    JsonOption,
    PlanSeedOption,
    TasksOption,
    WorkspaceOption,
    column_names,
    words_of,
)
from orchestrator.core.commands import orch, shown
from orchestrator.core.cores import cores
from orchestrator.core.errors import ConfigError, Problem, counted
from orchestrator.core.extras import require
from orchestrator.core.labels import TASKS

__all__ = ["app"]

SHOWN_ALIKE = 3
SHOWN_NOTES = 20

app = typer.Typer(
    no_args_is_help=True,
    help="Photos and their tables: check, describe, find faces, split, synthesise.",
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
    from orchestrator.data.readers import check_source

    check_source(data)
    from orchestrator.data.check import check
    from orchestrator.specialists import chosen

    needs = {task: specialist.columns for task, specialist in chosen(words_of(tasks)).items()}
    with counting("opening photos") as progress:
        findings = check(data, column_names(columns), needs, folds, progress, distinct=distinct)
    fatal = len(findings.fatal)
    people = int(findings.photos.table["person"].nunique()) if len(findings.photos) else 0
    if json:
        emit(
            {
                "may_train": not fatal, "photos": len(findings.photos), "people": people, "opened": findings.opened,
                "fatal": fatal, "notes": len(findings.problems) - fatal,
                "problems": [problem.as_dict() for problem in findings.problems],
            }
        )  # fmt: skip
    else:
        _print_problems(findings.problems)
        notes = len(findings.problems) - fatal
        put(
            f"{len(findings.photos):,} photos of {people:,} people, {counted(findings.opened, 'file')} opened: "
            f"{counted(fatal, 'error')}, {counted(notes, 'note')}. Training may {'not ' if fatal else ''}start."
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
            put(str(problem), "error", 31)
        if len(same) > SHOWN_ALIKE:
            put(f"... and {len(same) - SHOWN_ALIKE:,} more places: {same[0].what} --json lists all.", "error", 31)
    for problem in problems:
        if problem.fatal:
            continue
        notes[problem.kind] = notes.get(problem.kind, 0) + 1
        if notes[problem.kind] <= SHOWN_NOTES:
            put(str(problem), "note ", 33)
    for kind, count in notes.items():
        if count > SHOWN_NOTES:
            omitted = f"... and {count - SHOWN_NOTES:,} more of the kind '{kind}'; --json lists all."
            put(omitted, "note ", 33)


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
    from orchestrator.core.outputs import Output, check_outputs
    from orchestrator.data.readers import read

    outputs = [Output("--out", picture, (".png",))] if picture is not None else []
    check_outputs(outputs)
    photos = read(data, column_names(columns), distinct)
    check_outputs(outputs, [data, *photos.paths])
    from orchestrator.data.describe import describe

    with counting("reading sizes") as progress:
        description = describe(photos, progress)
    if picture is not None:
        from orchestrator.pictures import draw_people

        draw_people(description, picture)
        say(f"picture: {picture}")
    if json:
        emit(description.as_dict())
        return
    console = out()
    put(f"{description.photos:,} photos of {description.people:,} people ({data})")
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
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.core.outputs import Output, check_outputs
    from orchestrator.data.readers import read

    require("finding faces", "face")
    outputs = [Output("--out", picture, (".png",))] if picture is not None else []
    check_outputs(outputs, workspace=workspace)
    photos = read(data, column_names(columns), distinct=True)  # makes no difference here
    check_outputs(outputs, [data, *photos.paths])
    from orchestrator.data.preprocessing import DETECTOR
    from orchestrator.faces.boxes import find_boxes
    from orchestrator.pictures import draw_faces

    place = Workspace(workspace, create=True)
    with counting("looking for faces") as progress:
        boxes = find_boxes(place.faces, photos.paths, photos.content(place.hashes()), cores(), progress)
    found = [box is not None for box in boxes]
    if picture is not None:
        draw_faces(photos.paths, boxes, picture)
        say(f"picture: {picture}")
    if json:
        each = [{"path": path, "box": box} for path, box in zip(photos.table["path"], boxes, strict=True)]
        emit({"detector": DETECTOR, "photos": len(photos), "found": sum(found), "boxes": each})
        return
    without = [path for path, box in zip(photos.table["path"], boxes, strict=True) if box is None]
    for path in without[:SHOWN_NOTES]:
        put(f"no face  {path}")
    if len(without) > SHOWN_NOTES:
        put(f"... and {len(without) - SHOWN_NOTES:,} more; --json lists all.")
    if "mask" in photos.table:
        by_mask = photos.table["mask"].to_frame().assign(found=found).groupby("mask")["found"].agg(["sum", "size"])
        words = ", ".join(f"{mask} {row['sum']:,} of {row['size']:,}" for mask, row in by_mask.iterrows())
        put(f"By mask: {words}.")
    put(f"{DETECTOR} found a face in {sum(found):,} of {len(photos):,} photos.")


@app.command("folds")
def show_folds(
    data: DataOption,
    folds: FoldsOption = 5,
    plan_seed: PlanSeedOption = 0,
    columns: ColumnsOption = [],
    distinct: DistinctOption = False,
    json: JsonOption = False,
) -> None:
    """Show the fold plan that training would use: people and photos of each fold by class.

    \b
    Examples:
      orch data folds --data people/train --folds 5
    """
    from orchestrator.data.readers import read

    if folds == 0:
        raise ConfigError("--folds 0 means no plan: every photo is trained on. Give 2 or more to see one.")
    photos = read(data, column_names(columns), distinct)
    from orchestrator.data.describe import fold_table
    from orchestrator.data.folds import plan_folds

    plan = plan_folds(photos.people, folds, plan_seed)
    frame = fold_table(photos, plan)
    if json:
        emit({"digest": plan.digest, "k": plan.k, "seed": plan.seed, "folds": frame.to_dict("records")})
        return
    table = grid(f"fold plan {plan.digest[:12]}: people of each class", *map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    out().print(table)


@app.command("synth")
def synthesise(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    people: Annotated[int, typer.Option("--people", "-n", help="People to train on, seven photos each.")] = 120,
    eval_people: Annotated[int, typer.Option("--eval-people", help="Other people, without labels.")] = 0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed draws the same people.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes that draw; 0: one per core.")] = 0,
) -> None:
    """Draw synthetic people in the contest's own layout: no data, no download, no real person.

    \b
    Examples:
      orch data synth people
      orch data synth people --people 600 --eval-people 100 --seed 7
    """
    from orchestrator.synthetic.people import most_folds, write_people

    with counting("drawing people") as progress:
        write_people(folder, people, eval_people, seed, jobs or (cores() if people > 50 else 1), progress)
    say(f"{folder / 'train'}: {people} people, {7 * people} photos.")
    if eval_people:
        say(f"{folder / 'eval'}: {eval_people} other people, {7 * eval_people} photos; truth.csv has their labels.")
    most = most_folds(people)
    folds = ["--folds", most if most > 1 else 0] if most < 5 else []  # 5 is what train-all takes by itself; 0: no plan
    say(f"next: {orch('train-all', '--data', shown(folder / 'train'), *folds)}")

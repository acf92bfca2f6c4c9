"""`orch ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import (
    deferred_messages,
    grid,
    print_json,
    print_message,
    print_result,
    score_text,
    stdout_console,
)
from orchestrator.cli.options import (
    CALIBRATE_WORDS,
    DECIDE_WORDS,
    STRATEGY_WORDS,
    DeviceOption,
    JsonOption,
    WorkspaceOption,
)
from orchestrator.cli.scores import print_labels, print_scores
from orchestrator.core.commands import orch
from orchestrator.core.errors import quantity

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.ensembling.build import BuiltEnsemble

__all__ = ["ensemble", "print_built"]


def ensemble(
    strategy: Annotated[str, typer.Option("--strategy", help=f"{STRATEGY_WORDS}.")] = "soft",
    calibrate: Annotated[
        str, typer.Option("--calibrate", help=f"What makes probabilities honest after the vote. {CALIBRATE_WORDS}.")
    ] = "none",
    decide: Annotated[str, typer.Option("--decide", help=f"Which label is answered. {DECIDE_WORDS}.")] = "argmax",
    pool_people: Annotated[
        bool,
        typer.Option("--pool-people", help="Learn how a person's photos answer together for age and gender."),
    ] = False,
    members: Annotated[
        list[str],
        typer.Option(
            "--members",
            "-m",
            help="TASK=RUN or TASK=RUN,RUN; the current run where left out. joint=RUN votes in all tasks, joint=RUN:mask in one.",
        ),
    ] = [],
    more: Annotated[list[str] | None, typer.Argument(help="More TASK=RUN words.", metavar="[TASK=RUN ...]")] = None,
    workspace: WorkspaceOption = Path("runs"),
    external: Annotated[
        list[Path],
        typer.Option("--with", help="A table of probabilities or an old submission that votes too."),
    ] = [],
    no_score: Annotated[
        bool, typer.Option("--no-score", help="For prediction only; runs of unrelated plans need this.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Where the newest run's photos are now, if they were moved since."),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Fuse the specialists' runs, score them out of fold, and save the ensemble for prediction.

    Every photo is judged by members that did not see its person. No image is read; this takes seconds. Only if people joined
    the data after a run was trained, its members answer for their photos once.

    \b
    Examples:
      orch ensemble --strategy soft
      orch ensemble --strategy hard --members age=age-0001,age-0002
      orch ensemble --pool-people
      orch ensemble --decide macro-f1
      orch ensemble --strategy greedy --calibrate vector --members age=age-0001,age-0002
      orch ensemble --members age=age-0002 gender=gender-0001 mask=mask-0001
      orch ensemble --members joint=joint-0001:mask,gender
      orch ensemble --with other.parquet --with old_submission.csv
    """
    from orchestrator import api

    with deferred_messages() as notes, bars() as listen:
        built = api.ensemble(
            workspace=workspace,
            strategy=strategy,
            calibrate=calibrate,
            decide=decide,
            pool_people=pool_people,
            members=[*members, *(more or [])],
            external=external,
            scored=not no_score,
            data=data,
            device=device,
            listen=listen,
        )
    for task, chosen in built.record.runs.items():
        named = any(word.startswith(f"{task}=") for word in [*members, *(more or [])])
        print_message(f"{task}: {', '.join(chosen)}{'' if named else ' (current)'}")
    for table in built.record.external:
        how = "there is no score, so it is for prediction alone"
        if table.matched is not None:
            matched = f"{table.matched:,} of the {table.held_out:,} held-out photos"
            alone = f"names {matched}, so it is for prediction alone: it abstains in the score"
            how = f"scored where it is out of fold: {matched}" if table.matched else alone
        print_message(f"{table.name}: {table.photos:,} photos, {', '.join(table.tasks)}; {how}.")
    if json:
        for note in notes:
            print_message(note)
        print_json({"id": built.record.id, **built.record.as_json(), "folder": str(built.record.folder)})
        return
    print_built(built)
    for note in notes:
        print_message(note)
    print_message(_next_step(workspace, built))


def _next_step(workspace: Path, built: BuiltEnsemble) -> str:
    """What to do with a new ensemble: predict with it, by its name where another one stayed the current one."""
    name = built.record.id
    if built.is_current and built.record.strategy.pool_people:
        return f"next: {orch('predict', 'PHOTOS', '--pool-people', 'folder', workspace=workspace)}"
    if built.is_current:
        submission = orch("predict", "--eval", "DIR", "--out", "submission.csv", workspace=workspace)
        return f"next: {orch('predict', 'PHOTOS', workspace=workspace)}   or   {submission}"
    use = orch("ensembles", "use", name, workspace=workspace)
    return f"next: {use}   or   {orch('predict', 'PHOTOS', '--ensemble', name, workspace=workspace)}"


def print_built(built: BuiltEnsemble) -> None:
    """The scores of an ensemble, and where it is."""
    console, record, scored = stdout_console(), built.record, built.scored
    if scored is None:
        print_result(f"{record.id}: no out-of-fold score: {record.why_no_score}")
    else:
        label = scored.evaluation["label"]
        print_scores("out of fold", scored.evaluation)
        _print_singles(record)
        _print_added(record)
        _print_tried(record)
        print_labels(label)
        _print_learned(record)
        _print_disagreements(record, scored.disagreements)
        span = label.intervals["macro_f1"]
        console.print(
            f"\n[bold]18-way macro F1 {label.scores.macro_f1:.4f}[/bold], 95 % interval {span.low:.4f} to {span.high:.4f}; "
            f"accuracy {label.scores.accuracy:.4f}; out of fold, {label.scores.counts.sum():,} photos of {label.people:,} people."
        )
        console.print(
            "Each fold's best epoch was chosen by the same people's score, so scores are slightly too high; "
            "the interval draws people, each with all photos."
        )
        _print_history(record, label.scores.counts.sum(), label.people)
    print_result(f"saved: {record.folder}")
    if scored is not None:
        print_result(f"picture: {record.scores_picture}")


def _print_history(record: EnsembleRecord, photos: int, people: int) -> None:
    """Which runs were trained before people joined the data, or before labels were corrected."""
    for run, joined in record.later_people.items():
        print_result(
            f"{run} was trained before {joined:,} of these {people:,} people joined: all its members answer for them, as for new "
            "people; its score on them is a little better than out of fold."
        )
    for run, corrected in record.outdated_labels.items():
        print_result(
            f"{run} learned from older labels: {corrected:,} of {photos:,} photos have another one now, by which all are scored."
        )


def _print_tried(record: EnsembleRecord) -> None:
    """What `auto` tried, and what came of it."""
    if record.tried:
        title = "strategies tried, each scored on people whom it has not learned from"
        table = grid(title, "strategy", "macro F1", "over soft", "P(better)", keep=("macro F1", "over soft"))
        for tried in record.tried:
            gain = tried.over_soft
            cells = ("", "") if gain is None else (str(gain), f"{gain.probability:.2f}")
            name = f"{tried.name} (chosen)" if tried.chosen else tried.name
            table.add_row(name, score_text(tried.macro_f1), *cells, style="bold" if tried.chosen else None)
        stdout_console().print(table)
        if record.tried[0].chosen:
            print_result("auto keeps the soft vote: nothing else is surely better.")
    for source in record.left_out:
        print_result(f"{source} is left out: it has no weight in any task.")


def _print_singles(record: EnsembleRecord) -> None:
    """Each run alone and each member alone, so that a weak one is seen."""
    table = grid(
        "each voter alone, a member on the photos that it held out", "task", "run", "member", "photos", "accuracy", "macro F1",
        keep=("run", "member", "macro F1", "photos"),
    )  # fmt: skip
    for task, entries in record.single.items():
        for entry in entries:
            member = "whole run" if entry.fold is None else f"fold {entry.fold}"
            style = "bold" if entry.fold is None else ""
            numbers = f"{entry.photos:,}", score_text(entry.accuracy), score_text(entry.macro_f1)
            table.add_row(task, entry.run, member, *numbers, style=style)
    stdout_console().print(table)


def _print_added(record: EnsembleRecord) -> None:
    """What each voter adds; prints nothing if every task has only one."""
    if not record.added_by:
        return
    from orchestrator.core.interval import VERDICTS

    words = {**VERDICTS, "better": "helps", "worse": "drags the vote down"}
    table = grid("what each adds to the 18-way macro F1 (with minus without)", "", "adds", "95 % interval", "verdict")
    for name, gained in record.added_by.items():
        style = "red" if gained.verdict == "worse" else None
        table.add_row(name, f"{gained.value:+.4f}", gained.interval.signed(), words[gained.verdict], style=style)
    stdout_console().print(table)


def _print_learned(record: EnsembleRecord) -> None:
    """The plain and the nested score of what was learned, and their gap; prints nothing if nothing was learned."""
    if not record.plain or record.evaluation is None:
        return
    table = grid("what was learned, in macro F1", "", "plain", "nested", "gap")
    for name, plain in record.plain.items():
        nested = record.evaluation[name].macro_f1
        table.add_row("18-way" if name == "label" else name, f"{plain:.4f}", f"{nested:.4f}", f"{plain - nested:+.4f}")
    stdout_console().print(table)
    print_result(f"{record.strategy.title}: plain, on the people that it was learned from; nested, on others.")
    if record.strategy.decide != "argmax" and record.combiner["rule"] is None:
        print_result(
            "--decide: no numbers gain on people whom they were not learned from; the most probable classes stand."
        )
    if record.alone:
        print_result(
            f"A person's photos answer together here: that holds where it is known who is on them. Each photo alone: 18-way "
            f"macro F1 {record.alone['label']:.4f}, nested."
        )


def _print_disagreements(record: EnsembleRecord, photos: pd.DataFrame) -> None:
    from orchestrator.core.labels import TASKS

    runs = {task: {member.run for member in record.members if task in member.votes_in} for task in TASKS}
    if not (record.external or record.left_out or record.later_people) and all(
        len(of_task) == 1 for of_task in runs.values()
    ):
        print_result(
            "soft and hard voting agree on every out-of-fold photo, as they must with one run per specialist: only "
            "one member has not seen its person. They can differ when predicting."
        )
        return
    print_result(f"soft and hard voting disagree on {quantity(len(photos), 'photo')}" + (":" if len(photos) else "."))
    for row in photos.head(10).itertuples(index=False):
        print_result(f"  {row.path}: soft {row.soft}, hard {row.hard}")
    if len(photos) > 10:
        print_result(f"  ... all of them: {record.disagreements_table}")

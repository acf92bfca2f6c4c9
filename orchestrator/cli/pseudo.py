"""`orch pseudo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import counting, emit, grid, out, say
from orchestrator.cli.options import DeviceOption, JsonOption, WorkspaceOption
from orchestrator.core.commands import orch
from orchestrator.core.errors import ConfigError, Mistakes

__all__ = ["pseudo"]


def pseudo(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos without labels, or folders of photos.")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="A folder with info.csv and images/.")] = None,
    *,
    to: Annotated[Path, typer.Option("--out", "-o", help="The table to write, .csv or .parquet.")],
    threshold: Annotated[
        float, typer.Option("--threshold", help="How sure: the mean probability of a task's likeliest class.")
    ] = 0.95,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", "-e", help="The ensemble's id; the current one if left out.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave photos out that cannot be read.")
    ] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Label photos by what an ensemble is sure of, for training to learn from: pseudo-labels.

    Each fold has labels of its own, made by the members that hold it out, and only the member that will hold it out learns from
    them; out-of-fold scores stay honest. Photos that are trained on already are refused when the table is used.

    \b
    Examples:
      orch pseudo --eval people/eval --out pseudo.parquet
      orch train age --data people/train --extra pseudo.parquet
    """
    from orchestrator.core.outputs import Output, check_outputs
    from orchestrator.inference.options import check_device, check_threshold

    wrong, output = Mistakes(), Output("--out", to, (".csv", ".parquet"))
    if (evaluation is None) == (not photos):
        example = orch("pseudo", "--eval", "DIR", "--out", "pseudo.parquet", workspace=workspace)
        wrong.add(ConfigError(f"give either photos or --eval DIR. Example: `{example}`"))
    with wrong.kept():
        check_threshold(threshold)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_outputs([output], workspace=workspace)
    wrong.tell()
    from orchestrator.artifacts.workspace import Workspace

    place = Workspace(workspace)
    record = place.ensemble(ensemble)
    if evaluation is not None:
        from orchestrator.data.contest import read_eval

        contest = read_eval(evaluation)
        paths = list(contest.paths)
    else:
        from orchestrator.inference.predictions import find_photos

        contest, paths = None, find_photos(photos or [])
    from orchestrator.inference.pseudo import check_labelling, check_names, pseudo_label, write_labels

    place.check_answering(record.id)
    plans = {name: place.run(name).plan for name in record.run_ids}
    check_labelling(record, plans)
    plan = next(str(one["digest"]) for one in plans.values() if one)
    check_names(paths)
    from orchestrator.artifacts.origins import tables_of

    check_outputs([output], [*paths, *([] if contest is None else [contest.table.path]), *tables_of(place)])
    from orchestrator.inference.opening import open_predictor
    from orchestrator.networks.devices import resolve_device

    with counting("loading members") as progress:
        name, predictor = open_predictor(place, record.id, resolve_device(device), progress)
    say(f"ensemble {name}: {len(predictor.members)} members, each fold's by themselves.")
    with counting("labelling") as progress:
        labels = pseudo_label(predictor, plan, paths, threshold, progress, skip_unreadable)
    write_labels(labels, output)
    if json:
        emit({"out": str(to), "photos": labels.photos, "rows": len(labels.table), "labels_a_fold": labels.counts})
    else:
        table = grid(f"of {labels.photos:,} photos, surer than {threshold:g}", "task", "class", "labels a fold")
        for task, counts in labels.counts.items():
            for word, count in counts.items():
                table.add_row(task, word, f"{count:,.0f}")
        out().print(table)
    for path, reason in labels.failed[:20]:
        say(f"not read: {path}: {reason}")
    used = orch("train", "TASK", "--data", "DIR", "--extra", to, workspace=workspace)
    say(f"{to}: {len(labels.table):,} rows. next: {used}")

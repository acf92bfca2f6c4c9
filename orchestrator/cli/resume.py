"""`orch resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import DeviceOption, JobsOption, JsonOption, NoStoreOption, ProfileOption, WorkspaceOption

__all__ = ["resume"]


def resume(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="The photos' new location; unchanged if left out.")
    ] = None,
    extra: Annotated[
        list[Path],
        typer.Option(
            "--extra", help="New location of its table of extra photos; unchanged if left out. May be repeated."
        ),
    ] = [],
    jobs: JobsOption = 0,
    device: DeviceOption = "auto",
    no_store: NoStoreOption = False,
    profile: ProfileOption = False,
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Complete a run from its record alone: train the members that are missing or damaged, and nothing else.

    Recipe, plan and seed are the run's own, so a member that is trained again comes out as it was (on a CPU bit for bit), and
    ensembles that use it keep working. Damaged files are set aside, not deleted.

    \b
    Examples:
      orch resume age-0001
      orch resume age-0001 --data moved/people/train
      orch resume age-0001 --extra moved/more_faces.csv
    """
    from orchestrator import api
    from orchestrator.cli.training import listening, report_training

    with listening([], workspace) as listen:
        report = api.resume(
            run,
            workspace=workspace,
            data=data,
            extra=extra,
            jobs=jobs,
            device=device,
            store=not no_store,
            profile=profile,
            listen=listen,
        )
    report_training(report, json, lambda: api.next_step(report.runs))

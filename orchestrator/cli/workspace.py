"""`orch workspace check | repair`."""

from __future__ import annotations

from pathlib import Path

import typer

from orchestrator.cli.console import print_error, print_json, print_message, print_result
from orchestrator.cli.options import JsonOption, WorkspaceOption
from orchestrator.core.errors import quantity

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="The workspace's own files: check and repair them.", rich_markup_mode="rich"
)


@app.command("check")
def check_workspace(workspace: WorkspaceOption = Path("runs"), json: JsonOption = False) -> None:
    """Check every record, weight file and table, and report each one that has changed, with the way out.

    Weights and tables are checked against their hashes, so this reads the whole workspace once. Caches are skipped,
    since damaged files in them are made again, and so are searches, which `orch sweep` checks. Exit code 1 if a file
    is damaged.

    \b
    Examples:
      orch workspace check
    """
    from orchestrator import api

    findings = api.check_workspace(workspace=workspace)
    if json:
        print_json(
            {
                "in_order": not findings.damaged, "files": findings.files,
                "damaged": [error.message for error in findings.damaged], "notes": findings.notes,
            }
        )  # fmt: skip
    else:
        for error in findings.damaged:
            print_error(error.message)
        for note in findings.notes:
            print_message(f"note: {note}")
        print_result(f"{quantity(findings.files, 'file')} read: {len(findings.damaged):,} damaged.")
    raise typer.Exit(1 if findings.damaged else 0)


@app.command("repair")
def repair_workspace(workspace: WorkspaceOption = Path("runs")) -> None:
    """Rewrite lost or damaged records: the workspace's own, and those of runs whose members' cards hold them.

    Nothing is deleted: damaged files are set aside under another name. At the end the workspace is checked as by `orch
    workspace check`: what is still damaged is reported with its own way out, and the exit code is then 1.

    \b
    Examples:
      orch workspace repair
    """
    from orchestrator import api

    repaired = api.repair_workspace(workspace=workspace)
    for error in repaired.damaged:
        print_error(error.message)
    if not repaired.damaged:
        print_message(
            "every record can be read." if repaired.changed else "nothing to repair: every record can be read."
        )
    raise typer.Exit(1 if repaired.damaged else 0)

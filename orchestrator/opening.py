"""An ensemble, opened for answering: its members loaded, its tables from elsewhere beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.data.sealed import check_file
from orchestrator.ensemble.member import MemberFiles, load_members
from orchestrator.ensemble.outside import read_outside
from orchestrator.ensemble.predictor import Predictor
from orchestrator.ensemble.voting import Strategy
from orchestrator.records.workspace import Workspace, ensemble_again

__all__ = ["open_predictor"]


def open_predictor(
    workspace: Workspace,
    name: str | None,
    device: str,
    loaded: Callable[[int, int], None] = lambda _done, _all: None,
    strategy: Strategy | None = None,
    sharing: bool = True,
) -> tuple[str, Predictor]:
    """The named ensemble (or the current one), its members loaded; `sharing` as in `Predictor`.

    Raises:
        WorkspaceError: no such ensemble, or member files that are missing or changed.
    """
    folder, record = workspace.ensemble(name)
    workspace.check_answering(folder.name)
    members = {
        task: [MemberFiles(workspace.root / one["folder"], one["sha256"], one["function"]) for one in chosen]
        for task, chosen in record["members"].items()
    }
    again = ensemble_again(workspace.root, record)
    for one in record["outside"]:
        check_file(folder / one["file"], record["files"][one["file"]], again)
    found = load_members(members, device, loaded)
    outside = [replace(read_outside(folder / one["file"]), name=one["name"]) for one in record["outside"]]
    return folder.name, Predictor(found, strategy or record["strategy"], device, sharing=sharing, outside=outside)

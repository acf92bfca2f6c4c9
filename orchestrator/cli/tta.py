"""`orch tta`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.bars import bars
from orchestrator.cli.console import grid, print_json, print_message, print_result, stdout_console
from orchestrator.cli.options import (
    DeviceOption,
    JsonOption,
    NoStoreOption,
    WorkspaceOption,
    column_names,
    split_commas,
)
from orchestrator.core.commands import orch

if TYPE_CHECKING:
    from orchestrator.api import Viewed

__all__ = ["tta"]


def tta(
    run: Annotated[str, typer.Argument(help="The run's id, as in age-0001.")],
    views: Annotated[
        str, typer.Option("--views", help="In addition to the photo itself: flip, zoom, zoom_flip, with commas.")
    ] = "flip",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the answers as a run of its own, with the same weights.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="The photos' new location; unchanged if left out.")
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--columns", help="As in training; unchanged if left out.")
    ] = None,
    device: DeviceOption = "auto",
    no_store: NoStoreOption = False,
    workspace: WorkspaceOption = Path("runs"),
    json: JsonOption = False,
) -> None:
    """Test-time augmentation: what a run's members would answer with several views of each photo; nothing is trained.

    Every held-out photo is answered as it is and in each view, and the probabilities are averaged. The table counts
    answers that became right and answers that became wrong: averaging does both, and only the difference helps.

    \b
    Examples:
      orch tta age-0001
      orch tta age-0001 --views flip,zoom,zoom_flip
      orch tta age-0001 --keep && orch runs use age-0002
    """
    from orchestrator import api

    with bars() as listen:
        viewed = api.tta(
            run,
            views=split_commas(views),
            keep=keep,
            workspace=workspace,
            data=data,
            columns=None if columns is None else column_names(columns),
            device=device,
            store=not no_store,
            listen=listen,
        )
    if json:
        print_json({**viewed.effect.as_dict(viewed.classes), "kept": viewed.kept.id if viewed.kept else None})
        return
    _print(viewed)
    if viewed.kept is not None:
        use = orch("runs", "use", viewed.kept.id, workspace=workspace)
        print_message(f"kept as {viewed.kept.id}: the same weights, answering with views. `{use}` makes it current.")


def _print(viewed: Viewed) -> None:
    """Prints which answers became right or wrong, by class, and whether that is a clear difference."""
    from orchestrator.core.interval import VERDICTS

    effect = viewed.effect
    before, after = effect.before, effect.after
    table = grid(
        f"{effect.run.id} with {', '.join(effect.views)}, out of fold", "class", "photos", "F1", "F1 with views",
        "became right", "became wrong",
    )  # fmt: skip
    for code, name in enumerate(viewed.classes):
        table.add_row(
            name, f"{before.support[code]:,}", f"{before.f1[code]:.4f}", f"{after.f1[code]:.4f}", str(effect.became_right[code]),
            str(effect.became_wrong[code]),
        )  # fmt: skip
    table.add_row(
        "all", f"{before.support.sum():,}", f"{before.macro_f1:.4f}", f"{after.macro_f1:.4f}", str(effect.became_right.sum()),
        str(effect.became_wrong.sum()),
    )  # fmt: skip
    stdout_console().print(table)
    verdict = VERDICTS[effect.gain.verdict]
    if not effect.became_right.sum() + effect.became_wrong.sum():
        verdict = "no answer changed"
    print_result(f"macro F1 {effect.gain.value:+.4f}, 95 % interval {effect.gain.interval.signed()}: {verdict}.")

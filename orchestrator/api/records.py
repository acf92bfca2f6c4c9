"""Records of a workspace: functions for `orch runs`, `ensembles` and `workspace`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.commands import DEFAULT_WORKSPACE, orch
from orchestrator.core.errors import ConfigError, DamagedError, WorkspaceError, quantity
from orchestrator.core.outputs import Output, check_outputs

if TYPE_CHECKING:
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.lists import EnsembleList, RunList
    from orchestrator.artifacts.repair import WorkspaceFindings
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.ensembling.gains import EnsembleComparison
    from orchestrator.experiments.comparing import Comparison

__all__ = [
    "Repaired", "RunDetails", "SentRun", "annotate_run", "check_workspace", "compare", "compare_ensembles", "delete_ensembles",
    "delete_runs",    "list_ensembles", "list_runs", "repair_workspace", "run_details", "track_runs", "use_ensemble", "use_run",
]  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDetails:
    """The result of `run_details`: everything on record about a run.

    Attributes:
        run: its record.
        notes: its note and tags.
        damaged: one error for each member that it has lost, with the way out.
    """

    run: RunRecord
    notes: Annotations
    damaged: Sequence[DamagedError]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        from orchestrator.artifacts.summary import run_as_dict

        return {**run_as_dict(self.run), "note": self.notes.note, "tags": list(self.notes.tags)}

    @property
    def state(self) -> str:
        """`complete`, `unfinished`, or `damaged` where a complete run lacks members."""
        return "damaged" if self.damaged else self.run.status


@dataclass(frozen=True)
class SentRun:
    """A run that `track_runs` has sent.

    Attributes:
        run: its id.
        tracker: the tracker's name.
        epochs: number of epochs sent; those sent before are not sent again.
    """

    run: str
    tracker: str
    epochs: int


@dataclass(frozen=True)
class Repaired:
    """The result of `repair_workspace`.

    Attributes:
        changed: whether anything was rewritten.
        damaged: one error for each file that is still damaged, with its way out.
    """

    changed: bool
    damaged: Sequence[DamagedError]


@checks_arguments
def list_runs(*, where: str | None = None, sort: str | None = None, workspace: PathLike = DEFAULT_WORKSPACE) -> RunList:
    """Lists runs with their facts: `orch runs list`.

    Args:
        where: conditions that all of them must meet, as in `task=age score>0.6`; None: none.
        sort: key to sort by, with `-` in reverse; None: as they were made.
        workspace: the workspace of the runs.

    Raises:
        OrchestratorError: invalid conditions, or no workspace.
    """
    from orchestrator.artifacts import lists
    from orchestrator.artifacts.workspace import Workspace

    return lists.list_runs(Workspace(Path(workspace)), where or "", sort or "")


@checks_arguments
def run_details(run: str, *, workspace: PathLike = DEFAULT_WORKSPACE) -> RunDetails:
    """Reads everything on record about a run: `orch runs show`.

    Args:
        run: the run's id.
        workspace: the workspace of the run.

    Raises:
        OrchestratorError: no such run, or a damaged record.
    """
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.summary import lost_members
    from orchestrator.artifacts.workspace import Workspace

    record = Workspace(Path(workspace)).run(run)
    return RunDetails(record, Annotations.read(record.folder), lost_members(record))


@checks_arguments
def use_run(run: str, *, workspace: PathLike = DEFAULT_WORKSPACE) -> None:
    """Makes a complete run its specialist's current one: `orch runs use`.

    Args:
        run: the run's id.
        workspace: the workspace of the run.

    Raises:
        OrchestratorError: no such run, or one that is unfinished or damaged.
    """
    from orchestrator.artifacts.members import check_member
    from orchestrator.artifacts.summary import lost_members
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.ensembling import choosing

    opened_workspace = Workspace(Path(workspace))
    record = opened_workspace.run(run)
    if not record.complete:
        raise WorkspaceError(f"{run} is unfinished: {record.way_to_complete}")
    for fold in record.folds:
        check_member(record, fold, files=False)
    for error in lost_members(record):  # weights that are not there; whether they are as written takes long to say
        raise error
    choosing.use_run(opened_workspace, record)
    if record.partial:
        log.warning(
            f"it covers {record.covers}. An ensemble scores specialists over the same people: train it over all folds, or the "
            "others over these."
        )


@checks_arguments
def annotate_run(
    run: str,
    *,
    note: str | None = None,
    tags: Sequence[str] = (),
    untags: Sequence[str] = (),
    workspace: PathLike = DEFAULT_WORKSPACE,
) -> Annotations:
    """Adds a note and tags to a run: `orch runs note`.

    Args:
        run: the run's id.
        note: its note, which replaces an earlier one; None: unchanged.
        tags: tags to add, one word each.
        untags: tags to remove.
        workspace: the workspace of the run.

    Raises:
        OrchestratorError: no such run, nothing to change, an invalid tag, or a tag to remove that the run does not have.
    """
    from orchestrator.artifacts.annotations import annotate
    from orchestrator.artifacts.workspace import Workspace

    opened_workspace = Workspace(Path(workspace))
    record = opened_workspace.run(run)
    if note is None and not tags and not untags:
        example = orch("runs", "note", run, "tighter crop", "--tag", "crop", workspace=opened_workspace.root)
        raise ConfigError(f"give a note, --tag or --untag. Example: {example}")
    return annotate(record, note, tags, untags)


@checks_arguments
def compare(
    runs: Sequence[str], *, workspace: PathLike = DEFAULT_WORKSPACE, picture: PathLike | None = None
) -> Comparison:
    """Compares runs of one specialist with the first, on the photos that all held out: `orch runs compare`.

    Args:
        runs: two ids or more.
        workspace: the workspace of the runs.
        picture: a .png of learning curves and gains.

    Raises:
        OrchestratorError: fewer than two runs, runs of several specialists, or damaged ones.
    """
    workspace, picture = Path(workspace), path_or_none(picture)
    from orchestrator.artifacts.workspace import Workspace

    if len(set(runs)) < 2:
        example = orch("runs", "compare", "age-0001", "age-0002", workspace=workspace)
        raise ConfigError(f"a comparison needs two runs or more, as in {example}.")
    if picture is not None:
        check_outputs([Output("--picture", picture, (".png",))], workspace=workspace)
    opened_workspace = Workspace(workspace)
    records = [opened_workspace.run(name) for name in dict.fromkeys(runs)]
    tasks = list(dict.fromkeys(record.task for record in records))
    if len(tasks) > 1:
        raise ConfigError(f"runs of {', '.join(tasks)}: only runs of one specialist can be compared.")
    from orchestrator.experiments.comparing import compare_runs
    from orchestrator.experiments.curves import draw_comparison
    from orchestrator.specialists import trainable

    comparison = compare_runs(opened_workspace, records, trainable(records[0].task))
    if picture is not None:
        draw_comparison(comparison, picture)
    return comparison


@checks_arguments
def track_runs(runs: Sequence[str], *, to: Sequence[str], workspace: PathLike = DEFAULT_WORKSPACE) -> list[SentRun]:
    """Sends trained runs to trackers: `orch runs track`.

    Args:
        runs: ids of runs.
        to: `tensorboard`, `mlflow` or `wandb`, in the workspace; `KIND=PLACE` elsewhere.
        workspace: the workspace of the runs.

    Raises:
        OrchestratorError: no such run or tracker, or one that cannot be reached.
    """
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.experiments.trackers import check_words, open_trackers
    from orchestrator.experiments.tracking import send

    check_words(to)
    opened_workspace = Workspace(Path(workspace))
    records = [opened_workspace.run(name) for name in dict.fromkeys(runs)]
    sent = []
    for tracker in open_trackers(to, opened_workspace.root):
        for record in records:
            sent.append(SentRun(record.id, tracker.name, send(tracker, record)))
            log.info(f"{record.id}: {quantity(sent[-1].epochs, 'epoch')} sent to {tracker.name}.")
        tracker.close()
        log.info(f"to view: {tracker.look}")
    return sent


@checks_arguments
def delete_runs(
    runs: Sequence[str],
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    confirm: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Deletes runs for good; their ids are never given out again: `orch runs delete`.

    Args:
        runs: ids of runs.
        workspace: the workspace of the runs.
        confirm: called with the ids when nothing stands in the way; an error that it raises keeps all of them.

    Raises:
        OrchestratorError: no such run, or one that an ensemble or another command uses; nothing is deleted then, but the runs
            before one that came into use after `confirm`.
    """
    from orchestrator.artifacts.deletion import check_unused, delete, noting_choices
    from orchestrator.artifacts.workspace import Workspace

    opened_workspace = Workspace(Path(workspace))
    records = [opened_workspace.run(name) for name in dict.fromkeys(runs)]
    check_unused(opened_workspace, records)
    confirm([record.id for record in records])
    with noting_choices(opened_workspace) as choices:
        for record in records:
            choices.append(delete(opened_workspace, record))


@checks_arguments
def list_ensembles(*, workspace: PathLike = DEFAULT_WORKSPACE) -> EnsembleList:
    """Lists ensembles: `orch ensembles list`.

    Args:
        workspace: the workspace of the ensembles.

    Raises:
        OrchestratorError: no workspace.
    """
    from orchestrator.artifacts import lists
    from orchestrator.artifacts.workspace import Workspace

    return lists.list_ensembles(Workspace(Path(workspace)))


@checks_arguments
def compare_ensembles(ensembles: Sequence[str], *, workspace: PathLike = DEFAULT_WORKSPACE) -> EnsembleComparison:
    """Compares ensembles with the first one over the same people: `orch ensembles compare`.

    Args:
        ensembles: ids of two ensembles or more.
        workspace: the workspace of the ensembles.

    Raises:
        OrchestratorError: fewer than two, one without a score, or none scored on the same photos.
    """
    from orchestrator.artifacts.workspace import Workspace

    names = list(dict.fromkeys(ensembles))
    if len(names) < 2:
        example = orch("ensembles", "compare", "soft-0001", "hard-0001", workspace=Path(workspace))
        raise ConfigError(f"a comparison needs two ensembles or more, as in {example}.")
    opened_workspace = Workspace(Path(workspace))
    records = [opened_workspace.ensemble(name) for name in names]
    from orchestrator.ensembling.gains import compare_ensembles as compare_records

    return compare_records(records)


@checks_arguments
def use_ensemble(ensemble: str, *, workspace: PathLike = DEFAULT_WORKSPACE) -> None:
    """Makes an ensemble the current one, which predictions and exports take: `orch ensembles use`.

    Args:
        ensemble: the ensemble's id.
        workspace: the workspace of the ensemble.

    Raises:
        OrchestratorError: no such ensemble, or a damaged one.
    """
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.ensembling import choosing

    choosing.use_ensemble(Workspace(Path(workspace)), ensemble)


@checks_arguments
def delete_ensembles(
    ensembles: Sequence[str],
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    confirm: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Deletes ensembles for good; their runs stay: `orch ensembles delete`.

    Args:
        ensembles: ids of ensembles.
        workspace: the workspace of the ensembles.
        confirm: called with the ids when all exist; an error that it raises keeps all of them.

    Raises:
        OrchestratorError: no such ensemble; nothing is deleted then.
    """
    from orchestrator.artifacts.deletion import delete_ensemble, noting_choices
    from orchestrator.artifacts.workspace import Workspace

    opened_workspace = Workspace(Path(workspace))
    names = list(dict.fromkeys(ensembles))
    for name in names:
        opened_workspace.ensemble_folder(name)
    confirm(names)
    with noting_choices(opened_workspace) as choices:
        for name in names:
            choices.append(delete_ensemble(opened_workspace, name))


@checks_arguments
def check_workspace(*, workspace: PathLike = DEFAULT_WORKSPACE) -> WorkspaceFindings:
    """Reads every record, weight file and table, and reports each that has changed: `orch workspace check`.

    Args:
        workspace: the workspace to read.

    Raises:
        OrchestratorError: no workspace, or its own file is damaged.
    """
    from orchestrator.artifacts.repair import check

    return check(Path(workspace))


@checks_arguments
def repair_workspace(*, workspace: PathLike = DEFAULT_WORKSPACE) -> Repaired:
    """Rewrites lost or damaged records, and checks the workspace again: `orch workspace repair`.

    Args:
        workspace: the workspace to repair.

    Raises:
        OrchestratorError: no workspace.
    """
    from orchestrator.artifacts.repair import check, repair

    changed = repair(Path(workspace))
    return Repaired(bool(changed), check(Path(workspace)).damaged)

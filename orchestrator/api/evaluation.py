"""Scores on people whom an ensemble has not seen: the function for `orch evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.commands import DEFAULT_WORKSPACE, data_arguments, orch
from orchestrator.core.errors import ConfigError, DataError, LeakError, Mistakes, quantity
from orchestrator.core.events import Listener, ignore_events
from orchestrator.core.labels import CLASSES, LABELS, TASKS
from orchestrator.core.outputs import Output, check_outputs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from orchestrator.artifacts.ensembles import EnsembleRecord, RecordedScores
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.photos import Photos
    from orchestrator.ensembling.evaluation import Evaluation
    from orchestrator.ensembling.slices import Slice
    from orchestrator.ensembling.unseen import SeenPeople
    from orchestrator.inference.options import PredictionOptions
    from orchestrator.inference.results import Predictions

__all__ = ["EnsembleSlices", "EvaluatedEnsemble", "evaluate", "slices"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedEnsemble:
    """The result of `evaluate`: an ensemble's scores on people whom none of its members has seen.

    Attributes:
        record: the ensemble.
        strategy: how its members' answers became one, in words.
        evaluation: scores of each task that the data has labels for, and of the label (key `label`) if it has all.
        seen_people: number of people who were left out, since members have seen them.
        seen_photos: number of their photos.
        slices: how often each task is right for some photos alone, the lowest accuracy first.
    """

    record: EnsembleRecord
    strategy: str
    evaluation: Mapping[str, Evaluation]
    seen_people: int
    seen_photos: int
    slices: Sequence[Slice]

    def recorded(self) -> dict[str, RecordedScores]:
        """The scores by name, as in an ensemble's record."""
        names = {**CLASSES, "label": LABELS}
        return {name: scored.recorded(names[name], "held-out") for name, scored in self.evaluation.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `out_of_fold` has the macro F1 that the ensemble was built with, where it has any."""
        before = self.record.evaluation or {}
        return {
            "ensemble": self.record.id,
            "strategy": self.strategy,
            "evaluation": {name: scores.as_dict() for name, scores in self.recorded().items()},
            "slices": [part.as_dict() for part in self.slices],
            "left_out": {"people": self.seen_people, "photos": self.seen_photos},
            "out_of_fold": {
                name: {"macro_f1": scores.macro_f1, "interval_95": scores.intervals["macro_f1"].as_list()}
                for name, scores in before.items()
            },
        }


@dataclass(frozen=True)
class EnsembleSlices:
    """The result of `slices`: how often an ensemble is right out of fold, for some photos alone.

    Attributes:
        record: the ensemble.
        slices: every slice of every task, the lowest accuracy first.
    """

    record: EnsembleRecord
    slices: Sequence[Slice]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ensemble": self.record.id, "kind": "out-of-fold", "slices": [part.as_dict() for part in self.slices]}


@checks_arguments
def slices(
    ensemble: str | None = None,
    *,
    by: Sequence[str] = (),
    data: PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    workspace: PathLike = DEFAULT_WORKSPACE,
) -> EnsembleSlices:
    """Where an ensemble is right and where not, out of fold, the worst first: `orch ensembles slices`.

    Args:
        ensemble: its id; None: the current one.
        by: further columns of the data's table to divide the photos by, such as `race`.
        data: the data's present location, for `by`; None: as recorded.
        columns: our column name -> the manifest's, for `by`; None: as recorded.
        workspace: the workspace of the ensemble.

    Raises:
        OrchestratorError: an ensemble without a score, or a column that the table does not have.
    """
    from orchestrator.artifacts.workspace import Workspace

    given = [option for option, value in (("--data", data), ("--columns", columns)) if value]
    if given and not by:
        raise ConfigError(
            f"{' and '.join(given)}: only --by reads the data's table, to divide the photos by a column of it; give --by "
            f"COLUMN too, or leave {'it' if len(given) == 1 else 'them'} out."
        )
    opened_workspace, data = Workspace(Path(workspace)), path_or_none(data)
    record = opened_workspace.ensemble(ensemble)
    if record.evaluation is None:
        raise ConfigError(f"{record.id} has no score: {record.why_no_score}")
    from orchestrator.artifacts.ensembles import OUT_OF_FOLD
    from orchestrator.artifacts.scored_answers import ScoredAnswers

    scored = ScoredAnswers.read(record.file(OUT_OF_FOLD, record.rebuild_advice()), record.read_combiner().prefixes)
    further = {}
    if by:
        from orchestrator.artifacts.sources import source_of
        from orchestrator.data.further import column_of

        run = opened_workspace.run(record.run_ids[0])
        asked = [word for name in by for word in ("--by", name)]
        again = orch("ensembles", "slices", record.id, *asked, "--data", "DIR", workspace=opened_workspace.root)
        source = source_of(run, data, again)
        renamed = run.data.columns if columns is None else columns
        further = {name: column_of(source, name, scored.photos["path"].tolist(), renamed) for name in by}
    from orchestrator.ensembling.slices import slices_of

    return EnsembleSlices(record, slices_of(scored.photos["person"], scored.truth, scored.choice, further))


@checks_arguments
def evaluate(
    data: PathLike,
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    strategy: str | None = None,
    columns: Mapping[str, str] | None = None,
    distinct_people: bool = False,
    allow_seen: bool = False,
    by: Sequence[str] = (),
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    picture: PathLike | None = None,
    listen: Listener = ignore_events,
) -> EvaluatedEnsemble:
    """Scores an ensemble on labelled photos of people whom none of its members has seen: `orch evaluate`.

    Args:
        data: a folder with train.csv and images/, or a manifest, with a person and the true class of one task or more.
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        strategy: a strategy to use instead of the ensemble's own.
        columns: our column name -> the manifest's.
        distinct_people: people named as, or almost as, people of the training are others: their photos alone tell.
        allow_seen: leave out people whom members have seen, instead of refusing them.
        by: further columns of the data's table to divide the photos by, such as `race`.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        precision: `auto`, or `fp32`: no engine whose answers differ from torch's by over 1e-4.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        picture: a .png of the scores; needs labels of all tasks.
        listen: receives progress events.

    Raises:
        LeakError: members have seen some of the people; names all of them.
        OrchestratorError: whatever else is wrong with arguments, photos or the ensemble.
    """
    workspace, data, picture = Path(workspace), Path(data), path_or_none(picture)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import PredictionOptions

    _check_evaluate(PredictionOptions(strategy, engine, precision, device), data, columns, picture, workspace)
    opened_workspace = Workspace(workspace)
    record = opened_workspace.ensemble(ensemble)
    unseen = _unseen_photos(
        opened_workspace, record, data, columns, distinct_people, allow_seen, by, needs_all=picture is not None
    )
    from orchestrator.api.prediction import predict

    together = strategy is None and record.strategy.pool_people
    answers = predict(
        unseen.paths, workspace=workspace, ensemble=record.id, strategy=strategy,
        people=dict(zip(map(str, unseen.paths), unseen.persons, strict=True)) if together else None,
        engine=engine, precision=precision, device=device, listen=listen,
    ).answers  # fmt: skip
    result = _scored(record, unseen, answers)
    if picture is not None:
        from orchestrator.pictures import draw_scores

        draw_scores(f"{record.id} on {data.name}", result.recorded(), picture)
    return result


@dataclass(frozen=True, eq=False)
class _UnseenPhotos:
    """N labelled photos of people whom no member has seen.

    Attributes:
        paths: the photos.
        persons: the person of each, shape (N,).
        truth: task -> true class codes, shape (N,), for each task that the data has labels for.
        further: name of a further column -> its value for each photo.
        seen_people: number of people who were left out.
        seen_photos: number of their photos.
    """

    paths: Sequence[Path]
    persons: pd.Series[str]
    truth: Mapping[str, NDArray[np.int64]]
    further: Mapping[str, Sequence[str]]
    seen_people: int
    seen_photos: int


def _check_evaluate(
    options: PredictionOptions, data: Path, columns: Mapping[str, str] | None, picture: Path | None, workspace: Path
) -> None:
    """Raises every error of `evaluate` that can be found without the ensemble."""
    from orchestrator.data.readers import check_source

    mistakes = Mistakes()
    with mistakes.collect():
        options.check()
    with mistakes.collect():
        check_source(data, columns)
    with mistakes.collect():
        check_outputs([Output("--picture", picture, (".png",))] if picture else [], [data], workspace)
    mistakes.raise_if_any()


def _unseen_photos(
    workspace: Workspace,
    record: EnsembleRecord,
    data: Path,
    columns: Mapping[str, str] | None,
    distinct: bool,
    allow_seen: bool,
    by: Sequence[str],
    needs_all: bool,
) -> _UnseenPhotos:
    """A source's photos of people whom no member has seen; arguments as for `evaluate`.

    Raises:
        LeakError: members have seen some of the people, and these are not to be left out.
        DataError: nobody is left.
    """
    from orchestrator.data.further import column_of

    photos, truth = _labelled(data, columns, distinct, needs_all)
    seen = _seen(workspace, record, photos, distinct)
    if seen.problems and not allow_seen:
        again = orch("evaluate", *data_arguments(data, columns, distinct), "--allow-seen", workspace=workspace.root)
        raise LeakError(
            f"{record.id}: {len(seen.problems)} of {photos.table['person'].nunique()} people are people of the training, by "
            f"their photos or by their names: a score on them would be too good.{_other_people(seen)} Take other people; or "
            f"`{again}` leaves them out.",
            seen.problems,
        )
    further = {name: column_of(data, name, photos.table["path"].tolist(), columns) for name in by}
    rows, seen_photos = (~seen.rows).nonzero()[0], int(seen.rows.sum())
    if not len(rows):
        raise DataError(
            f"{data}: all {len(seen.problems)} people are people of the training of {record.id}: nobody is left to score."
            f"{_other_people(seen)}"
        )
    if seen.problems:
        counted = "1 person" if len(seen.problems) == 1 else f"{len(seen.problems)} people"
        log.info(f"left out, as people of the training: {counted} with {quantity(seen_photos, 'photo')}.")
    return _UnseenPhotos(
        [photos.paths[row] for row in rows], photos.table["person"].iloc[rows],
        {task: codes[rows] for task, codes in truth.items()},
        {name: [column[row] for row in rows] for name, column in further.items()}, len(seen.problems), seen_photos,
    )  # fmt: skip


def _scored(record: EnsembleRecord, unseen: _UnseenPhotos, answers: Predictions) -> EvaluatedEnsemble:
    """The scores of an ensemble's answers for unseen photos."""
    import numpy as np

    from orchestrator.core.labels import decompose
    from orchestrator.ensembling.evaluation import evaluations
    from orchestrator.ensembling.slices import slices_of

    label_of = dict(zip(answers.photos, answers.label.tolist(), strict=True))  # a file of two rows is answered once
    label = np.array([label_of[str(path)] for path in unseen.paths])
    return EvaluatedEnsemble(
        record, answers.combiner.title, evaluations(unseen.persons, unseen.truth, label), unseen.seen_people, unseen.seen_photos,
        slices_of(unseen.persons, unseen.truth, decompose(label), unseen.further),
    )  # fmt: skip


def _other_people(seen: SeenPeople) -> str:
    """What to do if people who were known by their names are others; empty where photos tell that they are not."""
    from orchestrator.ensembling.unseen import SEEN_PHOTO

    if all(problem.kind == SEEN_PHOTO for problem in seen.problems):
        return ""
    return " If those of the same names are others, --distinct-people says so: then photos alone tell."


def _labelled(
    data: Path, columns: Mapping[str, str] | None, distinct: bool, needs_all: bool
) -> tuple[Photos, dict[str, NDArray[np.int64]]]:
    """A source's photos, and task -> true class codes for each task that it has labels for."""
    from orchestrator.data.readers import read
    from orchestrator.specialists import SPECIALISTS

    photos = read(data, columns, distinct=distinct)
    wanted = {task: SPECIALISTS[task].columns for task in TASKS}
    labelled = [task for task, needed in wanted.items() if all(column in photos.table for column in needed)]
    missing = {column for task, needed in wanted.items() if task not in labelled for column in needed} - {
        *photos.table.columns
    }
    if missing and (needs_all or not labelled):
        why = "--picture draws the scores of all tasks" if labelled else "there is nothing to score"
        raise ConfigError(f"{data}: has no column {', '.join(sorted(missing))}: {why}.")
    if missing:
        log.info(
            f"no column {', '.join(sorted(missing))}: only {', '.join(labelled)} can be scored, and no 18-way label."
        )
    return photos, {task: SPECIALISTS[task].label(photos.table) for task in labelled}


def _seen(workspace: Workspace, record: EnsembleRecord, photos: Photos, distinct: bool) -> SeenPeople:
    """Which people of some photos the ensemble's members have seen."""
    from orchestrator.artifacts.origins import trained_people, trained_photo_hashes
    from orchestrator.ensembling.unseen import seen_people

    names = trained_people(workspace, record.run_ids)
    hashes = trained_photo_hashes(workspace, record.run_ids)
    return seen_people(photos.table["person"], photos.content(workspace.hashes()), hashes, names, distinct)

"""Ensembles and prediction: functions for `orch ensemble`, `predict`, `pseudo`, `cascade` and `export`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api.arguments import PathLike, checks_arguments, path_or_none
from orchestrator.core.commands import DEFAULT_WORKSPACE, orch
from orchestrator.core.errors import ConfigError, Mistakes, quantity
from orchestrator.core.events import Listener, ignore_events, progress_callback
from orchestrator.core.extras import require
from orchestrator.core.labels import TASKS
from orchestrator.core.outputs import TABLES, Output, check_outputs
from orchestrator.core.stages import Stages

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.contest import Eval
    from orchestrator.ensembling.build import BuiltEnsemble
    from orchestrator.ensembling.external import ExternalRows
    from orchestrator.ensembling.growth import LaterAnswers
    from orchestrator.inference.cascade import Cascade
    from orchestrator.inference.cascade_measurement import Measured
    from orchestrator.inference.engine_selection import PredictorOnEngines
    from orchestrator.inference.ensemble_export import Exported
    from orchestrator.inference.options import PredictionOptions
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.pseudo import PseudoLabels
    from orchestrator.inference.reader import Photo
    from orchestrator.inference.results import Prediction, Predictions

__all__ = [
    "MeasuredCascade", "Predicted", "cascade", "ensemble", "export", "load_predictor", "predict", "pseudo_label",
]  # fmt: skip

log = logging.getLogger(__name__)

CASCADE_PICTURE = "cascade.png"
EVAL, SOURCE = "--eval DIR", "--data SOURCE"
"""How sources of photos are given, beside photos themselves."""


@dataclass(frozen=True)
class Predicted:
    """The result of `predict`.

    Attributes:
        ensemble: id of the ensemble.
        answers: one answer per photo, in input order.
        members: number of members in the ensemble.
        external: external tables that also voted, and which of their rows answered for which photos.
        seconds: stage -> seconds, summed over all threads; empty without `profile`.
    """

    ensemble: str
    answers: Predictions
    members: int
    external: ExternalRows
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[Prediction]:
        """Answers for photos that could not be read."""
        return [self.answers[number] for number in sorted(self.answers.errors)]

    @property
    def share_asked(self) -> float | None:
        """Share of members asked, 0..1, over the photos that were read; None if none was."""
        could = (len(self.answers) - len(self.answers.errors)) * self.members
        return int(self.answers.asked.sum()) / could if could else None


@dataclass(frozen=True)
class MeasuredCascade:
    """The result of `cascade`: a measured and saved cascade.

    Attributes:
        ensemble: id of the ensemble.
        measured: the curve, and the point chosen on it.
        path: the file that it was saved in.
        picture: the plot of the curve.
    """

    ensemble: str
    measured: Measured
    path: Path
    picture: Path


@checks_arguments
def ensemble(
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    strategy: str = "soft",
    calibrate: str = "none",
    decide: str = "argmax",
    pool_people: bool = False,
    members: Sequence[str] = (),
    external: Sequence[PathLike] = (),
    scored: bool = True,
    data: PathLike | None = None,
    device: str = "auto",
    listen: Listener = ignore_events,
) -> BuiltEnsemble:
    """Fuses runs, scores them out of fold, and saves the ensemble, which becomes the current one: `orch ensemble`.

    Args:
        workspace: the workspace of the runs.
        strategy: `soft`, `hard`, `geometric`, `power:P` with P between 0 and 1, or `greedy`; `mask=hard,age=soft` for several.
        calibrate: `none`, `temperature` or `vector`.
        decide: `argmax`, or `macro-f1`: multipliers of classes that are learned for the 18-way macro F1.
        pool_people: learn how a person's photos answer together for age and gender; the scores are of these answers.
        members: `TASK=RUN` or `TASK=RUN,RUN`; other tasks use their current run. `joint=RUN` votes in all tasks,
            `joint=RUN:TASK,TASK` in these.
        external: tables of probabilities, or old submissions, that vote too.
        scored: whether to score it; runs that hold people out in different folds cannot be scored.
        data: where the newest run's photos are now, for people who joined after other runs were trained; None: where they
            were.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; answers for these people.
        listen: receives progress events.

    Raises:
        OrchestratorError: runs that are missing, unfinished, damaged, or do not fit together.
    """
    workspace, files = Path(workspace), [*map(Path, external)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.core.strategies import Strategy
    from orchestrator.ensembling.choosing import choose_runs, votes_in

    mistakes = Mistakes()
    with mistakes.collect():
        parsed = Strategy.parse(strategy, calibrate, decide, pool_people)
    for path in files:
        if path.is_dir() or not path.exists():
            why = "a folder, and a table is needed" if path.is_dir() else "no such file"
            mistakes.add(ConfigError(f"--with {path}: {why}."))
    mistakes.raise_if_any()
    opened_workspace = Workspace(workspace)
    runs = choose_runs(opened_workspace, members)
    from orchestrator.ensembling.build import build_ensemble, why_unscored
    from orchestrator.ensembling.external import deduplicated, read_external
    from orchestrator.ensembling.newest_labels import check_labels

    tables, duplicate_notes = deduplicated([read_external(path) for path in files])
    for note in duplicate_notes:
        log.warning(note)
    from orchestrator.specialists import SPECIALISTS

    later: Mapping[str, LaterAnswers] = {}
    if scored and not why_unscored(opened_workspace, runs):
        from orchestrator.pipeline.later_answers import later_answers

        chosen = [run for of_task in runs.values() for run in of_task]
        check_labels(opened_workspace, chosen, SPECIALISTS)
        later = later_answers(opened_workspace, chosen, device, path_or_none(data), listen)
    built = build_ensemble(
        opened_workspace, parsed, runs, SPECIALISTS, scored=scored, external=tables, later=later,
        votes_in=votes_in(members),
    )  # fmt: skip
    if built.scored is not None:
        from orchestrator.pictures import draw_evaluation

        draw_evaluation(built.record, built.record.scores_picture)
    return built


@checks_arguments
def load_predictor(
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    strategy: str | None = None,
    engine: str = "torch",
    precision: str = "auto",
    sample: Sequence[Photo | PathLike] = (),
    device: str = "auto",
    listen: Listener = ignore_events,
) -> Predictor:
    """Loads an ensemble once for many predictions: `answers` of the predictor (orchestrator/inference/predictor.py).

    Args:
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        strategy: a vote that learns nothing, as of `ensemble`; None: the ensemble's own.
        engine: `torch`, `auto` (the fastest here, whatever the number of photos), `onnx` or `openvino`.
        precision: `auto` or `fp32`.
        sample: photos on which an engine other than torch is checked and tried: files, folders, bytes of files, or decoded
            pixels (H, W, 3), uint8, RGB; 16 suffice.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: no such ensemble, files of it that are missing or changed, no such device, an engine that is not
            installed or answers otherwise than torch, or one without a sample.
    """
    workspace = Path(workspace)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import PredictionOptions

    mistakes, options = Mistakes(), PredictionOptions(strategy, engine, precision, device)
    with mistakes.collect():
        options.check()
    if engine != "torch" and not sample:
        mistakes.add(ConfigError(f"--engine {engine}: give `sample`, photos on which it is checked against torch."))
    mistakes.raise_if_any()
    opened_workspace = Workspace(workspace)
    record = opened_workspace.ensemble(ensemble)
    photos = _sample(sample)
    loaded = _load(opened_workspace, record, options, listen)
    return _on_engines(loaded, opened_workspace, photos, options, listen, more=True).predictor


@checks_arguments
def predict(
    photos: Sequence[PathLike] = (),
    *,
    eval_folder: PathLike | None = None,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    strategy: str | None = None,
    people: str | Mapping[str, str] | None = None,
    on_error: str = "fail",
    batch: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    cascade: bool = False,
    device: str = "auto",
    out: PathLike | None = None,
    probabilities: PathLike | None = None,
    picture: PathLike | None = None,
    profile: bool = False,
    listen: Listener = ignore_events,
) -> Predicted:
    """Predicts photos, and writes the requested files: `orch predict`.

    Args:
        photos: files and folders.
        eval_folder: a folder with info.csv and images/, instead of photos.
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        strategy: a vote that learns nothing, as of `ensemble`; None: the ensemble's own.
        people: who is on which photo, so that photos of one person answer together: `folder`, where each photo's folder is a
            person; a column of info.csv; or photo -> person; None: each photo answers alone.
        on_error: `fail`, or `mark` a photo that cannot be read.
        batch: photos per batch; 0: automatic.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        precision: `auto`, or `fp32`: no engine whose answers differ from torch's by over 1e-4.
        cascade: ask a member only while the vote could still change.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        out: the file of answers (.csv, .parquet, .json); with `eval_folder` the contest's submission.
        probabilities: a .parquet of all probabilities.
        picture: a .png of photos with their answers.
        profile: measure where the time goes.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble; photos that cannot be read, unless marked.
    """
    workspace, eval_folder, files = Path(workspace), path_or_none(eval_folder), [*map(Path, photos)]
    out, probabilities, picture = path_or_none(out), path_or_none(probabilities), path_or_none(picture)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import PredictionOptions

    options = PredictionOptions(strategy, engine, precision, device, on_error)
    outputs = _outputs(eval_folder, out, probabilities, picture)
    _check_predict(options, files, eval_folder, workspace, outputs, cascade and people is not None)
    opened_workspace = Workspace(workspace)
    record, contest, paths = _to_answer(opened_workspace, ensemble, files, eval_folder, on_error == "mark", cascade)
    persons = _persons_of(record, strategy, people, contest, paths)
    _check_apart(outputs, opened_workspace, contest, paths)
    loaded = _load(opened_workspace, record, options, listen, len(paths))
    current = " (current)" if ensemble is None else ""
    votes, device_name = loaded.combiner.title, loaded.runtime.device
    log.info(f"ensemble {record.id}{current}: {len(loaded.members)} members, {votes}, on {device_name}.")
    on_engines = _on_engines(loaded, opened_workspace, paths, options, listen)
    stages, done = Stages(profile), progress_callback(listen, "predict")
    with on_engines.predictor as predictor:
        rule = _cascade_of(record, predictor) if cascade else None
        rows = predictor.external_rows(paths)
        done(0, len(paths))
        answers = predictor.answers(
            paths, on_error=on_error, batch=batch, cascade=rule, already_read=on_engines.first_results, rows=rows,
            people=persons, stages=stages, done=done,
        )  # fmt: skip
    predicted = Predicted(record.id, answers, len(predictor.members), rows, stages.seconds)
    if cascade and predicted.share_asked is not None:
        log.info(f"asked {100 * predicted.share_asked:.0f} % of the members.")
    _write(predicted, outputs, contest, paths)
    return predicted


@checks_arguments
def pseudo_label(
    photos: Sequence[PathLike] = (),
    *,
    out: PathLike,
    eval_folder: PathLike | None = None,
    threshold: float = 0.95,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    skip_unreadable: bool = False,
    device: str = "auto",
    listen: Listener = ignore_events,
) -> PseudoLabels:
    """Writes pseudo-labels for training: confident answers of each fold's members: `orch pseudo`.

    Args:
        photos: files and folders.
        out: the table to write, .csv or .parquet.
        eval_folder: a folder with info.csv and images/, instead of photos.
        threshold: mean probability at which a task's likeliest class becomes a label, 0.5 up to, not including, 1.
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        skip_unreadable: leave out photos that cannot be read, instead of failing.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble.
    """
    workspace, out, eval_folder, files = Path(workspace), Path(out), path_or_none(eval_folder), [*map(Path, photos)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.photo_files import check_some_photo
    from orchestrator.inference.options import PredictionOptions, check_threshold

    mistakes, output = Mistakes(), Output("--out", out, (".csv", ".parquet"))
    options = PredictionOptions(device=device)
    with mistakes.collect():
        example = orch("pseudo", "--eval", "DIR", "--out", "pseudo.parquet", workspace=workspace)
        _check_sources({"photos": files, EVAL: eval_folder}, example)
    with mistakes.collect():
        check_threshold(threshold)
    with mistakes.collect():
        options.check()
    with mistakes.collect():
        check_outputs([output], workspace=workspace)
    mistakes.raise_if_any()
    opened_workspace = Workspace(workspace)
    record = opened_workspace.ensemble(ensemble)
    contest, paths = _photos(files, eval_folder, missing_too=False)
    if files and not skip_unreadable:
        check_some_photo(paths)
    from orchestrator.inference import pseudo

    opened_workspace.check_members(record)
    plans = {name: opened_workspace.run(name).plan for name in record.run_ids}
    pseudo.check_labelling(record, plans)
    pseudo.check_names(paths)
    _check_apart([output], opened_workspace, contest, paths)
    with _load(opened_workspace, record, options, listen) as predictor:
        log.info(f"ensemble {record.id}: {len(predictor.members)} members; each fold's members label on their own.")
        plan = next(plan.digest for plan in plans.values() if plan)
        done = progress_callback(listen, "label")
        labels = pseudo.pseudo_label(
            predictor, record.read_combiners_by_fold(), plan, paths, threshold, done, skip_unreadable
        )
    pseudo.write_labels(labels, output)
    return labels


@checks_arguments
def cascade(
    photos: Sequence[PathLike] = (),
    *,
    eval_folder: PathLike | None = None,
    data: PathLike | None = None,
    rate: float = 0.001,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    distinct_people: bool = False,
    listen: Listener = ignore_events,
) -> MeasuredCascade:
    """Measures how few members suffice for the same labels, and saves that for `predict`: `orch cascade`.

    Args:
        photos: files and folders that no member has seen.
        eval_folder: a folder with info.csv and images/, instead of photos.
        data: a labelled source with other people, instead of photos.
        rate: share of labels that may differ from the full vote's, 0 up to, not including, 1.
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        distinct_people: treat names in `data` that differ only in spelling as different people.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble; photos that a member was trained on.
    """
    workspace, files = Path(workspace), [*map(Path, photos)]
    data, eval_folder = path_or_none(data), path_or_none(eval_folder)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.photo_files import check_some_photo
    from orchestrator.inference.options import PredictionOptions

    options = PredictionOptions(engine=engine, device=device)
    sources = {"photos": files, EVAL: eval_folder, SOURCE: data}
    _check_cascade(options, sources, workspace, rate)
    opened_workspace = Workspace(workspace)
    record = opened_workspace.ensemble(ensemble)
    truth = persons = None
    if data is None:
        _, paths = _photos(files, eval_folder, missing_too=False)
        check_some_photo(paths)
    else:
        paths, truth, persons = _labelled(data, distinct_people)
    _check_measurable(opened_workspace, record, rate, paths)
    from orchestrator.inference.cascade_measurement import measure_cascade, save_cascade
    from orchestrator.pictures import draw_cascade

    loaded = _load(opened_workspace, record, options, listen)
    on_engines = _on_engines(loaded, opened_workspace, paths, options, listen)
    with on_engines.predictor as predictor:
        done = progress_callback(listen, "ask")
        measured = measure_cascade(predictor, paths, rate, done, truth, persons, on_engines.first_results)
    path, picture = save_cascade(record.folder, measured), record.folder / CASCADE_PICTURE
    draw_cascade(measured, picture)
    return MeasuredCascade(record.id, measured, path, picture)


@checks_arguments
def export(
    out: PathLike,
    *,
    photos: Sequence[PathLike] = (),
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    listen: Listener = ignore_events,
) -> Exported:
    """Writes an ensemble's members as ONNX files, with a program that predicts with them: `orch export`.

    Args:
        out: a new or empty folder, or an earlier export, which it replaces.
        photos: photos to check the files on; empty: training photos in the pixel store.
        workspace: the workspace of the ensemble.
        ensemble: its id; None: the current one.
        listen: receives progress events.

    Returns:
        What was written, with each file's largest difference from torch.

    Raises:
        OrchestratorError: packages that are missing, a folder that holds other files, an ensemble that cannot be exported.
    """
    workspace, out, files = Path(workspace), Path(out), [*map(Path, photos)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.photo_files import check_some_photo, find_photos
    from orchestrator.inference.options import PACKAGES, PredictionOptions, check_export_folder

    mistakes = Mistakes()
    with mistakes.collect():
        require(f"`{orch('export', workspace=workspace)}`", "engines", PACKAGES["onnx"])
    with mistakes.collect():
        check_outputs([Output("--out", out, folder=True)], workspace=workspace)
        check_export_folder(out)
    with mistakes.collect():
        check_photos = find_photos(files) if files else []
    mistakes.raise_if_any()
    opened_workspace = Workspace(workspace)
    record = opened_workspace.ensemble(ensemble)
    from orchestrator.artifacts.cards import MemberCard
    from orchestrator.data.preprocessing import Preprocess
    from orchestrator.inference.ensemble_export import check_export, export_ensemble

    if check_photos:
        check_some_photo(check_photos)
    opened_workspace.check_members(record)
    cards = [MemberCard.load(opened_workspace.root / member.folder) for member in record.members]
    geometries = [Preprocess.from_dict(card.preprocess).geometry for card in cards]
    check_export(record, geometries, opened_workspace.store, check_photos)
    done = progress_callback(listen, "export members")
    with _load(opened_workspace, record, PredictionOptions(device="cpu"), listen) as predictor:
        return export_ensemble(
            predictor, record.id, out, opened_workspace.engines, opened_workspace.store, check_photos, done
        )


def _sample(given: Sequence[Photo | PathLike]) -> list[Photo]:
    """The photos of a sample: those of its files and folders, then those that were given as bytes or pixels."""
    from orchestrator.data.photo_files import find_photos
    from orchestrator.inference.reader import as_photo

    photos = [as_photo(photo, number) for number, photo in enumerate(given)]
    paths = [photo for photo in photos if isinstance(photo, Path)]
    return [*(find_photos(paths) if paths else []), *(photo for photo in photos if not isinstance(photo, Path))]


def _check_sources(sources: Mapping[str, Sequence[Path] | Path | None], example: str) -> None:
    """Refuses a command without a source of photos, with several, or with a folder or table that is not there.

    Args:
        sources: how a source is given -> what was given; None or empty: nothing.
        example: a command with a source.
    """
    from orchestrator.data.paths import check_eval
    from orchestrator.data.readers import check_source

    if sum(map(bool, sources.values())) != 1:
        *others, last = sources
        raise ConfigError(f"give exactly one of {', '.join(others)} and {last}. Example: `{example}`")
    checks: Mapping[str, Callable[[Path], object]] = {EVAL: check_eval, SOURCE: check_source}
    for option, check in checks.items():
        if isinstance(source := sources.get(option), Path):
            check(source)


def _outputs(
    eval_folder: Path | None, out: Path | None, probabilities: Path | None, picture: Path | None
) -> list[Output]:
    """The files that a prediction writes."""
    endings = (".csv",) if eval_folder is not None else TABLES
    requested = (
        ("--out", out, endings), ("--probabilities", probabilities, (".parquet",)), ("--picture", picture, (".png",)),
    )  # fmt: skip
    return [Output(option, path, suffixes) for option, path, suffixes in requested if path is not None]


def _check_predict(
    options: PredictionOptions, photos: Sequence[Path], eval_folder: Path | None, workspace: Path, outputs: Sequence[Output],
    together_in_cascade: bool,
) -> None:  # fmt: skip
    """Raises every error of `predict` that can be found without the ensemble."""
    mistakes = Mistakes()
    if together_in_cascade:
        mistakes.add(
            ConfigError("--pool-people needs all members' answers for all photos of a person: leave --cascade out.")
        )
    with mistakes.collect():
        options.check()
    with mistakes.collect():
        example = orch("predict", "--eval", "DIR", "--out", "submission.csv", workspace=workspace)
        _check_sources({"photos": photos, EVAL: eval_folder}, example)
    if eval_folder is not None and not any(output.option == "--out" for output in outputs):
        mistakes.add(
            ConfigError("--eval and --out go together: the folder to answer and the submission file to write.")
        )
    with mistakes.collect():
        check_outputs(outputs, workspace=workspace)
    mistakes.raise_if_any()


def _check_cascade(
    options: PredictionOptions, sources: Mapping[str, Sequence[Path] | Path | None], workspace: Path, rate: float
) -> None:
    """Raises every error of `cascade` that can be found without the ensemble."""
    from orchestrator.inference.options import check_rate

    mistakes = Mistakes()
    with mistakes.collect():
        example = orch("cascade", "--eval", "DIR", "--rate", "0.01", workspace=workspace)
        _check_sources(sources, example)
    with mistakes.collect():
        check_rate(rate)
    with mistakes.collect():
        options.check()
    mistakes.raise_if_any()


def _check_measurable(workspace: Workspace, record: EnsembleRecord, rate: float, paths: Sequence[Path]) -> None:
    """Raises what forbids measuring an ensemble's cascade on these photos: too few of them, or some that were trained on."""
    from orchestrator.artifacts.origins import trained_photo_hashes
    from orchestrator.inference import cascade_measurement

    mistakes = Mistakes()
    with mistakes.collect():
        cascade_measurement.check_measurable(record, rate, len(paths))
    with mistakes.collect():
        workspace.check_members(record)
        cascade_measurement.check_unseen(paths, trained_photo_hashes(workspace, record.run_ids))
    mistakes.raise_if_any()


def _to_answer(
    workspace: Workspace, ensemble: str | None, photos: Sequence[Path], eval_folder: Path | None, missing_too: bool, cascade: bool
) -> tuple[EnsembleRecord, Eval | None, list[Path]]:  # fmt: skip
    """The ensemble, the contest's table and the photos; errors in all of them are raised together."""
    from orchestrator.data.photo_files import check_some_photo
    from orchestrator.inference.options import check_cascade

    mistakes = Mistakes()
    with mistakes.collect():
        record = workspace.ensemble(ensemble)
        if cascade:
            check_cascade(record.runs, record.external)
    with mistakes.collect():
        contest, paths = _photos(photos, eval_folder, missing_too)
    mistakes.raise_if_any()
    if photos and not missing_too:
        check_some_photo(paths)
    return record, contest, paths


def _people_of(people: str | Mapping[str, str], contest: Eval | None, paths: Sequence[Path]) -> list[str | None]:
    """Who is on each photo, None where that is not known.

    Raises:
        ConfigError: a word that says nothing of these photos.
    """
    if not isinstance(people, str):
        by_path = {str(Path(path).absolute()): name for path, name in people.items()}
        persons = [by_path.get(str(path.absolute())) or None for path in paths]
        if not any(persons):
            raise ConfigError(f"people: none of the {quantity(len(paths), 'photo')} is among the {len(people)} in it.")
        return persons
    if contest is None and people == "folder":
        return [str(path.absolute().parent) for path in paths]
    if contest is None:
        raise ConfigError(f"--pool-people {people}; allowed: folder, or with --eval a column of info.csv.")
    if people not in contest.table:
        columns = ", ".join(contest.table.columns)
        raise ConfigError(
            f"--pool-people {people}: with --eval a column of {contest.table.path} says who is on the photos; it has {columns}."
        )
    return [name.strip() or None for name in contest.table.texts(people)]


def _persons_of(
    record: EnsembleRecord,
    strategy: str | None,
    people: str | Mapping[str, str] | None,
    contest: Eval | None,
    paths: Sequence[Path],
) -> list[str | None] | None:
    """Who is on each photo, for an ensemble that has learned how a person's photos answer together; None: each answers alone."""
    persons = None if people is None else _people_of(people, contest, paths)
    _check_people(record, strategy, persons)
    return persons


def _check_people(record: EnsembleRecord, strategy: str | None, persons: Sequence[str | None] | None) -> None:
    """Refuses people for an ensemble that has not learned how their photos answer together; logs whether they will.

    Raises:
        ConfigError: it has not.
    """
    learned = record.strategy.pool_people and strategy is None
    if persons is None:
        if learned:
            log.info(
                "each photo answers alone: --pool-people says who is on them, and a person's photos answer together."
            )
        return
    if record.strategy.pool_people and strategy:
        raise ConfigError(
            f"--strategy {strategy} has learned nothing, and so not how a person's photos answer together: leave it out."
        )
    if not learned:
        options = [] if "hard" in record.strategy.votes.values() else record.strategy.options
        build = orch("ensemble", *options, "--pool-people", *record.member_options, workspace=record.root)
        raise ConfigError(
            f"{record.id} ({record.strategy.title}) has not learned how a person's photos answer together: `{build}` builds an "
            "ensemble that has."
        )
    together = len(set(filter(None, persons)))
    counted = "1 person" if together == 1 else f"{together:,} people"
    log.info(f"photos of one person answer together: {counted} on {quantity(len(persons), 'photo')}.")


def _photos(photos: Sequence[Path], eval_folder: Path | None, missing_too: bool) -> tuple[Eval | None, list[Path]]:
    """The contest's table, where it was asked for, and the photos to answer for."""
    if eval_folder is None:
        from orchestrator.data.photo_files import find_photos

        return None, find_photos(photos)
    from orchestrator.data.contest import read_eval

    contest = read_eval(eval_folder, missing_too)
    return contest, list(contest.paths)


def _check_apart(outputs: Sequence[Output], workspace: Workspace, contest: Eval | None, paths: Sequence[Path]) -> None:
    """Rejects outputs that would overwrite a photo or table that is read."""
    from orchestrator.artifacts.sources import tables_of

    check_outputs(outputs, [*paths, *([] if contest is None else [contest.table.path]), *tables_of(workspace)])


def _load(
    workspace: Workspace,
    record: EnsembleRecord,
    options: PredictionOptions,
    listen: Listener,
    photos: int | None = None,
) -> Predictor:
    """A predictor for an ensemble; `photos`: how many it will predict, None: unknown."""
    from orchestrator.inference.opening import open_predictor
    from orchestrator.inference.options import check_engine
    from orchestrator.inference.runtime import CALL
    from orchestrator.networks.devices import resolve_device

    device = resolve_device(options.device)
    check_engine(options.engine, device)
    sharing = photos is None or photos > CALL or options.engine not in ("auto", "torch")
    return open_predictor(
        workspace, record, device, progress_callback(listen, "load members"), options.strategy, sharing
    )


def _on_engines(
    predictor: Predictor,
    workspace: Workspace,
    photos: Sequence[Photo],
    options: PredictionOptions,
    listen: Listener,
    more: bool = False,
) -> PredictorOnEngines:
    """The predictor on the engines chosen for these photos, and for an unknown number of others with `more`; the choice is
    logged."""
    from orchestrator.inference.engine_selection import choose_engines

    done = progress_callback(listen, "write exports")
    on_engines = choose_engines(predictor, photos, options.engine, options.fp32_only, workspace.engines, done, more)
    for chosen in on_engines.chosen:
        log.info(f"{chosen}.")
    return on_engines


def _cascade_of(record: EnsembleRecord, predictor: Predictor) -> Cascade:
    """The ensemble's measured cascade, or the exact one; which of them is logged."""
    from orchestrator.inference.cascade import EXACT
    from orchestrator.inference.cascade_measurement import read_cascade

    saved = read_cascade(record.folder, predictor.combiner)
    if saved is not None and saved.cascade.rate > 0:
        log.info(
            f"cascade of {record.id}: {100 * saved.changed:.3g} % of labels changed on the {saved.photos:,} photos that it was "
            f"measured on; up to {100 * saved.changed_at_most:.3g} % may elsewhere (95 % interval)."
        )
        return saved.cascade
    measure = orch("cascade", "PHOTOS", "--ensemble", record.id, workspace=record.root)
    more = f" `{measure}` looks for one that saves more." if saved is None and predictor.combiner.averages else ""
    log.info(f"cascade: exact, no label can change.{more}")
    return EXACT


def _write(predicted: Predicted, outputs: Sequence[Output], contest: Eval | None, paths: Sequence[Path]) -> None:
    """Writes the requested files, and logs each."""
    from orchestrator.inference.tables import write_answers, write_probabilities, write_submission
    from orchestrator.pictures import contact_sheet

    answers, failed = predicted.answers, len(predicted.failed)
    empty = f", {failed} of them empty." if failed else "."
    for output in outputs:
        path = output.path
        if output.option == "--probabilities":
            write_probabilities(path, contest.names if contest is not None else [str(path) for path in paths], answers)
            log.info(f"{path}: probabilities of every photo.")
        elif output.option == "--picture":
            contact_sheet(answers, path)
            log.info(f"{path}: photos with their answers.")
        elif contest is not None:
            write_submission(path, contest, answers)
            log.info(f"{path}: {quantity(len(answers), 'row')} in info.csv's order{empty}")
        else:
            write_answers(output, answers)
            log.info(f"{path}: {quantity(len(answers), 'row')}, in the order of the photos{empty}")


def _labelled(data: Path, distinct: bool) -> tuple[list[Path], NDArray[np.int64], pd.Series[str]]:
    """A source's photos, 18-way labels, shape (N,), and people, shape (N,)."""
    from orchestrator.core.labels import compose
    from orchestrator.data.readers import read
    from orchestrator.specialists import SPECIALISTS

    source = read(data, distinct=distinct)
    source.require([column for task in TASKS for column in SPECIALISTS[task].columns], "a macro F1")
    truth = compose(*(SPECIALISTS[task].label(source.table) for task in TASKS))
    return source.paths, truth, source.table["person"]

"""The Python API: one function for each command, with plain arguments and return values.

Every `orch` command parses its arguments, calls one of these functions and prints. Heavy modules are imported only
when needed, so mistakes in the arguments are reported at once. Every user error is an `OrchestratorError`; its message
names arguments as the command line spells them (`--rate` is the argument `rate`). Messages about what was found and
decided go to the logger "orchestrator"; progress goes to `listen` as events (orchestrator/core/events.py).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.commands import DEFAULT_WORKSPACE, orch
from orchestrator.core.errors import ConfigError, Mistakes, OrchestratorError, check_choice, counted
from orchestrator.core.events import Listener, counter, nobody
from orchestrator.core.extras import require
from orchestrator.core.labels import TASKS
from orchestrator.core.outputs import TABLES, Output, check_outputs
from orchestrator.core.stages import Stages
from orchestrator.pipeline.settings import Settings
from orchestrator.training.cancelling import CancelFile, CancelledError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from orchestrator.artifacts.ensembles import EnsembleRecord
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.contest import Eval
    from orchestrator.ensembling.build import BuiltEnsemble
    from orchestrator.ensembling.external import ExternalTable
    from orchestrator.execution.executor import Executor
    from orchestrator.experiments.comparing import Comparison
    from orchestrator.experiments.sweeps import Sweep
    from orchestrator.experiments.tta import ViewEffect
    from orchestrator.experiments.tuning import Stage
    from orchestrator.inference.cascade import Cascade
    from orchestrator.inference.cascading import Measured
    from orchestrator.inference.exporting import Exported
    from orchestrator.inference.predictions import OnEngines, Prediction
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.pseudo import PseudoLabels
    from orchestrator.pipeline.training import Report
    from orchestrator.recipes.schema import Recipe
    from orchestrator.specialist import Specialist
    from orchestrator.training.cancelling import Cancel

__all__ = [
    "CancelFile", "CancelledError", "MeasuredCascade", "OrchestratorError", "Predicted", "Settings", "Viewed", "cascade",
    "compare", "ensemble", "export", "load_predictor", "predict", "pseudo_label", "resume", "search", "train", "train_all",
    "train_grid", "tta", "tune",
]  # fmt: skip

log = logging.getLogger(__name__)

CASCADE_PICTURE = "cascade.png"

PathLike = str | os.PathLike[str]
"""Path of a file or folder."""


@dataclass(frozen=True)
class Predicted:
    """The result of `predict`.

    Attributes:
        ensemble: id of the ensemble.
        answers: one answer per photo, in input order.
        members: number of members in the ensemble.
        external: external tables that also voted.
        seconds: stage -> seconds, summed over all threads; empty without `profile`.
    """

    ensemble: str
    answers: Sequence[Prediction]
    members: int
    external: Sequence[ExternalTable] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> list[Prediction]:
        """Answers for photos that could not be read."""
        return [answer for answer in self.answers if answer.error]

    @property
    def share_asked(self) -> float | None:
        """Share of members asked, 0..1, over the photos that were read; None if none was."""
        could = (len(self.answers) - len(self.failed)) * self.members
        return sum(answer.asked for answer in self.answers) / could if could else None


@dataclass(frozen=True)
class Viewed:
    """The result of `tta`: a run's answers with several views of each photo.

    Attributes:
        flips: scores without and with views, and which answers changed.
        kept: the run made of these answers; None without `keep`.
        classes: the specialist's class names, in code order.
    """

    flips: ViewEffect
    kept: RunRecord | None
    classes: Sequence[str]


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


def train_all(
    settings: Settings,
    *,
    tasks: Sequence[str] = TASKS,
    listen: Listener = nobody,
) -> Report:
    """Trains specialists over the folds of one fold plan, or resumes that training: `orch train-all`.

    Args:
        settings: what is asked for.
        tasks: some of `age`, `gender`, `mask`.
        listen: receives progress events.

    Returns:
        The report, with the members that failed or were asked to stop.

    Raises:
        OrchestratorError: whatever is wrong with the settings or the data, before any training.
    """
    from orchestrator.pipeline.settings import check_early
    from orchestrator.specialists import chosen

    specialists = chosen(tasks)
    check_early(settings, specialists)
    from orchestrator.pipeline import training

    return training.train_all(settings, specialists, listen)


def train(
    task: str,
    settings: Settings,
    *,
    retrain_folds: Sequence[int] = (),
    base: str | None = None,
    again: bool = False,
    listen: Listener = nobody,
) -> Report:
    """Trains one specialist into a new run, and leaves the others' files alone: `orch train`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: what is asked for.
        retrain_folds: folds to train; the other members are shared with the base run.
        base: id of the run to start from; None: the current run.
        again: train even if a complete run with the same settings exists.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings or the data, before any training.
    """
    from orchestrator.pipeline.retraining import base_run, check_fold_numbers, resolve_plan
    from orchestrator.pipeline.settings import check_early
    from orchestrator.specialists import trainable

    specialist = trainable(task)
    if retrain_folds and settings.folds_used:
        raise ConfigError(
            "--fold trains some folds anew and shares the others; --valid-only and --folds-used train the first ones alone. Give "
            "one of them."
        )
    before = base_run(settings.workspace, task, base, bool(retrain_folds))
    check_early(settings, {task: specialist}, before)
    check_fold_numbers(retrain_folds, resolve_plan(settings, task, retrain_folds, before).folds)
    from orchestrator.pipeline import training

    return training.retrain(settings, specialist, listen, sorted(set(retrain_folds)), base, again)


def train_grid(task: str, settings: Settings, *, grid: Sequence[str], listen: Listener = nobody) -> Report:
    """Trains one run for each combination of some settings of one specialist: `orch train --grid`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: everything except the grid.
        grid: `KEY=A,B,...` words.
        listen: receives progress events.

    Returns:
        The report; its runs are in the order of the combinations.

    Raises:
        OrchestratorError: whatever is wrong with a combination, all of them at once, before any training.
    """
    from orchestrator.experiments.points import grid_points, settings_of
    from orchestrator.pipeline.retraining import base_run, check_fold_numbers, resolve_plan
    from orchestrator.pipeline.settings import check_early
    from orchestrator.specialists import trainable

    specialist = trainable(task)
    before = base_run(settings.workspace, task, None)
    check_early(settings, {task: specialist}, before)
    check_fold_numbers((), resolve_plan(settings, task, (), before).folds)
    settings_of(settings, specialist, grid_points(settings, specialist, grid), before)
    from orchestrator.experiments import grids

    return grids.train_grid(settings, specialist, grid, listen)


def resume(
    run: str,
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    data: PathLike | None = None,
    extra: Sequence[PathLike] = (),
    jobs: int = 0,
    device: str = "auto",
    store: bool = True,
    profile: bool = False,
    executor: Executor | None = None,
    cancel: tuple[Cancel, ...] = (),
    listen: Listener = nobody,
) -> Report:
    """Completes a run from its record alone: `orch resume`.

    Args:
        run: the run's id.
        workspace: the workspace of the run.
        data: the photos' new location; None: unchanged.
        extra: new locations of its tables of extra photos; empty: unchanged.
        jobs: members trained at once; 0: automatic.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: decode photos once into the workspace's pixel store.
        profile: record the time of each stage in the members' histories.
        executor: where members are trained; None: on this machine.
        cancel: stop requests, checked once per batch.
        listen: receives progress events.

    Raises:
        OrchestratorError: something that the run was started with is missing or has changed.
    """
    workspace, data, tables = Path(workspace), _path(data), [*map(Path, extra)]
    from orchestrator.artifacts.workspace import Workspace

    Workspace(workspace).run(run)
    from orchestrator.pipeline import resuming
    from orchestrator.specialists import TRAINABLE

    settings = Settings(
        Path(), workspace, jobs=jobs, device=device, store=store, profile=profile, executor=executor, cancel=cancel
    )
    return resuming.resume(workspace, run, TRAINABLE, listen, data, settings, tables)


def ensemble(
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    strategy: str = "soft",
    members: Sequence[str] = (),
    external: Sequence[PathLike] = (),
    scored: bool = True,
) -> BuiltEnsemble:
    """Fuses runs, scores them out of fold, and saves the ensemble, which becomes the current one: `orch ensemble`.

    Args:
        workspace: the workspace of the runs.
        strategy: `soft` or `hard`.
        members: `TASK=RUN` or `TASK=RUN,RUN`; other tasks use their current run.
        external: tables of probabilities, or old submissions, that vote too.
        scored: whether to score it; runs of different plans cannot be scored.

    Raises:
        OrchestratorError: runs that are missing, unfinished, damaged, or do not fit together.
    """
    workspace, files = Path(workspace), [*map(Path, external)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.combining import STRATEGIES
    from orchestrator.ensembling.choosing import choose_runs

    check_choice("--strategy", strategy, STRATEGIES)
    if missing := [f"--with {path}: no such file." for path in files if not path.exists()]:
        raise ConfigError("\n".join(missing))
    place = Workspace(workspace)
    runs = choose_runs(place, members)
    from orchestrator.ensembling.build import build_ensemble
    from orchestrator.ensembling.external import each_once, read_external

    tables, twice = each_once([read_external(path) for path in files])
    for note in twice:
        log.warning(note)
    return build_ensemble(place, strategy, runs, scored=scored, external=tables)


def load_predictor(
    *,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    strategy: str | None = None,
    device: str = "auto",
    listen: Listener = nobody,
) -> Predictor:
    """Loads an ensemble once for many predictions by `predict_photos` (orchestrator/inference/predictions.py).

    Args:
        workspace: that holds it.
        ensemble: its id; None: the current one.
        strategy: `soft` or `hard`; None: the ensemble's own.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: no such ensemble, files of it that are missing or changed, or no such device.
    """
    workspace = Path(workspace)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.combining import STRATEGIES
    from orchestrator.inference.options import check_device

    wrong = Mistakes()
    if strategy is not None:
        with wrong.kept():
            check_choice("--strategy", strategy, STRATEGIES)
    with wrong.kept():
        check_device(device)
    wrong.raise_if_any()
    place = Workspace(workspace)
    return _load(place, place.ensemble(ensemble), strategy, device, listen)


def predict(
    photos: Sequence[PathLike] = (),
    *,
    evaluation: PathLike | None = None,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    strategy: str | None = None,
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
    listen: Listener = nobody,
) -> Predicted:
    """Predicts photos, and writes the requested files: `orch predict`.

    Args:
        photos: files and folders.
        evaluation: a folder with info.csv and images/, in place of photos.
        workspace: that holds the ensemble.
        ensemble: its id; None: the current one.
        strategy: `soft` or `hard`; None: the ensemble's own.
        on_error: `fail`, or `mark` a photo that cannot be read.
        batch: photos per batch; 0: automatic.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        precision: `auto`, or `fp32`: no engine whose answers differ from torch's by over 1e-4.
        cascade: ask a member only while the vote could still change.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        out: the file of answers (.csv, .parquet, .json); with `evaluation` the contest's submission.
        probabilities: a .parquet of all probabilities.
        picture: a .png of photos with their answers.
        profile: measure where the time goes.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble; photos that cannot be read, unless marked.
    """
    workspace, evaluation, files = Path(workspace), _path(evaluation), [*map(Path, photos)]
    out, probabilities, picture = _path(out), _path(probabilities), _path(picture)
    from orchestrator.artifacts.workspace import Workspace

    outputs = _check_predict(files, evaluation, workspace, strategy, on_error, engine, precision, device, out,
                             probabilities, picture)  # fmt: skip
    place = Workspace(workspace)
    record, contest, paths = _to_answer(place, ensemble, files, evaluation, on_error == "mark", cascade)
    _check_apart(outputs, place, contest, paths)
    from orchestrator.inference.predictions import predict_photos

    predictor = _load(place, record, strategy, device, listen, engine, len(paths))
    current = " (current)" if ensemble is None else ""
    votes, where = f"{predictor.combiner.name} vote", predictor.runtime.device
    log.info(f"ensemble {record.id}{current}: {len(predictor.members)} members, {votes}, on {where}.")
    on_engines = _on_engines(predictor, place, paths, engine, precision == "fp32", listen)
    stages = Stages(profile)
    predictor = on_engines.predictor.timed(stages)
    rule = _cascade_of(record, predictor) if cascade else None
    done = counter(listen, "predict")
    done(0, len(paths))
    answers = predict_photos(predictor, paths, on_error == "mark", done, batch, rule, on_engines.known)
    found = Predicted(record.id, answers, len(predictor.members), predictor.external, stages.seconds)
    if cascade and found.share_asked is not None:
        log.info(f"asked {100 * found.share_asked:.0f} % of the members.")
    _write(found, outputs, contest, paths)
    return found


def pseudo_label(
    photos: Sequence[PathLike] = (),
    *,
    out: PathLike,
    evaluation: PathLike | None = None,
    threshold: float = 0.95,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    skip_unreadable: bool = False,
    device: str = "auto",
    listen: Listener = nobody,
) -> PseudoLabels:
    """Writes pseudo-labels for training: confident answers of each fold's members: `orch pseudo`.

    Args:
        photos: files and folders.
        out: the table to write, .csv or .parquet.
        evaluation: a folder with info.csv and images/, in place of photos.
        threshold: mean probability at which a task's likeliest class becomes a label, 0.5 to 1.
        workspace: that holds the ensemble.
        ensemble: its id; None: the current one.
        skip_unreadable: leave photos out that cannot be read, instead of failing.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble.
    """
    workspace, out, evaluation, files = Path(workspace), Path(out), _path(evaluation), [*map(Path, photos)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import check_device, check_threshold

    wrong, output = Mistakes(), Output("--out", out, (".csv", ".parquet"))
    if (evaluation is None) == (not photos):
        example = orch("pseudo", "--eval", "DIR", "--out", "pseudo.parquet", workspace=workspace)
        wrong.add(ConfigError(f"give either photos or --eval DIR. Example: `{example}`"))
    with wrong.kept():
        check_threshold(threshold)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_outputs([output], workspace=workspace)
    wrong.raise_if_any()
    place = Workspace(workspace)
    record = place.ensemble(ensemble)
    contest, paths = _photos(files, evaluation, missing_too=False)
    from orchestrator.inference import pseudo

    place.check_answering(record.id)
    plans = {name: place.run(name).plan for name in record.run_ids}
    pseudo.check_labelling(record, plans)
    pseudo.check_names(paths)
    _check_apart([output], place, contest, paths)
    predictor = _load(place, record, None, device, listen)
    log.info(f"ensemble {record.id}: {len(predictor.members)} members; each fold's members label on their own.")
    plan = next(str(plan["digest"]) for plan in plans.values() if plan)
    labels = pseudo.pseudo_label(predictor, plan, paths, threshold, counter(listen, "label"), skip_unreadable)
    pseudo.write_labels(labels, output)
    return labels


def cascade(
    photos: Sequence[PathLike] = (),
    *,
    evaluation: PathLike | None = None,
    data: PathLike | None = None,
    rate: float = 0.001,
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    distinct_people: bool = False,
    listen: Listener = nobody,
) -> MeasuredCascade:
    """Measures how few members suffice for the same labels, and saves that for `predict`: `orch cascade`.

    Args:
        photos: files and folders that no member has seen.
        evaluation: a folder with info.csv and images/, in place of photos.
        data: a labelled source with other people, instead of photos.
        rate: share of labels that may differ from the full vote's, 0 to 1.
        workspace: that holds the ensemble.
        ensemble: its id; None: the current one.
        engine: `auto`, `torch`, `onnx` or `openvino`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        distinct_people: treat names in `data` that differ only in spelling as different people.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with arguments, photos or the ensemble; photos that a member was trained on.
    """
    workspace, data, evaluation, files = Path(workspace), _path(data), _path(evaluation), [*map(Path, photos)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import check_device, check_engine, check_rate

    wrong = Mistakes()
    if sum((bool(photos), evaluation is not None, data is not None)) != 1:
        example = orch("cascade", "--eval", "DIR", "--rate", "0.01", workspace=workspace)
        wrong.add(ConfigError(f"give exactly one of photos, --eval DIR and --data SOURCE. Example: `{example}`"))
    with wrong.kept():
        check_rate(rate)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_engine(engine, device)
    wrong.raise_if_any()
    place = Workspace(workspace)
    record = place.ensemble(ensemble)
    from orchestrator.artifacts.origins import trained_content
    from orchestrator.inference import cascading

    truth = persons = None
    if data is None:
        _, paths = _photos(files, evaluation, missing_too=False)
    else:
        paths, truth, persons = _labelled(data, distinct_people)
    with wrong.kept():
        cascading.check_measurable(record, rate, len(paths))
    with wrong.kept():
        place.check_answering(record.id)
        cascading.check_unseen(paths, trained_content(place, record.run_ids))
    wrong.raise_if_any()
    from orchestrator.pictures import draw_cascade

    predictor = _load(place, record, None, device, listen, engine)
    predictor = _on_engines(predictor, place, paths, engine, False, listen).predictor
    measured = cascading.measure_cascade(predictor, paths, rate, counter(listen, "ask"), truth, persons)
    path, picture = cascading.save_cascade(record.folder, measured), record.folder / CASCADE_PICTURE
    draw_cascade(measured.as_dict(), picture)
    return MeasuredCascade(record.id, measured, path, picture)


def export(
    out: PathLike,
    *,
    photos: Sequence[PathLike] = (),
    workspace: PathLike = DEFAULT_WORKSPACE,
    ensemble: str | None = None,
    listen: Listener = nobody,
) -> tuple[str, Exported]:
    """Writes an ensemble's members as ONNX files, with a program that predicts with them: `orch export`.

    Args:
        out: a new or empty folder, or an earlier export, which it replaces.
        photos: photos to check the files on; empty: training photos in the pixel store.
        workspace: that holds the ensemble.
        ensemble: its id; None: the current one.
        listen: receives progress events.

    Returns:
        The ensemble's id, and each file's largest difference from torch.

    Raises:
        OrchestratorError: packages that are missing, a folder that holds other files, an ensemble that cannot be exported.
    """
    workspace, out, files = Path(workspace), Path(out), [*map(Path, photos)]
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.inference.options import PACKAGES

    wrong = Mistakes()
    with wrong.kept():
        require(f"`{orch('export', workspace=workspace)}`", "engines", PACKAGES["onnx"])
    with wrong.kept():
        check_outputs([Output("--out", out, folder=True)], workspace=workspace)
    wrong.raise_if_any()
    place = Workspace(workspace)
    record = place.ensemble(ensemble)
    from orchestrator.artifacts.cards import MemberCard
    from orchestrator.data.preprocessing import Preprocess
    from orchestrator.inference.exporting import check_export, export_ensemble
    from orchestrator.inference.predictions import find_photos

    given = find_photos(files) if files else []
    place.check_answering(record.id)
    cards = [MemberCard.load(place.root / member.folder) for member in record.members]
    geometries = [Preprocess.from_dict(card.preprocess).geometry for card in cards]
    check_export(out, record, geometries, place.store, given)
    predictor = _load(place, record, None, "cpu", listen)
    done = counter(listen, "export members")
    return record.id, export_ensemble(predictor, record.id, out, place.cache / "engines", place.store, given, done)


def tta(
    run: str,
    *,
    views: Sequence[str] = ("flip",),
    keep: bool = False,
    workspace: PathLike = DEFAULT_WORKSPACE,
    data: PathLike | None = None,
    columns: dict[str, str] | None = None,
    device: str = "auto",
    listen: Listener = nobody,
) -> Viewed:
    """Test-time augmentation tried on held-out people; nothing is trained: `orch tta`.

    Args:
        run: the run's id.
        views: views in addition to the photo itself: `flip`, `zoom`, `zoom_flip`.
        keep: save the answers as a new run with the same weights.
        workspace: the workspace of the run.
        data: the photos' new location; None: unchanged.
        columns: our column name -> the manifest's; None: unchanged.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        listen: receives progress events.

    Raises:
        OrchestratorError: views that the specialist must not have, photos that are not there, a run that cannot be scored.
    """
    workspace, data = Path(workspace), _path(data)
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.data.readers import check_source
    from orchestrator.inference.options import check_device
    from orchestrator.recipes.schema import VIEWS

    wrong = Mistakes()
    for view in views:
        with wrong.kept():
            check_choice("--views", view, VIEWS)
    if not views:
        wrong.add(ConfigError(f"--views: names no view; allowed: {', '.join(VIEWS)}."))
    with wrong.kept():
        check_device(device)
    if data is not None:
        with wrong.kept():
            check_source(data)
    wrong.raise_if_any()
    place = Workspace(workspace)
    record = place.run(run)
    from orchestrator.experiments.tta import check_run, keep_views, try_views
    from orchestrator.specialists import trainable

    check_run(record)
    specialist = trainable(record.task)
    flips = try_views(place, record, specialist, views, device, data, columns, counter(listen, "answer"))
    return Viewed(flips, keep_views(place, flips, specialist) if keep else None, specialist.classes)


def compare(
    runs: Sequence[str], *, workspace: PathLike = DEFAULT_WORKSPACE, picture: PathLike | None = None
) -> Comparison:
    """Compares runs of one specialist with the first, on the photos that all held out: `orch runs compare`.

    Args:
        runs: two ids or more.
        workspace: that holds them.
        picture: a .png of learning curves and gains.

    Raises:
        OrchestratorError: fewer than two runs, runs of several specialists, or damaged ones.
    """
    workspace, picture = Path(workspace), _path(picture)
    from orchestrator.artifacts.workspace import Workspace

    if len(set(runs)) < 2:
        example = orch("runs", "compare", "age-0001", "age-0002", workspace=workspace)
        raise ConfigError(f"a comparison needs two runs or more, as in {example}.")
    if picture is not None:
        check_outputs([Output("--picture", picture, (".png",))], workspace=workspace)
    place = Workspace(workspace)
    records = [place.run(name) for name in dict.fromkeys(runs)]
    from orchestrator.experiments.comparing import compare_runs
    from orchestrator.experiments.curves import draw_comparison
    from orchestrator.specialists import trainable

    found = compare_runs(place, records, trainable(records[0].task))
    if picture is not None:
        draw_comparison(found, picture)
    return found


def search(
    task: str,
    settings: Settings,
    *,
    space: PathLike | None = None,
    trials: int = 20,
    minutes: float | None = None,
    prune: bool = True,
    out: PathLike | None = None,
    picture: PathLike | None = None,
    listen: Listener = nobody,
) -> Sweep:
    """Searches for better settings of one specialist: `orch sweep`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: everything except the space; its recipe is the reference.
        space: a .toml of ranges and choices; None: the default one.
        trials: total number of trials.
        minutes: time after which no trial starts; None: no limit.
        prune: stop trials that stay below the median of the others.
        out: a .toml for the winner's recipe.
        picture: a .png of every trial.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings, the space or the data, before any training.
        CancelledError: a stop was requested; the same call resumes.
    """
    out, picture, space = _path(out), _path(picture), _path(space)
    from orchestrator.recipes.spaces import read_space

    specialist, before = _searchable(task, settings, space, out, picture)
    ranges = read_space(space)
    ranges.check(specialist, settings.recipes, settings.changes, before)
    from orchestrator.experiments.curves import draw_sweep
    from orchestrator.experiments.sweeps import sweep

    found = sweep(settings, specialist, ranges, listen, trials, minutes, prune)
    if picture is not None:
        draw_sweep(found, picture)
    if out is not None:
        _write_recipe(found.winner, out)
    return found


def tune(
    task: str,
    settings: Settings,
    *,
    stages: Sequence[str],
    space: PathLike | None = None,
    trials: int = 20,
    minutes: float | None = None,
    small: float = 0.75,
    prune: bool = True,
    out: PathLike | None = None,
    listen: Listener = nobody,
) -> list[Stage]:
    """Tunes one specialist in stages, each from the previous winner: `orch sweep --stages`.

    Args:
        task: `age`, `gender`, `mask` or `joint`.
        settings: its recipe is where the first stage starts.
        stages: stage names, in order.
        space: a .toml that has a table for each stage; None: the default one.
        trials: number of trials per stage.
        minutes: time after which no trial starts; None: no limit.
        small: photo size while searching, as a share of the full size, 0.3 to 1.
        prune: stop trials that stay below the median of the others.
        out: a .toml for the winner's recipe.
        listen: receives progress events.

    Raises:
        OrchestratorError: whatever is wrong with the settings, the stages or the data, before any training.
        CancelledError: a stop was requested; the same call resumes.
    """
    out, space = _path(out), _path(space)
    from orchestrator.recipes.spaces import read_stages

    specialist, before = _searchable(task, settings, space, out)
    spaces = read_stages(space, stages)
    for stage_space in spaces.values():
        stage_space.check(specialist, settings.recipes, settings.changes, before)
    from orchestrator.experiments import tuning

    found = tuning.tune(settings, specialist, spaces, listen, trials, minutes, small, prune)
    if out is not None:
        _write_recipe(found[-1].after, out)
    return found


def _path(place: PathLike | None) -> Path | None:
    return None if place is None else Path(place)


def _check_predict(
    photos: Sequence[Path], evaluation: Path | None, workspace: Path, strategy: str | None, on_error: str, engine: str,
    precision: str, device: str, out: Path | None, probabilities: Path | None, picture: Path | None,
) -> list[Output]:  # fmt: skip
    """The files to write; raises every error that can be found without the ensemble."""
    from orchestrator.combining import STRATEGIES
    from orchestrator.data.places import check_eval
    from orchestrator.inference.options import check_device, check_engine

    wrong = Mistakes()
    for option, value, allowed in (
        ("--on-error", on_error, ("fail", "mark")),
        ("--precision", precision, ("auto", "fp32")),
        ("--strategy", strategy, STRATEGIES),
    ):
        with wrong.kept():
            check_choice(option, value, allowed)
    with wrong.kept():
        check_device(device)
    with wrong.kept():
        check_engine(engine, device)
    if (evaluation is None) == (not photos):
        submission = orch("predict", "--eval", "DIR", "--out", "submission.csv", workspace=workspace)
        wrong.add(ConfigError(f"give either photos or --eval DIR. Example: `{submission}`"))
    if evaluation is not None and out is None:
        wrong.add(ConfigError("--eval and --out go together: the folder to answer and the submission file to write."))
    endings = (".csv",) if evaluation is not None else TABLES
    outputs = [
        Output(option, path, suffixes)
        for option, path, suffixes in (
            ("--out", out, endings), ("--probabilities", probabilities, (".parquet",)), ("--picture", picture, (".png",))
        )
        if path is not None
    ]  # fmt: skip
    if evaluation is not None:
        with wrong.kept():
            check_eval(evaluation)
    with wrong.kept():
        check_outputs(outputs, workspace=workspace)
    wrong.raise_if_any()
    return outputs


def _to_answer(
    place: Workspace, ensemble: str | None, photos: Sequence[Path], evaluation: Path | None, missing_too: bool, cascade: bool
) -> tuple[EnsembleRecord, Eval | None, list[Path]]:  # fmt: skip
    """The ensemble, the contest's table and the photos; errors in all of them are raised together."""
    from orchestrator.inference.options import check_cascade

    wrong = Mistakes()
    with wrong.kept():
        record = place.ensemble(ensemble)
        if cascade:
            check_cascade(record.runs, record.external)
    with wrong.kept():
        contest, paths = _photos(photos, evaluation, missing_too)
    wrong.raise_if_any()
    return record, contest, paths


def _photos(photos: Sequence[Path], evaluation: Path | None, missing_too: bool) -> tuple[Eval | None, list[Path]]:
    """The contest's table, where it was asked for, and the photos to answer for."""
    if evaluation is None:
        from orchestrator.inference.predictions import find_photos

        return None, find_photos(photos)
    from orchestrator.data.contest import read_eval

    contest = read_eval(evaluation, missing_too)
    return contest, list(contest.paths)


def _check_apart(outputs: Sequence[Output], place: Workspace, contest: Eval | None, paths: Sequence[Path]) -> None:
    """Rejects outputs that would overwrite a photo or table that is read."""
    from orchestrator.artifacts.origins import tables_of

    check_outputs(outputs, [*paths, *([] if contest is None else [contest.table.path]), *tables_of(place)])


def _load(
    place: Workspace, record: EnsembleRecord, strategy: str | None, device: str, listen: Listener, engine: str = "auto",
    photos: int | None = None,
) -> Predictor:  # fmt: skip
    """A predictor for an ensemble; `photos`: how many it will predict, None: unknown."""
    from orchestrator.inference.opening import open_predictor
    from orchestrator.inference.options import check_engine
    from orchestrator.inference.runtime import CALL
    from orchestrator.networks.devices import resolve_device

    where = resolve_device(device)
    check_engine(engine, where)
    sharing = photos is None or photos > CALL or engine not in ("auto", "torch")
    return open_predictor(place, record.id, where, counter(listen, "load members"), strategy, sharing)[1]


def _on_engines(
    predictor: Predictor, place: Workspace, paths: Sequence[Path], engine: str, exact: bool, listen: Listener
) -> OnEngines:
    """The predictor on the engines chosen for these photos; the choice is logged."""
    from orchestrator.inference.predictions import choose_engines

    done = counter(listen, "write exports")
    found = choose_engines(predictor, paths, engine, exact, place.cache / "engines", done)
    for chosen in found.chosen:
        log.info(f"{chosen}.")
    return found


def _cascade_of(record: EnsembleRecord, predictor: Predictor) -> Cascade:
    """The ensemble's measured cascade, or the exact one; which of them is logged."""
    from orchestrator.inference.cascade import EXACT
    from orchestrator.inference.cascading import read_cascade

    folder, combiner = record.folder, predictor.combiner
    kept = read_cascade(folder, combiner)
    if kept is not None and kept.cascade.rate > 0:
        log.info(
            f"cascade of {folder.name}: {100 * kept.changed:.3g} % of labels changed on the {kept.photos:,} photos that it was "
            f"measured on; up to {100 * kept.changed_at_most:.3g} % may elsewhere (95 % interval)."
        )
        return kept.cascade
    measure = orch("cascade", "PHOTOS", "--ensemble", folder.name, workspace=folder.parent)
    more = f" `{measure}` looks for one that saves more." if combiner.averages else ""
    log.info(f"cascade: exact, no label can change.{more}")
    return EXACT


def _write(found: Predicted, outputs: Sequence[Output], contest: Eval | None, paths: Sequence[Path]) -> None:
    """Writes the requested files, and logs each."""
    from orchestrator.inference.tables import write_answers, write_probabilities, write_submission
    from orchestrator.pictures import contact_sheet

    answers, failed = found.answers, len(found.failed)
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
            log.info(f"{path}: {len(answers):,} rows in info.csv's order{empty}")
        else:
            write_answers(output, answers)
            log.info(f"{path}: {counted(len(answers), 'row')}, in the order of the photos{empty}")


def _labelled(data: Path, distinct: bool) -> tuple[list[Path], NDArray[np.int64], pd.Series[str]]:
    """A source's photos, 18-way labels, shape (N,), and people, shape (N,)."""
    from orchestrator.core.labels import compose
    from orchestrator.data.readers import read
    from orchestrator.specialists import SPECIALISTS

    source = read(data, distinct=distinct)
    source.require([column for task in TASKS for column in SPECIALISTS[task].columns], "a macro F1")
    truth = compose(*(SPECIALISTS[task].label(source.table) for task in TASKS))
    return source.paths, truth, source.table["person"]


def _searchable(
    task: str, settings: Settings, space: Path | None, out: Path | None, picture: Path | None = None
) -> tuple[Specialist, Recipe | None]:
    """The specialist to search for, and its current run's recipe; rejects mistakes in names and tables."""
    from orchestrator.pipeline.retraining import base_run
    from orchestrator.pipeline.settings import base_recipe, check_early
    from orchestrator.recipes.load import choices_of
    from orchestrator.specialists import trainable

    require(f"`{orch('sweep', task, workspace=settings.workspace)}`", "sweep")
    specialist = trainable(task)
    outputs = [
        Output(option, path, (suffix,))
        for option, path, suffix in (("--out", out, ".toml"), ("--picture", picture, ".png"))
        if path is not None
    ]
    files = [Path(name) for name in choices_of((task,), settings.recipes)[0].values()]
    inputs = [settings.data, *([space] if space else []), *files, *settings.extra]
    check_outputs(outputs, inputs, settings.workspace)
    before = base_run(settings.workspace, task, None)
    check_early(settings, {task: specialist}, before)
    return specialist, base_recipe(settings, before)


def _write_recipe(run: RunRecord, out: Path) -> None:
    """Writes the recipe of a search's winner as a file to train from."""
    from orchestrator.core.outputs import written
    from orchestrator.recipes.load import recipe_as_toml
    from orchestrator.recipes.schema import Recipe

    recipe = Recipe.model_validate({**run.recipe, "about": f"found by a search: {run.id}, from {run.recipe_name}"})
    with written(out) as temporary:
        temporary.write_text(recipe_as_toml(recipe), encoding="utf-8")
    log.info(f"{out}: the recipe of {run.id}.")

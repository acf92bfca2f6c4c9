"""From runs to an ensemble: choose members, score them out of fold, save everything that prediction needs.

No image is touched: the runs' held-out tables hold every answer. Ensembles are immutable; a new one becomes current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.artifacts.cards import WEIGHTS
from orchestrator.artifacts.ensembles import (
    DISAGREEMENTS,
    OUT_OF_FOLD,
    EnsembleMember,
    EnsembleRecord,
    ExternalSource,
    TriedStrategy,
)
from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.members import check_member
from orchestrator.artifacts.origins import plan_of, table_of
from orchestrator.artifacts.run import RECORD, RunRecord
from orchestrator.artifacts.scored_answers import ScoredAnswers
from orchestrator.artifacts.workspace import Workspace, now
from orchestrator.combining.answers import Answers
from orchestrator.combining.combiners import Combined, Combiner
from orchestrator.combining.voting import WeightedVote
from orchestrator.core.errors import ConfigError, WorkspaceError
from orchestrator.core.files import atomic, sha256_of
from orchestrator.core.interval import Difference
from orchestrator.core.labels import CLASSES, LABELS, TASKS, decompose, tasks_of
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.data.lines import write_rows
from orchestrator.ensembling.auto import AutoLearner, try_strategies
from orchestrator.ensembling.choosing import make_ensemble_current
from orchestrator.ensembling.evaluation import Evaluation
from orchestrator.ensembling.external import ExternalTable
from orchestrator.ensembling.growth import LaterAnswers, check_one_family, join_grown, newest_run
from orchestrator.ensembling.learning import Learner, StrategyLearner, plain_combiner
from orchestrator.ensembling.newest_labels import newest_labels
from orchestrator.ensembling.out_of_fold import (
    OutOfFold,
    added_by,
    cross_fit,
    evaluate,
    fitted_to,
    join,
    singles,
    with_external,
)

if TYPE_CHECKING:
    from orchestrator.specialist import Specialist

__all__ = ["BuiltEnsemble", "Scored", "build_ensemble", "why_unscored"]

NAMES = {**CLASSES, "label": LABELS}
"""Task, or `label` -> names of its classes."""

DEFAULT_CONFIDENCE = 0.8
"""Probability given to the class of a bare label if the members' mean confidence is unknown (`--no-score`)."""


@dataclass(frozen=True)
class Scored:
    """What runs and tables answered out of fold, combined and scored.

    Attributes:
        combiner: the combiner, learned from all out-of-fold answers where anything is learned.
        combiners_by_fold: fold -> the combiner that has learned nothing from its people; empty if nothing is learned.
        evaluation: task, or `label` -> its scores; nested where anything is learned.
        plain: the same -> macro F1 of `combiner` on the very people that it was learned from; empty if nothing is learned.
        alone: the same -> nested macro F1 of each photo's own answer; empty unless a person's photos answer together.
        out_of_fold: the out-of-fold answers.
        combined: these answers, combined by combiners that have learned nothing from the photo's person (`CrossFitted`).
        disagreements: photos on which soft and hard votes differ, with both answers.
        tried: the strategies that `auto` tried; empty for others.
        added_by: run or table -> what it adds to the label's macro F1.
        left_out: runs and tables without any weight, which are not in the ensemble.
    """

    combiner: Combiner
    combiners_by_fold: Mapping[int, Combiner]
    evaluation: Mapping[str, Evaluation]
    plain: Mapping[str, float]
    alone: Mapping[str, float]
    out_of_fold: OutOfFold
    combined: Combined
    disagreements: pd.DataFrame
    tried: tuple[TriedStrategy, ...]
    added_by: Mapping[str, Difference]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class BuiltEnsemble:
    """A saved ensemble.

    Attributes:
        record: its saved record.
        scored: its scores; None without out-of-fold answers.
        is_current: whether it became the current ensemble.
    """

    record: EnsembleRecord
    scored: Scored | None
    is_current: bool


def build_ensemble(
    workspace: Workspace,
    strategy: Strategy,
    runs: Mapping[str, Sequence[RunRecord]],
    specialists: Mapping[str, Specialist],
    scored: bool = True,
    external: Sequence[ExternalTable] = (),
    later: Mapping[str, LaterAnswers] | None = None,
    votes_in: Mapping[str, tuple[str, ...]] | None = None,
) -> BuiltEnsemble:
    """Scores the chosen runs out of fold and saves them as an ensemble.

    It becomes the current one, unless the current one has a score and it has none, or it covers fewer people. Where labels
    were corrected between its runs, it is scored against the newest ones.

    Args:
        workspace: workspace in which it is saved.
        strategy: how their answers become one.
        runs: task -> its runs; `joint` -> runs that answer for all tasks.
        specialists: task -> specialist, whose function gives the codes of labels.
        scored: whether to score it; runs that hold people out in different folds allow only an ensemble without scores.
        external: external tables, each with the weight of one run; scored where they name the fold that answered.
        later: run -> its answers for photos that joined the data later, for each run that was not trained on all photos of
            the newest run.
        votes_in: joint run -> the tasks in which it votes; all three, if it is not there.

    Raises:
        ConfigError: the strategy learns from out-of-fold answers, and there are none.
        PlanError: the runs hold people out in different folds, so no out-of-fold score exists.
        DamagedError: a file of a member is missing or damaged.
        LeakError: a table judges people that its member has seen, or may have.
    """
    later = later or {}
    members = _members(workspace, runs, votes_in or {})
    why_none = why_unscored(workspace, runs) if scored else "left out as asked (--no-score)."
    if why_none and strategy.learns:
        asked = " ".join(strategy.options)
        raise ConfigError(f"{asked} learns from out-of-fold answers, and there are none: {why_none}")
    chosen = [run for of_task in runs.values() for run in of_task]
    out_of_fold, outdated = (None, {}) if why_none else _joined(workspace, chosen, specialists, later, votes_in or {})
    confidence = dict.fromkeys(TASKS, DEFAULT_CONFIDENCE) if out_of_fold is None else out_of_fold.mean_confidence
    external = [table.softened(confidence) for table in external]
    sources = _sources(external, out_of_fold)
    _check_seen(strategy, sources)
    if out_of_fold is not None and external:
        out_of_fold = with_external(out_of_fold, external, plan_of(workspace, newest_run(chosen)))
    scores = None if out_of_fold is None else _score(out_of_fold, strategy)
    left_out = () if scores is None else scores.left_out
    members = [member for member in members if member.run not in left_out]
    kept = [(table, source) for table, source in zip(external, sources, strict=True) if source.name not in left_out]
    external, sources = [table for table, _ in kept], [source for _, source in kept]
    record = _record(strategy, members, sources, newest_run(chosen), scores, why_none)
    later_people = {} if scores is None else {run: answers.photos.people for run, answers in later.items()}
    record = replace(
        record, outdated_labels=outdated, later_people={run: people for run, people in later_people.items() if people}
    )
    record = _save(workspace, record, chosen, _writers(external, sources, scores))
    make_ensemble_current(workspace, record.id)
    return BuiltEnsemble(record, scores, workspace.current_or_none("ensemble") == record.id)


def _check_seen(strategy: Strategy, sources: Sequence[ExternalSource]) -> None:
    """Refuses tables that answer no held-out photo, where it is learned how much to trust each source."""
    unseen = [source.name for source in sources if strategy.learns and not source.matched]
    if unseen:
        raise ConfigError(
            f"{' '.join(strategy.options)} learns how much to trust each source from out-of-fold answers, and "
            f"{', '.join(unseen)} answers for no held-out photo: leave it out, or choose a strategy that does not learn."
        )


def _writers(
    external: Sequence[ExternalTable], sources: Sequence[ExternalSource], scores: Scored | None
) -> dict[str, Callable[[Path], None]]:
    """Name of a file beside the record -> function that writes it to a path."""
    writers: dict[str, Callable[[Path], None]] = {
        source.file: table.write for table, source in zip(external, sources, strict=True)
    }
    if scores is not None:
        writers |= {OUT_OF_FOLD: _answers_of(scores).write, DISAGREEMENTS: partial(_write_csv, scores.disagreements)}
    return writers


def _joined(
    workspace: Workspace,
    runs: Sequence[RunRecord],
    specialists: Mapping[str, Specialist],
    later: Mapping[str, LaterAnswers],
    votes_in: Mapping[str, tuple[str, ...]],
) -> tuple[OutOfFold, Mapping[str, int]]:
    """The runs' out-of-fold answers with the newest labels; and run -> number of photos whose label it has learned otherwise."""
    held_out = {run.id: held_out_of(workspace, run) for run in runs}
    if len({run.data.photo_set for run in runs}) == 1:
        out_of_fold = join(held_out, votes_in)
        labels = newest_labels(workspace, runs, list(out_of_fold.photos["path"]), specialists)
        return (out_of_fold, {}) if labels is None else (replace(out_of_fold, truth=labels.truth), labels.outdated)
    newest = newest_run(runs)
    table = table_of(workspace, newest)
    labels = newest_labels(workspace, runs, list(table["path"]), specialists)
    assert labels is not None  # the tables differ
    return join_grown(table, plan_of(workspace, newest), labels.truth, held_out, later, votes_in), labels.outdated


def _score(out_of_fold: OutOfFold, strategy: Strategy) -> Scored:
    learner: Learner = StrategyLearner(strategy)
    nested, tried, plain = learner, tuple[TriedStrategy, ...](), dict[str, float]()
    if strategy.is_auto:
        people = out_of_fold.photos["person"].to_numpy()
        choice = try_strategies(strategy, out_of_fold.answers, out_of_fold.truth, people)
        nested, learner, tried = AutoLearner(strategy), choice.learner, choice.strategies
    fitted, combiner = cross_fit(out_of_fold, nested), fitted_to(out_of_fold, learner)
    combined = fitted.combine(out_of_fold)
    if nested.learns:
        plain = _macro_f1s(out_of_fold, combiner.combine(out_of_fold.answers, out_of_fold.persons))
    evaluation, alone = evaluate(out_of_fold, combined), dict[str, float]()
    if combiner.people is not None:
        alone = _macro_f1s(out_of_fold, fitted.combine(out_of_fold, together=False))
    return Scored(
        combiner, fitted.by_fold, evaluation, plain, alone, out_of_fold, combined, _disagreements(out_of_fold), tried,
        added_by(out_of_fold, learner), _silent(combiner, out_of_fold.answers),
    )  # fmt: skip


def _silent(combiner: Combiner, answers: Answers) -> tuple[str, ...]:
    """Runs and tables that have no weight in any task; nothing of them is needed to predict.

    Of a task that tables alone answer they are kept: they answer photos that no table names.
    """
    heard: set[str] = set()
    for task, vote in combiner.votes.items():
        voters = answers.of(task).voters
        weights = vote.weights if isinstance(vote, WeightedVote) else {}
        with_weight = [voter for voter in voters if weights.get(voter.source, 1.0) > 0]
        all_are_tables = all(voter.external for voter in with_weight)
        heard.update(voter.source for voter in (voters if all_are_tables else with_weight))
    return tuple(source for source in answers.sources if source not in heard)


def _macro_f1s(out_of_fold: OutOfFold, combined: Combined) -> dict[str, float]:
    """Macro F1 of each task and of the label."""
    truth, codes = (
        {**out_of_fold.truth, "label": out_of_fold.label},
        {**decompose(combined.label), "label": combined.label},
    )
    return {name: macro_f1(truth[name], codes[name], len(NAMES[name])) for name in codes}


def _record(
    strategy: Strategy,
    members: Sequence[EnsembleMember],
    sources: Sequence[ExternalSource],
    newest: RunRecord,
    scores: Scored | None,
    why_none: str,
) -> EnsembleRecord:
    """The record; its folder, id and files are set when it is saved."""
    combiner = plain_combiner(strategy) if scores is None else scores.combiner
    record = EnsembleRecord(
        Path(), "", strategy, combiner.as_dict(), now(), tuple(members), tuple(sources), why_no_score=why_none
    )
    if scores is None:
        return record
    return replace(
        record,
        combiners_by_fold={str(fold): combiner.as_dict() for fold, combiner in scores.combiners_by_fold.items()},
        plan=newest.plan_digest,
        evaluation={name: evaluation.recorded(NAMES[name]) for name, evaluation in scores.evaluation.items()},
        plain=scores.plain,
        alone=scores.alone,
        single=singles(scores.out_of_fold),
        added_by=scores.added_by,
        tried=scores.tried,
        left_out=scores.left_out,
        disagreements=len(scores.disagreements),
    )


def _save(
    workspace: Workspace,
    record: EnsembleRecord,
    runs: Sequence[RunRecord],
    writers: Mapping[str, Callable[[Path], None]],
) -> EnsembleRecord:
    """Writes an ensemble's folder.

    Args:
        workspace: workspace in which it is saved.
        record: its record, without folder, id and files.
        runs: the runs that were scored.
        writers: name of a file beside the record -> function that writes it to a path.

    Raises:
        WorkspaceError: a run was deleted meanwhile.
    """
    with workspace.lock():
        deleted = [run.id for run in runs if not (run.folder / RECORD).is_file()]
        if deleted:
            raise WorkspaceError(f"{', '.join(deleted)}: deleted by another command meanwhile. Choose other runs.")
        with workspace.new_folder(record.strategy.kind) as (name, folder):
            for file, write in writers.items():
                write(folder / file)
            files = {file: sha256_of(folder / file) for file in writers}
            record = replace(record, folder=folder, id=name, files=files)
            record.save()
    return replace(record, folder=workspace.root / name)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        write_rows(temporary, table, table.itertuples(index=False))


def _members(
    workspace: Workspace, runs: Mapping[str, Sequence[RunRecord]], votes_in: Mapping[str, tuple[str, ...]]
) -> list[EnsembleMember]:
    """The record of each member: its folder, the hash of its weights, and a digest of what it computes."""
    members = []
    for task in runs:
        for run in runs[task]:
            for fold in run.folds:
                card = check_member(run, fold)
                folder = run.member(fold).relative_to(workspace.root).as_posix()
                tasks = votes_in.get(run.id, tasks_of(task))
                members.append(EnsembleMember(task, run.id, fold, folder, card.sha256[WEIGHTS], card.function, tasks))
    return members


def _sources(external: Sequence[ExternalTable], out_of_fold: OutOfFold | None) -> list[ExternalSource]:
    """The record of each external table, with the number of held-out photos that it answers."""
    sources = []
    paths = None if out_of_fold is None else list(out_of_fold.photos["path"])
    for number, table in enumerate(external, start=1):
        source = ExternalSource(
            table.name, table.source, f"external-{number}.parquet", table.photos, tuple(table.by_task)
        )
        sources.append(source if paths is None else replace(source, matched=table.matched(paths), held_out=len(paths)))
    return sources


def why_unscored(workspace: Workspace, runs: Mapping[str, Sequence[RunRecord]]) -> str:
    """Why runs have no out-of-fold score; empty when they have one.

    Args:
        workspace: workspace of the runs.
        runs: task -> its runs.

    Raises:
        PlanError: they follow plans that hold people out in different folds.
        DamagedError: a plan is missing or damaged.
    """
    without = [run.id for task in runs for run in runs[task] if run.plan is None]
    if without:
        return f"{', '.join(without)}: trained on everything (--folds 0), so no photo is held out."
    check_one_family(workspace, [run for task in runs for run in runs[task]])
    return ""


def _answers_of(scores: Scored) -> ScoredAnswers:
    decisions = scores.combined.decisions
    return ScoredAnswers(
        scores.out_of_fold.photos,
        scores.out_of_fold.truth,
        {task: decisions[task].choice for task in TASKS},
        {task: decisions[task].shares for task in TASKS},
        scores.combiner.prefixes,
    )


def _disagreements(out_of_fold: OutOfFold) -> pd.DataFrame:
    """Photos on which soft and hard votes differ, with both answers."""
    soft, hard = (plain_combiner(Strategy.parse(word)).combine(out_of_fold.answers).label for word in ("soft", "hard"))
    differ = np.flatnonzero(soft != hard)
    names = np.array(LABELS)
    paths: Any = out_of_fold.photos["path"].iloc[differ].array
    return pd.DataFrame({"path": paths, "soft": names[soft[differ]], "hard": names[hard[differ]]})

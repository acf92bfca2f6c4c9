"""From runs to an ensemble: choose members, score them out of fold, save everything that prediction needs.

No image is touched: the runs' held-out tables hold every answer. Ensembles are immutable; a new one becomes current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.choosing import make_ensemble_current
from orchestrator.data.files import atomic, sha256_of
from orchestrator.data.lines import write_rows
from orchestrator.ensemble.options import STRATEGIES, check_choice
from orchestrator.ensemble.outside import OutsideTable
from orchestrator.ensemble.voting import COLUMN, Strategy, vote
from orchestrator.errors import PlanError, WorkspaceError
from orchestrator.evaluation.held_out import held_out_of
from orchestrator.evaluation.out_of_fold import (
    Evaluation,
    OutOfFold,
    added_by,
    by_tasks,
    evaluate,
    join_outside,
    join_tasks,
)
from orchestrator.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.metrics import score
from orchestrator.records.members import check_member
from orchestrator.records.origins import plan_of
from orchestrator.records.run import RECORD, RunRecord
from orchestrator.records.workspace import OUT_OF_FOLD, Workspace, now
from orchestrator.training.cards import WEIGHTS, function_of

__all__ = ["Built", "build_ensemble"]

DISAGREEMENTS = "disagreements.csv"

SURE = 0.8
"""What a label without probabilities gives to its class where the members' own sureness is not known (`--no-score`)."""


@dataclass(frozen=True)
class Built:
    """A saved ensemble.

    Attributes:
        id: its name.
        folder: its folder.
        record: what `ensemble.json` holds.
        evaluation: scores per task and of the label; None without out-of-fold probabilities.
        why_none: why there is no score.
        disagreements: photos on which soft and hard voting differ; None without a score.
    """

    id: str
    folder: Path
    record: Mapping[str, Any]
    evaluation: Mapping[str, Evaluation] | None
    why_none: str
    disagreements: pd.DataFrame | None


def build_ensemble(
    workspace: Workspace,
    strategy: str,
    runs: Mapping[str, Sequence[RunRecord]],
    scored: bool = True,
    outside: Sequence[OutsideTable] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Built:
    """Scores the chosen runs out of fold and saves them as an ensemble, which becomes the current one unless it is unscored and
    the current one has a score.

    Args:
        workspace: where it is saved.
        strategy: `soft` or `hard`.
        runs: task -> its runs; `joint` -> runs that answer for all tasks.
        outside: tables from elsewhere, each with one run's weight. They are scored where they say whose member answered.
        scored: False builds an ensemble for prediction only; runs of several plans or data sets need that.
        say: told whether it became the current one, and how much better or worse it is than the one before.

    Raises:
        ConfigError: the strategy is unknown.
        PlanError: the runs follow different plans or data sets, so no out-of-fold score exists.
        DamagedError: a file of a member is missing or damaged.
        LeakError: a table judges people that its member has seen, or may have.
    """
    check_choice("--strategy", strategy, STRATEGIES)
    chosen: Strategy = "hard" if strategy == "hard" else "soft"
    members = _members(workspace, runs)
    sureness = dict.fromkeys(TASKS, SURE)
    why_none = _unscorable(runs) if scored else "left out as asked (--no-score)."
    tables = _tables(workspace, runs) if not why_none else {}
    if tables:
        sureness = {task: one.sureness for task, one in join_tasks(tables).items()}
    outside = [one.softened(sureness) for one in outside]
    places = [f"outside-{number}.parquet" for number in range(1, len(outside) + 1)]
    record: dict[str, Any] = {
        "strategy": chosen, "created": now(), "members": members,
        "classes": {task: list(CLASSES[task]) for task in TASKS}, "labels": list(LABELS),
        "outside": [one.record(place) for one, place in zip(outside, places, strict=True)],
    }  # fmt: skip
    evaluation, table, disagreements = None, None, None
    if not why_none:
        joined = join_tasks(tables)
        if outside:
            paths = list(joined[TASKS[0]].table["path"])
            for about, one in zip(record["outside"], outside, strict=True):
                about |= {"matched": one.matched(paths), "held_out": len(paths)}
            joined = join_outside(joined, outside, plan_of(workspace, runs[TASKS[0]][0]))
        evaluation, table = _score(joined, chosen)
        disagreements = _disagreements(joined)
        names = {**CLASSES, "label": LABELS}
        plan = runs[TASKS[0]][0].plan
        record["plan_digest"] = plan["digest"] if plan else None
        record["evaluation"] = {name: one.as_dict(names[name]) for name, one in evaluation.items()}
        record["single"] = _singles(joined, tables, runs)
        record["added_by"] = {
            name: {"macro_f1": gain, "interval_95": [span.low, span.high]}
            for name, (gain, span) in added_by(
                joined, {task: list(own) for task, own in tables.items()}, chosen
            ).items()
        }
        record["disagreements"] = len(disagreements)
    else:
        record |= {"evaluation": None, "why_no_score": why_none}
    with workspace.lock():
        gone = [run.id for chosen_runs in runs.values() for run in chosen_runs if not (run.folder / RECORD).is_file()]
        if gone:
            raise WorkspaceError(f"{', '.join(gone)}: deleted by another command meanwhile. Choose other runs.")
        frames = {OUT_OF_FOLD: table, DISAGREEMENTS: disagreements}
        frames |= {place: one.frame() for one, place in zip(outside, places, strict=True)}
        built = _save(workspace, chosen, record, evaluation, frames, why_none)
    make_ensemble_current(workspace, built.id, say)
    return built


def _save(
    workspace: Workspace,
    strategy: Strategy,
    record: dict[str, Any],
    evaluation: Mapping[str, Evaluation] | None,
    frames: Mapping[str, pd.DataFrame | None],
    why_none: str,
) -> Built:
    """Writes an ensemble's folder; the caller holds the workspace's lock."""
    with workspace.making(strategy) as (name, place):
        files: dict[str, str] = {}
        for file, frame in frames.items():
            if frame is not None:
                with atomic(place / file) as temporary:
                    if file.endswith("parquet"):
                        frame.to_parquet(temporary, index=False)
                    else:
                        write_rows(temporary, frame, frame.itertuples(index=False))
                files[file] = sha256_of(place / file)
        record = {**record, "files": files}
        workspace.save_ensemble(place, name, record)
    return Built(name, workspace.root / name, {"id": name, **record}, evaluation, why_none, frames[DISAGREEMENTS])


def _members(workspace: Workspace, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, list[dict[str, Any]]]:
    """What the ensemble remembers of each member: where it is, the hash of its weights, and a digest of what it computes."""
    members: dict[str, list[dict[str, Any]]] = {task: [] for task in runs}
    for task in runs:
        for run in runs[task]:
            for fold in run.folds:
                card = check_member(run, fold)
                place = run.member(fold).relative_to(workspace.root).as_posix()
                members[task].append(
                    {
                        "run": run.id, "fold": fold, "folder": place, "sha256": card["sha256"][WEIGHTS],
                        "function": function_of(card),
                    }
                )  # fmt: skip
    return members


def _unscorable(runs: Mapping[str, Sequence[RunRecord]]) -> str:
    """Why the runs have no out-of-fold score; empty when they have one.

    Raises:
        PlanError: they would have one, but for being mixed.
    """
    way_out = "Choose runs of one plan with --members, or build it for prediction only with --no-score."
    without = [run.id for task in runs for run in runs[task] if run.plan is None]
    if without:
        return f"{', '.join(without)}: trained on everything (--folds 0), so no photo is held out."
    plans = {run.plan["digest"]: run for task in runs for run in runs[task] if run.plan}
    if len(plans) > 1:
        told = "; ".join(
            f"{run.id}: plan {digest[:12]}, {run.plan['k']} folds" for digest, run in plans.items() if run.plan
        )
        raise PlanError(
            f"the runs follow different fold plans ({told}), which never mix in one out-of-fold score. {way_out}"
        )
    data = {run.data["fingerprint"]: run for task in runs for run in runs[task]}
    if len(data) > 1:
        told = "; ".join(f"{run.id}: {digest[:12]}" for digest, run in data.items())
        raise PlanError(f"the runs were trained on different data ({told}), which never mix in one score. {way_out}")
    return ""


def _tables(workspace: Workspace, runs: Mapping[str, Sequence[RunRecord]]) -> dict[str, dict[str, pd.DataFrame]]:
    """The held-out answers of all runs by task, a joint run's for each of its tasks: task -> run -> table."""
    tables: dict[str, dict[str, pd.DataFrame]] = {task: {} for task in TASKS}
    for kind in runs:
        for run in runs[kind]:
            table = held_out_of(workspace, run)
            for task, part in by_tasks(kind, table).items():
                tables[task][run.id] = part
    return tables


def _score(joined: Mapping[str, OutOfFold], strategy: Strategy) -> tuple[dict[str, Evaluation], pd.DataFrame]:
    """The evaluation, and the table of every photo's answer behind it."""
    evaluation, votes, label = evaluate(joined, strategy)
    table = joined[TASKS[0]].table[["path", "person", "fold"]].copy()
    for task in TASKS:
        table[f"{task}_truth"] = joined[task].table["truth"]
        table[task] = votes[task].choice
        for code, name in enumerate(CLASSES[task]):
            table[f"{COLUMN[strategy]}({task} {name})"] = votes[task].shares[:, code].astype(np.float32)
    table["label"] = label
    return evaluation, table


def _disagreements(joined: Mapping[str, OutOfFold]) -> pd.DataFrame:
    """Photos on which soft and hard voting differ, with both answers."""
    soft, hard = (
        compose(*(vote(joined[task].members, strategy).choice for task in TASKS)) for strategy in get_args(Strategy)
    )
    differ = np.flatnonzero(soft != hard)
    paths = joined[TASKS[0]].table["path"].iloc[differ]
    names = np.array(LABELS)
    return pd.DataFrame({"path": paths.array, "soft": names[soft[differ]], "hard": names[hard[differ]]})


def _singles(
    joined: Mapping[str, OutOfFold],
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    runs: Mapping[str, Sequence[RunRecord]],
) -> dict[str, list[dict[str, Any]]]:
    """Each run alone and each member alone, on the photos that it held out; each outside table on those that it answers for."""
    folds = {run.id: run.folds for chosen in runs.values() for run in chosen}
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in TASKS}
    for task, by_run in tables.items():
        columns = [f"p({name})" for name in CLASSES[task]]
        for name, table in by_run.items():
            parts = [(None, table), *((fold, table[table["fold"] == fold]) for fold in folds[name])]
            for fold, part in parts:
                found[task].append(_single(name, fold, part["truth"].to_numpy(), part[columns].to_numpy()))
        for name, answers in zip(joined[task].outside, joined[task].members[len(by_run) :], strict=True):
            there = answers.any(axis=1)
            found[task].append(_single(name, None, joined[task].table["truth"].to_numpy()[there], answers[there]))
    return found


def _single(name: str, fold: int | None, truth: NDArray[Any], answers: NDArray[Any]) -> dict[str, Any]:
    scores = score(truth, answers.argmax(axis=1), answers.shape[1])
    return {
        "run": name, "fold": fold, "photos": len(truth), "accuracy": scores.accuracy, "macro_f1": scores.macro_f1,
    }  # fmt: skip

"""A run in short: its members' cards, its scores, where its time went, and all facts that it can be asked for."""

from __future__ import annotations

from typing import Any

import pandas as pd

from orchestrator.data.files import read_json
from orchestrator.metrics import score
from orchestrator.records.annotations import Annotations
from orchestrator.records.comparison import flat
from orchestrator.records.run import RunRecord
from orchestrator.records.workspace import Workspace
from orchestrator.training.checkpoints import CARD, HELD_OUT, HISTORY, read_card

__all__ = ["cards_of", "facts_of", "profile_of", "run_as_dict", "score_of"]


def cards_of(run: RunRecord) -> list[dict[str, Any]]:
    """The cards of the run's complete members."""
    return [read_card(folder) for folder in run.members if (folder / CARD).is_file()]


def profile_of(run: RunRecord) -> dict[str, float]:
    """Seconds by stage over the members' histories; empty for a run without --profile."""
    found: dict[str, float] = {}
    for folder in run.members:
        if (folder / HISTORY).is_file():
            for entry in read_json(folder / HISTORY):
                stages = entry.get("stages", {})
                rest = {"rest": entry["seconds"] - sum(stages.values())} if stages else {}
                for stage, seconds in (stages | rest).items():
                    found[stage] = found.get(stage, 0.0) + max(0.0, seconds)
    return found


def run_as_dict(run: RunRecord) -> dict[str, Any]:
    """For JSON: the record and its members' cards in short."""
    members = [
        {
            "fold": card["fold"], "folder": str(run.member(card["fold"])), "epochs": card["epochs"],
            "best_epoch": card["best_epoch"], "seconds": card["seconds"], "sha256": card["sha256"], **card["scores"],
        }
        for card in cards_of(run)
    ]  # fmt: skip
    value = {key: item for key, item in vars(run).items() if key != "folder"}
    return {**value, "folder": str(run.folder), "covers": run.covers, "members": members}


def score_of(run: RunRecord) -> float | None:
    """The macro F1 over all photos that the run's members held out; None while there are none.

    Over all rows at once, as ensembles and comparisons score: a mean over folds is another number, and no macro F1.
    """
    if run.score is not None:
        return run.score
    files = [folder / HELD_OUT for folder in run.members if (folder / CARD).is_file() and (folder / HELD_OUT).is_file()]
    if not files:
        return None
    table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    answers = table.filter(like="p(").to_numpy()
    return score(table["truth"].to_numpy(), answers.argmax(axis=1), answers.shape[1]).macro_f1


def facts_of(workspace: Workspace, run: RunRecord) -> dict[str, Any]:
    """What `orch runs list --where` can ask of a run: every setting, and what is known of the run."""
    notes = Annotations.read(run.folder)
    return {
        **flat(run.recipe), "run": run.id, "task": run.task, "recipe": run.recipe_name, "status": run.status,
        "current": workspace.current(run.task) == run.id, "score": score_of(run), "seed": run.seed,
        "members": len(run.folds), "k": run.plan["k"] if run.plan else 0,
        "plan": run.plan["digest"][:12] if run.plan else None, "data": run.data["fingerprint"][:12],
        "created": run.created, "minutes": round(run.seconds / 60, 1), "device": run.device, "parent": run.parent,
        "extra": (run.extra or "none")[:12], "tag": list(notes.tags), "note": notes.note,
    }  # fmt: skip

"""Summary of a run: its members' cards, its scores, its time by stage, and the facts that conditions can test.

Nothing heavy is imported for complete runs: a list of them is made from their records alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.artifacts.annotations import Annotations
from orchestrator.artifacts.cards import CARD, MemberCard, history_of, missing_file, retrain_advice
from orchestrator.artifacts.run import RunRecord
from orchestrator.core.errors import DamagedError
from orchestrator.core.sealed import damaged_error

__all__ = ["cards_of", "facts_of", "lost_members", "pooled_score", "profile_of", "run_as_dict", "score_of", "state_of"]


def cards_of(run: RunRecord) -> list[MemberCard]:
    """The cards of the run's complete members.

    Raises:
        DamagedError: one is damaged.
    """
    return [MemberCard.load(folder) for folder in run.members if (folder / CARD).is_file()]


def profile_of(run: RunRecord, folds: Sequence[int | None]) -> dict[str, float]:
    """Seconds by stage over the histories of some members; empty if they were trained without --profile.

    Raises:
        DamagedError: the card of a member is damaged.
    """
    seconds_by_stage: dict[str, float] = {}
    for fold in folds:
        for epoch in history_of(run.member(fold)):
            rest = {"rest": epoch.seconds - sum(epoch.stages.values())} if epoch.stages else {}
            for stage, seconds in {**epoch.stages, **rest}.items():
                seconds_by_stage[stage] = seconds_by_stage.get(stage, 0.0) + max(0.0, seconds)
    return seconds_by_stage


def run_as_dict(run: RunRecord) -> dict[str, Any]:
    """The record, with the main facts of its members' cards, as JSON values.

    Raises:
        DamagedError: the card of a member is damaged.
    """
    members = [
        {
            "fold": card.fold, "folder": str(run.member(card.fold)), "epochs": card.epochs,
            "best_epoch": card.best_epoch, "seconds": card.seconds, "seed": card.seed, "sha256": card.sha256,
            **(asdict(card.scores) if card.scores else {}),
        }
        for card in cards_of(run)
    ]  # fmt: skip
    record = {**run.as_json(), "status": state_of(run)}
    return {"id": run.id, **record, "folder": str(run.folder), "covers": run.covers, "members": members}


def state_of(run: RunRecord) -> str:
    """`complete`, `unfinished`, or `damaged` where a complete run lacks members."""
    return "damaged" if lost_members(run) else run.status


def lost_members(run: RunRecord) -> list[DamagedError]:
    """One error, with its way out, for each member that a complete run lacks."""
    if not run.complete:
        return []
    lost = [path for folder in run.members if (path := missing_file(folder)) is not None]
    return [damaged_error(path, "missing", retrain_advice(path.parent)) for path in lost]


def score_of(run: RunRecord) -> float | None:
    """The macro F1 over all photos that the run's members held out; None while there are none.

    Over all rows at once, as ensembles and comparisons score: a mean over folds is another number, and not a macro F1.
    """
    return pooled_score(cards_of(run)) if run.score is None else run.score


def pooled_score(cards: Iterable[MemberCard]) -> float | None:
    """The macro F1 over all photos that some members held out; None where they held nobody out."""
    counts = [card.confusion for card in cards if card.confusion]
    if not counts:
        return None
    import numpy as np

    from orchestrator.core.metrics import Scores

    return Scores(np.sum(counts, axis=0)).macro_f1


def facts_of(run: RunRecord, current: str | None, notes: Annotations) -> dict[str, Any]:
    """Facts that conditions can test, in addition to the run's settings."""
    seeds, digest = run.seeds, run.plan_digest
    return {
        "run": run.id, "task": run.task, "recipe": run.recipe_title, "status": state_of(run), "current": current == run.id,
        "score": score_of(run), "seed": seeds[0] if len(seeds) == 1 else seeds, "members": _complete_members(run),
        "k": run.plan.k if run.plan else 0,
        "plan": digest and digest[:12], "data": run.data.fingerprint[:12], "created": run.created,
        "minutes": round(run.seconds / 60, 1), "device": run.device, "parent": run.parent,
        "extra": ", ".join(run.data.extra.sources) if run.data.extra else "none", "tag": list(notes.tags),
        "note": notes.note,
    }  # fmt: skip


def _complete_members(run: RunRecord) -> int:
    """How many members are complete."""
    return sum((folder / CARD).is_file() for folder in run.members)

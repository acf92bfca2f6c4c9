"""How two runs differ, according to their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.artifacts.ingredients import Ingredients
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.recipes.schema import Recipe

__all__ = ["differences", "flat_settings", "format_value", "settings_of", "similar_runs"]

NEAR = 2  # settings: with more, a run is another experiment
SHOWN = 3  # runs


def flat_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's settings with `augment.flip` and the like as keys; `about` and `workers`, which change no result, left out.

    A recipe of another version of orch, whose settings this one does not know, is used as it was recorded.
    """
    from pydantic import ValidationError

    from orchestrator.recipes.schema import Recipe

    try:
        settings = Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        settings = dict(recipe)
    augment = {f"augment.{key}": value for key, value in settings.pop("augment", {}).items()}
    return {key: value for key, value in (settings | augment).items() if key not in ("about", "workers")}


def format_value(value: Any) -> str:
    """A setting's value as text; an empty value is a dash."""
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(
            f"{key} x {item:g}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which two recipes differ: key -> (value in the first, value in the second)."""
    left, right = flat_settings(first), flat_settings(second)
    pairs = {key: (left.get(key), right.get(key)) for key in {**left, **right}}
    return {key: (value, other) for key, (value, other) in pairs.items() if value != other}


def settings_of(run: RunRecord) -> dict[str, Any]:
    """All that may differ between two runs of a specialist: the recipe's settings, and where they come from."""
    digest, folds = run.plan_digest or "none", run.plan.k if run.plan else 0
    return {
        **flat_settings(run.recipe), "seed": ", ".join(map(str, run.seeds)), "data": run.data.fingerprint[:12],
        "plan": f"{digest[:12]} ({folds} folds)", "folds": _folds(run),
        "initial weights": run.initial_weights.sha256[:12] or "random", "device": run.device.partition(":")[0],
        "threads": run.threads,
        "extra": f"{', '.join(run.data.extra.sources)} ({run.data.extra.fingerprint[:6]})" if run.data.extra else "none",
    }  # fmt: skip


def _folds(run: RunRecord) -> str:
    """Which folds of its plan a run covers."""
    if run.plan is None:
        return "none"
    return f"fold {', '.join(map(str, run.folds))} of {run.plan.k}" if run.partial else f"all {run.plan.k}"


def similar_runs(runs: Sequence[RunRecord], planned: Ingredients, recipe: Recipe, seed: int) -> list[str]:
    """Sentences on the runs of the same task, data, extra photos and plan whose recipes differ least, the newest first.

    Args:
        runs: runs, the newest last.
        planned: what the planned run is made from.
        recipe: its recipe.
        seed: its seed.
    """
    origin = (planned.task, planned.data, planned.extra, planned.plan)
    similar = []
    for run in reversed(runs):
        if (run.task, run.data.fingerprint, run.extra, run.plan_digest) == origin:
            differ = differences(run.recipe, recipe.model_dump(mode="json"))
            if run.seed != seed:
                differ["seed"] = (run.seed, seed)
            if 0 < len(differ) <= NEAR:
                changes = " and ".join(
                    f"{key} ({format_value(old)} there, {format_value(new)} here)" for key, (old, new) in differ.items()
                )
                covers = f"; it covers {run.covers}" if run.partial else ""
                similar.append((len(differ), f"{run.id} differs only in {changes}{covers}."))
    return [sentence for _, sentence in sorted(similar, key=lambda pair: pair[0])[:SHOWN]]

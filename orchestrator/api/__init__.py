"""The Python API: the commands as functions, with plain arguments and return values.

Every `orch` command except `orch demo` parses its arguments, calls one of these functions and prints. Heavy modules are imported
only when needed, so mistakes in the arguments are reported at once. Every user error is an `OrchestratorError`; its message names
arguments as the command line spells them (`--rate` is the argument `rate`). Messages about what was found and decided go to the
logger "orchestrator"; progress goes to `listen` as events (orchestrator/core/events.py).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api.measuring import bench
    from orchestrator.api.prediction import (
        MeasuredCascade,
        Predicted,
        cascade,
        ensemble,
        export,
        load_predictor,
        predict,
        pseudo_label,
    )
    from orchestrator.api.recipes import (
        NamedRecipe,
        check_recipe,
        compare_recipes,
        copy_recipe,
        list_recipes,
        load_recipe,
        setting_help,
    )
    from orchestrator.api.records import (
        Repaired,
        RunDetails,
        SentRun,
        annotate_run,
        check_workspace,
        compare,
        delete_ensembles,
        delete_runs,
        list_ensembles,
        list_runs,
        repair_workspace,
        run_details,
        track_runs,
        use_ensemble,
        use_run,
    )
    from orchestrator.api.sources import (
        Faces,
        PlannedFolds,
        SyntheticPeople,
        check_data,
        compare_submissions,
        describe_data,
        find_faces,
        plan_folds,
        synthesise,
    )
    from orchestrator.api.training import (
        Viewed,
        next_step,
        resume,
        search,
        space_template,
        tracking,
        train,
        train_all,
        train_grid,
        tta,
        tune,
    )
    from orchestrator.core.errors import OrchestratorError
    from orchestrator.pipeline.settings import Settings
    from orchestrator.training.cancelling import CancelFile, CancelledError

__all__ = [
    "CancelFile", "CancelledError", "Faces", "MeasuredCascade", "NamedRecipe", "OrchestratorError", "PlannedFolds",
    "Predicted", "Repaired", "RunDetails", "SentRun", "Settings", "SyntheticPeople", "Viewed", "annotate_run",
    "bench", "cascade", "check_data", "check_recipe", "check_workspace", "compare", "compare_recipes",
    "compare_submissions", "copy_recipe", "delete_ensembles", "delete_runs", "describe_data", "ensemble", "export",
    "find_faces", "list_ensembles", "list_recipes", "list_runs", "load_predictor", "load_recipe", "next_step",
    "plan_folds", "predict", "pseudo_label", "repair_workspace", "resume", "run_details", "search", "setting_help",
    "space_template", "synthesise", "track_runs", "tracking", "train", "train_all", "train_grid", "tta", "tune",
    "use_ensemble", "use_run",
]  # fmt: skip

HOMES = {
    "orchestrator.api.measuring": (
        "bench",
    ),
    "orchestrator.api.prediction": (
        "MeasuredCascade", "Predicted", "cascade", "ensemble", "export", "load_predictor", "predict", "pseudo_label",
    ),
    "orchestrator.api.recipes": (
        "NamedRecipe", "check_recipe", "compare_recipes", "copy_recipe", "list_recipes", "load_recipe",
        "setting_help",
    ),
    "orchestrator.api.records": (
        "Repaired", "RunDetails", "SentRun", "annotate_run", "check_workspace", "compare", "delete_ensembles",
        "delete_runs", "list_ensembles", "list_runs", "repair_workspace", "run_details", "track_runs", "use_ensemble",
        "use_run",
    ),
    "orchestrator.api.sources": (
        "Faces", "PlannedFolds", "SyntheticPeople", "check_data", "compare_submissions", "describe_data",
        "find_faces", "plan_folds", "synthesise",
    ),
    "orchestrator.api.training": (
        "Viewed", "next_step", "resume", "search", "space_template", "tracking", "train", "train_all", "train_grid",
        "tta", "tune",
    ),
    "orchestrator.core.errors": (
        "OrchestratorError",
    ),
    "orchestrator.pipeline.settings": (
        "Settings",
    ),
    "orchestrator.training.cancelling": (
        "CancelFile", "CancelledError",
    ),
}  # fmt: skip
"""Module -> its names in the library. A module is imported when one of them is first used: `orch runs list` needs one module."""


if not TYPE_CHECKING:  # so that types know which names there are

    def __getattr__(name: str) -> Any:
        for module, names in HOMES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

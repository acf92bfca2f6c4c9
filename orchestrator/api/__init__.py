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
    from orchestrator.api.arguments import PathLike
    from orchestrator.api.evaluation import EnsembleSlices, EvaluatedEnsemble, evaluate, slices
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
        compare_ensembles,
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
        AlikePhotos,
        Faces,
        PlannedFolds,
        SyntheticPeople,
        check_data,
        compare_submissions,
        data_changes,
        describe_data,
        find_alike,
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
    from orchestrator.artifacts.annotations import Annotations
    from orchestrator.artifacts.lists import EnsembleList, RunList
    from orchestrator.artifacts.repair import WorkspaceFindings
    from orchestrator.artifacts.run import RunRecord
    from orchestrator.bench.prediction import RefusedEngine
    from orchestrator.bench.suite import BenchResult
    from orchestrator.core.errors import LeakError, OrchestratorError, Problem
    from orchestrator.core.events import Event, Listener
    from orchestrator.data.changes import DataChanges
    from orchestrator.data.check import DataFindings
    from orchestrator.data.describe import Description
    from orchestrator.ensembling.build import BuiltEnsemble
    from orchestrator.ensembling.gains import EnsembleComparison
    from orchestrator.execution.executor import Executor
    from orchestrator.experiments.comparing import Comparison
    from orchestrator.experiments.submissions import Differences
    from orchestrator.experiments.sweeps import Sweep
    from orchestrator.experiments.tuning import TunedStage
    from orchestrator.inference.ensemble_export import Exported
    from orchestrator.inference.predictor import Predictor
    from orchestrator.inference.pseudo import PseudoLabels
    from orchestrator.inference.reader import Photo
    from orchestrator.inference.results import Prediction, Predictions
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import Report
    from orchestrator.recipes.schema import Recipe
    from orchestrator.training.cancelling import Cancel, CancelFile, CancelledError

__all__ = [
    "AlikePhotos",
    "Annotations",
    "BenchResult",
    "BuiltEnsemble",
    "Cancel",
    "CancelFile",
    "CancelledError",
    "Comparison",
    "DataChanges",
    "DataFindings",
    "Description",
    "Differences",
    "EnsembleComparison",
    "EnsembleList",
    "EnsembleSlices",
    "EvaluatedEnsemble",
    "Event",
    "Executor",
    "Exported",
    "Faces",
    "LeakError",
    "Listener",
    "MeasuredCascade",
    "NamedRecipe",
    "OrchestratorError",
    "PathLike",
    "Photo",
    "PlannedFolds",
    "Predicted",
    "Prediction",
    "Predictions",
    "Predictor",
    "Problem",
    "PseudoLabels",
    "Recipe",
    "RefusedEngine",
    "Repaired",
    "Report",
    "RunDetails",
    "RunList",
    "RunRecord",
    "SentRun",
    "Settings",
    "Sweep",
    "SyntheticPeople",
    "TunedStage",
    "Viewed",
    "WorkspaceFindings",
    "annotate_run",
    "bench",
    "cascade",
    "check_data",
    "check_recipe",
    "check_workspace",
    "compare",
    "compare_ensembles",
    "compare_recipes",
    "compare_submissions",
    "copy_recipe",
    "data_changes",
    "delete_ensembles",
    "delete_runs",
    "describe_data",
    "ensemble",
    "evaluate",
    "export",
    "find_alike",
    "find_faces",
    "list_ensembles",
    "list_recipes",
    "list_runs",
    "load_predictor",
    "load_recipe",
    "next_step",
    "plan_folds",
    "predict",
    "pseudo_label",
    "repair_workspace",
    "resume",
    "run_details",
    "search",
    "setting_help",
    "slices",
    "space_template",
    "synthesise",
    "track_runs",
    "tracking",
    "train",
    "train_all",
    "train_grid",
    "tta",
    "tune",
    "use_ensemble",
    "use_run",
]  # fmt: skip

HOMES = {
    "orchestrator.data.changes": (
        "DataChanges",
    ),
    "orchestrator.api.arguments": (
        "PathLike",
    ),
    "orchestrator.api.evaluation": (
        "EnsembleSlices", "EvaluatedEnsemble", "evaluate", "slices",
    ),
    "orchestrator.api.measuring": (
        "bench",
    ),
    "orchestrator.api.prediction": (
        "MeasuredCascade", "Predicted", "cascade", "ensemble", "export", "load_predictor", "predict", "pseudo_label",
    ),
    "orchestrator.api.recipes": (
        "NamedRecipe", "check_recipe", "compare_recipes", "copy_recipe", "list_recipes", "load_recipe", "setting_help",
    ),
    "orchestrator.api.records": (
        "Repaired", "RunDetails", "SentRun", "annotate_run", "check_workspace", "compare", "compare_ensembles",
        "delete_ensembles", "delete_runs", "list_ensembles", "list_runs", "repair_workspace", "run_details",
        "track_runs", "use_ensemble",
        "use_run",
    ),
    "orchestrator.api.sources": (
        "AlikePhotos", "Faces", "PlannedFolds", "SyntheticPeople", "check_data", "compare_submissions",
        "data_changes", "describe_data",        "find_alike", "find_faces",
        "plan_folds", "synthesise",
    ),
    "orchestrator.api.training": (
        "Viewed", "next_step", "resume", "search", "space_template", "tracking", "train", "train_all", "train_grid",
        "tta", "tune",
    ),
    "orchestrator.artifacts.annotations": (
        "Annotations",
    ),
    "orchestrator.artifacts.lists": (
        "EnsembleList", "RunList",
    ),
    "orchestrator.artifacts.repair": (
        "WorkspaceFindings",
    ),
    "orchestrator.artifacts.run": (
        "RunRecord",
    ),
    "orchestrator.bench.prediction": (
        "RefusedEngine",
    ),
    "orchestrator.bench.suite": (
        "BenchResult",
    ),
    "orchestrator.core.errors": (
        "LeakError", "OrchestratorError", "Problem",
    ),
    "orchestrator.core.events": (
        "Event", "Listener",
    ),
    "orchestrator.data.check": (
        "DataFindings",
    ),
    "orchestrator.data.describe": (
        "Description",
    ),
    "orchestrator.ensembling.build": (
        "BuiltEnsemble",
    ),
    "orchestrator.ensembling.gains": (
        "EnsembleComparison",
    ),
    "orchestrator.execution.executor": (
        "Executor",
    ),
    "orchestrator.experiments.comparing": (
        "Comparison",
    ),
    "orchestrator.experiments.submissions": (
        "Differences",
    ),
    "orchestrator.experiments.sweeps": (
        "Sweep",
    ),
    "orchestrator.experiments.tuning": (
        "TunedStage",
    ),
    "orchestrator.inference.ensemble_export": (
        "Exported",
    ),
    "orchestrator.inference.predictor": (
        "Predictor",
    ),
    "orchestrator.inference.pseudo": (
        "PseudoLabels",
    ),
    "orchestrator.inference.reader": (
        "Photo",
    ),
    "orchestrator.inference.results": (
        "Prediction", "Predictions",
    ),
    "orchestrator.pipeline.settings": (
        "Settings",
    ),
    "orchestrator.pipeline.training": (
        "Report",
    ),
    "orchestrator.recipes.schema": (
        "Recipe",
    ),
    "orchestrator.training.cancelling": (
        "Cancel", "CancelFile", "CancelledError",
    ),
}  # fmt: skip
"""Module -> its names in the library: the functions, and every type that they take or return.

A module is imported when one of its names is first used: `orch runs list` needs one module."""


if not TYPE_CHECKING:  # so that types know which names there are

    def __getattr__(name: str) -> Any:
        for module, names in HOMES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The whole benchmark: what it works on, its parts in order, and the machine that it ran on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.artifacts.environment import git_revision, hardware, versions
from orchestrator.artifacts.workspace import Workspace, now
from orchestrator.bench.load import PARTS, Load, check_load
from orchestrator.core.cores import cores
from orchestrator.core.errors import TrainingError
from orchestrator.core.events import Listener
from orchestrator.core.labels import age_bands
from orchestrator.core.strategies import Strategy
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read
from orchestrator.ensembling.build import build_ensemble
from orchestrator.ensembling.choosing import choose_runs
from orchestrator.inference.ensemble_export import PROGRAM, export_ensemble
from orchestrator.inference.options import is_installed
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import first_jobs, train_all
from orchestrator.specialist import Specialist
from orchestrator.synthetic.people import write_people

if TYPE_CHECKING:
    from orchestrator.artifacts.provenance import Hardware
    from orchestrator.bench.commands import CommandCosts
    from orchestrator.bench.growth import GrowthPoint
    from orchestrator.bench.prediction import PredictionSpeed
    from orchestrator.bench.training import TrainingSpeed
    from orchestrator.bench.voting import VotingSpeed
    from orchestrator.inference.predictor import Predictor
    from orchestrator.training.job import MemberJob

__all__ = ["BenchResult", "run_parts"]

FOLDS = 5


@dataclass(frozen=True)
class BenchResult:
    """The result of `bench`: what was measured, where and on what. A part that was not requested is None.

    Attributes:
        created: when it began, ISO 8601.
        machine: the machine.
        versions: package -> version.
        git: the commit of this package; None outside a repository.
        recipe: the recipe of the measured members.
        data: the source of the photos, in words where people are synthetic.
        rounds: number of measurement rounds.
        device: `cpu`, `cuda` or `cuda:N`.
        training: task -> how fast it trains.
        prediction: how fast an ensemble predicts.
        voting: how fast answers are combined, for a tenth of the photos and for all.
        growth: the cost of growing loads.
        commands: what commands take.
    """

    created: str
    machine: Hardware
    versions: Mapping[str, str]
    git: str | None
    recipe: str
    data: str
    rounds: int
    device: str
    training: Mapping[str, TrainingSpeed] | None = None
    prediction: PredictionSpeed | None = None
    voting: Sequence[VotingSpeed] | None = None
    growth: Sequence[GrowthPoint] | None = None
    commands: CommandCosts | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, as in bench.json: parts that were not measured are left out."""
        value: dict[str, Any] = {
            "created": self.created, "machine": asdict(self.machine), "versions": dict(self.versions), "git": self.git,
            "recipe": self.recipe, "data": self.data, "rounds": self.rounds, "device": self.device,
        }  # fmt: skip
        if self.training is not None:
            value["training"] = {task: speed.as_dict() for task, speed in self.training.items()}
        if self.prediction is not None:
            value["prediction"] = self.prediction.as_dict()
        if self.voting is not None:
            value["voting"] = {str(speed.photos): speed.as_dict() for speed in self.voting}
        if self.growth is not None:
            value["growth"] = {point.name: point.as_dict() for point in self.growth}
        if self.commands is not None:
            value["commands"] = self.commands.as_dict()
        return value


def run_parts(
    parts: Sequence[str],
    load: Load,
    specialists: Mapping[str, Specialist],
    listen: Listener,
    progress: Callable[[str, int, int], None],
) -> BenchResult:
    """Runs the requested parts of the benchmark, in order, on one load.

    Args:
        parts: some of `PARTS`.
        load: what to work on.
        specialists: task -> specialist.
        listen: receives progress events of training the members to measure.
        progress: called with (part, runs done, runs in all).

    Raises:
        OrchestratorError: as in `check_load`; a TrainingError: the members to measure could not be trained.
    """
    check_load(parts, load, specialists)
    people = _people(load) if set(parts) - {"voting"} else None
    import torch

    from orchestrator.bench.commands import bench_commands
    from orchestrator.bench.growth import bench_growth
    from orchestrator.bench.prediction import bench_prediction
    from orchestrator.bench.training import bench_training
    from orchestrator.bench.voting import bench_voting
    from orchestrator.networks.devices import resolve_device

    device = resolve_device(load.device)
    result = BenchResult(
        now(), hardware(device), versions(), git_revision(Path(__file__).parent), load.recipe,
        str(load.data) if load.data else f"{load.people} synthetic people", load.rounds, device,
    )  # fmt: skip
    threads = torch.get_num_threads()
    with ExitStack() as opened:
        if people is not None:
            predictor, jobs, paths = _made(load, *people, specialists, listen, device)
            opened.enter_context(predictor)
            longer = {task: _of_steps(job, load.steps, load.folder) for task, job in jobs.items()}
            photos = (paths * (1 + load.photos // len(paths)))[: load.photos]
        for part in (part for part in PARTS if part in parts):

            def done(number: int, of: int, part: str = part) -> None:
                progress(part, number, of)

            torch.set_num_threads(threads)  # training in this process leaves its own number behind
            if part == "training":
                result = replace(result, training=bench_training(longer, paths, load.rounds, done))
            elif part == "prediction":
                speed = bench_prediction(predictor, photos, load.folder / "engines", load.rounds, done)
                result = replace(result, prediction=speed)
            elif part == "voting":
                result = replace(result, voting=bench_voting(load.votes, load.rounds, done))
            elif part == "commands":
                program = _exported(predictor, load.folder, photos)
                costs = bench_commands(load.folder / "runs", photos[0], program, load.folder, load.rounds, done)
                result = replace(result, commands=costs)
            else:
                shorter = {task: _of_steps(job, -(-load.steps // 4), load.folder) for task, job in jobs.items()}
                result = replace(result, growth=bench_growth(predictor, shorter, paths, load.rounds, done))
    return result


def _exported(predictor: Predictor, folder: Path, photos: Sequence[Path]) -> Path | None:
    """The program beside an export of the members; None where what exports is not installed."""
    if not is_installed("onnx") or predictor.runtime.device != "cpu":
        return None
    export_ensemble(predictor, "bench", folder / "exported", folder / "engines", folder / "runs" / "store", photos[:4])
    return folder / "exported" / PROGRAM


def _people(load: Load) -> tuple[Path, int]:
    """A manifest of the people to work on, and the number of folds that they allow."""
    source, data = load.data, load.folder / "some.csv"
    if source is None:
        source = load.folder / "people" / "train"
        write_people(load.folder / "people", load.people, 0, 0, cores())
    return data, min(FOLDS, _write_some(read(source, distinct=True), load.people, data))


def _made(
    load: Load, data: Path, folds: int, specialists: Mapping[str, Specialist], listen: Listener, device: str
) -> tuple[Predictor, dict[str, MemberJob], list[Path]]:
    """Trains members for one epoch, five per task if there are enough people: only their speed matters here."""
    from orchestrator.inference.opening import open_predictor

    settings = Settings(
        data,
        load.folder / "runs",
        recipes=(load.recipe,),
        changes=("epochs=1", "evaluate_every=1"),
        folds=folds,
        device=device,
    )
    report = train_all(settings, specialists, listen)
    if not report.complete:
        raise TrainingError("the members to measure could not be made: " + "; ".join(report.failures.values()))
    workspace = Workspace(settings.workspace)
    if workspace.current("ensemble") is None:
        build_ensemble(workspace, Strategy.parse(), choose_runs(workspace), specialists, scored=False)
    predictor = open_predictor(workspace, workspace.ensemble(), device)
    jobs = first_jobs(settings, specialists, listen)
    return predictor, jobs, read(data, distinct=True).paths


def _write_some(photos: Photos, people: int, path: Path) -> int:
    """Writes a manifest of about `people` people, balanced by gender and age band; returns the smallest group."""
    photos.require(("age", "gender", "mask"), "the benchmark")
    everyone = photos.people.assign(band=age_bands(photos.people["age"].to_numpy(dtype=float)))
    groups = everyone.groupby(["gender", "band"])
    chosen = groups.head(-(-people // groups.ngroups)).index
    table = photos.table[photos.table["person"].isin(chosen)]
    table.assign(path=[str(photos.root.absolute() / path) for path in table["path"]]).to_csv(path, index=False)
    return int(groups.head(-(-people // groups.ngroups)).groupby(["gender", "band"]).size().min())


def _of_steps(job: MemberJob, steps: int, folder: Path) -> MemberJob:
    """The job with `steps` steps in one epoch, in a separate folder."""
    size = job.recipe.batch_size
    recipe = job.recipe.model_copy(update={"epochs": 1, "sampling": "per_photo", "class_balance": 0.0})
    train = np.resize(job.train, steps * size)  # repeats the rows where there are too few
    return replace(job, folder=folder / "members" / job.task, recipe=recipe, train=train)

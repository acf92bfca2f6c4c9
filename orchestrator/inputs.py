"""From what a user asks for to what runs are made of: photos, plan, recipes, weights, all read and checked first.

Nothing is trained here. A run's key is a digest of everything that its result depends on; it decides whether a command
goes on with a run or begins another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from orchestrator.config import load_recipes
from orchestrator.data.check import twins
from orchestrator.data.folds import FoldPlan, plan_folds
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read
from orchestrator.errors import ConfigError, DataError, Mistakes, Problem, nearest
from orchestrator.labels import CLASSES
from orchestrator.lint import lint
from orchestrator.recipe import Recipe
from orchestrator.records.environment import git_revision, hardware, versions
from orchestrator.records.run import UNFINISHED, RunRecord, run_key
from orchestrator.records.workspace import Workspace, now
from orchestrator.specialist import Specialist
from orchestrator.training.backbones import InitialWeights, State, check_backbone, keep_weights, load_state
from orchestrator.training.devices import precision_of, resolve_device
from orchestrator.training.features import check_head_alone
from orchestrator.training.jobs import share_out

__all__ = ["Inputs", "Settings", "key_of", "new_run", "read_inputs"]


@dataclass(frozen=True)
class Settings:
    """What a user asks for.

    Attributes:
        data: a folder in the contest's layout, or a manifest.
        workspace: where everything is kept.
        columns: our name -> the manifest's name.
        recipes: `NAME`, `FILE.toml`, `TASK=NAME` or `TASK=FILE.toml`.
        changes: `KEY=VALUE` or `TASK.KEY=VALUE`.
        k: folds of the plan; 0 trains one member on everything, without a score; None: as the workspace's current runs.
        folds_used: train only the first folds of the plan, 1 for a single split; 0: all.
        seed: of the training.
        plan_seed: of the fold plan; None: as the workspace's current runs.
        jobs: members at once; 0 chooses.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: decode once into the workspace's pixel store.
        profile: write into the members' histories where the time went.
    """

    data: Path
    workspace: Path = Path("runs")
    columns: Mapping[str, str] = field(default_factory=dict)
    recipes: Sequence[str] = ("quick",)
    changes: Sequence[str] = ()
    k: int | None = 5
    folds_used: int = 0
    seed: int = 0
    plan_seed: int | None = 0
    jobs: int = 0
    device: str = "auto"
    store: bool = True
    profile: bool = False


@dataclass(frozen=True)
class Inputs:
    """Everything that runs are made from.

    Attributes:
        workspace: where they are kept.
        photos: the validated table.
        content: sha256 of every photo, in the table's order.
        fingerprint: of table and content.
        plan: who is held out when; None when everything is trained on.
        folds: those to train; [None] without a plan.
        recipes: task -> recipe.
        weights: task -> what its members start from.
        device: `cpu`, `cuda` or `cuda:N`.
    """

    workspace: Workspace
    photos: Photos
    content: list[str]
    fingerprint: str
    plan: FoldPlan | None
    folds: list[int | None]
    recipes: Mapping[str, Recipe]
    weights: Mapping[str, InitialWeights]
    device: str


def read_inputs(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    say: Callable[[str], None],
    base: RunRecord | None = None,
) -> Inputs:
    """Reads and checks everything before the first step of training; a wrong input leaves no run behind.

    Args:
        settings: what is asked for.
        specialists: task -> specialist.
        say: told what was decided and found.
        base: the run whose recipe is taken where none is named.

    Raises:
        OrchestratorError: whatever is wrong with recipes, backbones, device, photos, plan or weights.
    """
    wrong = Mistakes()
    recipes: Mapping[str, Recipe] = {}
    device = ""
    with wrong.kept():
        recipes = _recipes(settings, specialists, base)
    states: dict[str, State] = {}
    for task, recipe in recipes.items():
        with wrong.kept(task):
            check_backbone(recipe)
            if recipe.train == "head":
                check_head_alone(recipe)
            if recipe.weights != "hub":
                states[task] = load_state(recipe)
    with wrong.kept():
        device = resolve_device(settings.device)
    with wrong.kept():
        share_out(settings.jobs, 1, device or "cpu")
    for task, recipe in recipes.items():
        with wrong.kept():
            _check_here(task, recipe, device, settings)
    if settings.folds_used and settings.k == 0:
        wrong.add(
            ConfigError(
                "--valid-only and --folds-used hold people out, and --folds 0 holds nobody out: give one of them."
            )
        )
    if settings.k and settings.folds_used > settings.k:
        wrong.add(ConfigError(f"--folds-used {settings.folds_used}; the plan has {settings.k} folds."))
    photos = None
    plan = None
    with wrong.kept():
        photos = read(settings.data, settings.columns)
        for task, specialist in specialists.items():
            with wrong.kept():
                photos.require(specialist.columns, f"the {task} specialist")
            with wrong.kept():
                _check_dropped(task, recipes.get(task), photos)
        plan = plan_folds(photos.people, settings.k, settings.plan_seed or 0) if settings.k else None
        for task, recipe in recipes.items():
            with wrong.kept():
                _check_left(task, recipe, photos, plan, settings.folds_used)
    wrong.tell()
    for task, recipe in recipes.items():  # after all that is quick to tell: a hub may take minutes
        if task not in states:
            with wrong.kept(task):
                states[task] = load_state(recipe)
    wrong.tell()
    assert photos is not None  # or something wrong was told
    for note in photos.notes[:5]:
        say(f"note: {note}")
    if len(photos.notes) > 5:
        say(f"... and {len(photos.notes) - 5} more notes: `orch data check --data {settings.data}` lists them.")
    for task, recipe in recipes.items():
        for problem in lint(specialists[task], recipe):
            say(f"note: {task}.{problem}")
        if recipe.sampling == "per_person" and recipe.draw_by == "mask" and "mask" not in photos.table:
            say(f"note: the data has no mask column: {task} draws any photo of a person.")
    workspace = Workspace(settings.workspace, create=True)
    if plan is not None:
        plan = workspace.keep_plan(plan)
    content = photos.content(workspace.hashes())
    leaks = [problem for problem in twins(photos, content) if problem.fatal]
    if leaks:
        raise DataError(f"{settings.data}: people would leak across folds.", leaks)
    people = len(photos.people)
    if plan is None:
        say(f"{len(photos):,} photos of {people:,} people, all trained on: there will be no out-of-fold score.")
        folds: list[int | None] = [None]
    else:
        folds = list(range(settings.folds_used or plan.k))
        say(
            f"{len(photos):,} photos of {people:,} people; fold plan {plan.digest[:12]}: {plan.k} folds of people, "
            f"stratified by {' x '.join(plan.strata) or 'nothing'}"
            + (
                f", {'fold 0' if len(folds) == 1 else f'folds 0 to {len(folds) - 1}'} only."
                if settings.folds_used
                else "."
            )
        )
    weights = {
        task: keep_weights(recipe.backbone, states[task], workspace.cache / "weights")
        for task, recipe in recipes.items()
    }
    return Inputs(workspace, photos, content, photos.fingerprint(content), plan, folds, recipes, weights, device)


def _check_here(task: str, recipe: Recipe, device: str, settings: Settings) -> None:
    """Refuses what the device or the plan cannot give a recipe."""
    if device == "cpu" and recipe.precision == "fp16":
        raise ConfigError(f"{task}: precision = fp16 needs a GPU; allowed on a CPU: auto, fp32, bf16.")
    if device and recipe.sam and precision_of(recipe.precision, device) == torch.float16:
        raise ConfigError(
            f"{task}: sam takes two gradients a step, and fp16 scales them apart. Use precision=bf16 or fp32."
        )
    if recipe.schedule == "plateau" and settings.k == 0:
        raise ConfigError(f"{task}: schedule = plateau watches held-out people, and --folds 0 holds nobody out.")


def _check_dropped(task: str, recipe: Recipe | None, photos: Photos) -> None:
    """Refuses people to drop that the data does not have."""
    people = list(dict.fromkeys(photos.table["person"])) if recipe is not None and recipe.drop_people else []
    unknown = [person for person in (recipe.drop_people if recipe else ()) if person not in set(people)]
    if unknown:
        problems = [Problem(f"'{person}'", f"nobody of that key.{nearest(person, people)}") for person in unknown]
        raise ConfigError(f"{task}: drop_people names people that the data does not have.", problems)


def _check_left(task: str, recipe: Recipe, photos: Photos, plan: FoldPlan | None, folds_used: int) -> None:
    """Refuses dropped people without whom a fold has nobody left to train on."""
    dropped = photos.table["person"].isin(recipe.drop_people)
    if plan is None:
        bare = ["all photos"] if dropped.all() else []
    else:
        fold = plan.folds(photos.table["person"])
        bare = [f"fold {one}" for one in range(folds_used or plan.k) if dropped[fold != one].all()]
    if bare:
        raise ConfigError(
            f"{task}: drop_people leaves nobody to train on for {', '.join(bare)}. Drop fewer people, or use other folds."
        )


def _recipes(settings: Settings, specialists: Mapping[str, Specialist], base: RunRecord | None) -> Mapping[str, Recipe]:
    """The recipes asked for, on top of the base run's where none is named."""
    bases = {base.task: Recipe.model_validate(base.recipe)} if base else None
    return load_recipes(specialists, settings.recipes, settings.changes, bases)


def key_of(
    settings: Settings, inputs: Inputs, task: str, parent: RunRecord | None = None, folds: Sequence[int] = ()
) -> str:
    """A digest of everything that a run's result depends on."""
    plan = inputs.plan.digest if inputs.plan else None
    trained = sorted(folds) or inputs.folds
    recipe, weights = inputs.recipes[task], inputs.weights[task].sha256
    origin = parent.id if parent else None
    return run_key(task, recipe, weights, inputs.fingerprint, plan, trained, settings.seed, inputs.device, origin)


def _is_for(change: str, task: str) -> bool:
    """Whether a `--set` word touches a task."""
    first = change.partition("=")[0].partition(".")[0]
    return first == task or first not in CLASSES


def new_run(
    settings: Settings,
    inputs: Inputs,
    task: str,
    members: int,
    parent: RunRecord | None = None,
    folds: Sequence[int] = (),
    base: RunRecord | None = None,
    offered: bool = False,
) -> RunRecord:
    """Writes the record of a run that is to be trained; the caller holds the workspace's lock.

    Args:
        settings: what was asked for.
        inputs: what it is made from.
        task: its specialist.
        members: how many members this command trains in all, which share the cores.
        parent: the run to share members with.
        folds: retrain only these.
        base: the run whose recipe was taken where none was named.
        offered: it is part of an experiment, and shall not become its specialist's current run by itself.
    """
    _, threads = share_out(settings.jobs, members, inputs.device)
    folder = inputs.workspace.new_folder(task)
    plan = inputs.plan
    named = next((c.rpartition("=")[2] for c in reversed(settings.recipes) if c.partition("=")[0] in (task, c)), "")
    changes = [change for change in settings.changes if _is_for(change, task)]
    trained: list[int | None] = [*folds] or inputs.folds
    if parent:
        trained = [*sorted({*folds, *(fold for fold in parent.folds if fold is not None)})]
    run = RunRecord(
        folder=folder,
        id=folder.name,
        task=task,
        status=UNFINISHED,
        created=now(),
        recipe_name=named or (base.recipe_name if base else "quick"),
        changes=[*(base.changes if base and not named else []), *changes],
        recipe=inputs.recipes[task].model_dump(mode="json"),
        seed=settings.seed,
        folds=trained,
        plan=None if plan is None else {"k": plan.k, "seed": plan.seed, "digest": plan.digest},
        data={
            "source": str(settings.data), "columns": dict(settings.columns),
            "layout": inputs.photos.layout, "fingerprint": inputs.fingerprint,
            "photos": len(inputs.photos), "people": len(inputs.photos.people),
        },
        initial_weights={"source": inputs.recipes[task].weights, "sha256": inputs.weights[task].sha256},
        threads=threads,
        device=inputs.device,
        environment={
            "versions": versions(), "hardware": hardware(inputs.device), "git": git_revision(Path.cwd()),
            "git_of_orchestrator": git_revision(Path(__file__).parent),
        },
        parent=parent.id if parent else None,
        retrained=sorted(folds) if parent else [],
        published=offered,
    )  # fmt: skip
    run.save()
    return run

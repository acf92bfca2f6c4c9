"""From what a user asks for to what runs are made of: photos, plan, recipes, weights, all read and checked first.

Nothing is trained here. A run's key is a digest of everything that its result depends on; it decides whether a command
goes on with a run or begins another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.config import load_recipes
from orchestrator.data.check import twins
from orchestrator.data.folds import FoldPlan, plan_folds
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read
from orchestrator.errors import ConfigError, DataError, Mistakes, WorkspaceError
from orchestrator.labels import TASKS
from orchestrator.recipe import Recipe
from orchestrator.records.environment import git_revision, hardware, versions
from orchestrator.records.run import UNFINISHED, RunRecord, run_key
from orchestrator.records.workspace import Workspace, now
from orchestrator.specialist import Specialist
from orchestrator.training.backbones import InitialWeights, State, check_backbone, keep_weights, load_state
from orchestrator.training.devices import resolve_device
from orchestrator.training.features import check_head_alone
from orchestrator.training.jobs import share_out

__all__ = ["Inputs", "Settings", "base_run", "check_folds", "key_of", "new_run", "read_inputs", "settle"]


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
        valid_only: train only fold 0 of the plan: a single split.
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
    valid_only: bool = False
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
        if device == "cpu" and recipe.precision == "fp16":
            wrong.add(ConfigError(f"{task}: precision = fp16 needs a GPU; allowed on a CPU: auto, fp32, bf16."))
    if settings.valid_only and settings.k == 0:
        wrong.add(ConfigError("--valid-only holds fold 0 out, and --folds 0 holds nobody out: give one of them."))
    photos = None
    plan = None
    with wrong.kept():
        photos = read(settings.data, settings.columns)
        for task, specialist in specialists.items():
            with wrong.kept():
                photos.require(specialist.columns, f"the {task} specialist")
        plan = plan_folds(photos.people, settings.k, settings.plan_seed or 0) if settings.k else None
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
        folds = [0] if settings.valid_only else list(range(plan.k))
        say(
            f"{len(photos):,} photos of {people:,} people; fold plan {plan.digest[:12]}: {plan.k} folds of people, "
            f"stratified by {' x '.join(plan.strata) or 'nothing'}" + (", fold 0 only." if settings.valid_only else ".")
        )
    weights = {
        task: keep_weights(recipe.backbone, states[task], workspace.cache / "weights")
        for task, recipe in recipes.items()
    }
    return Inputs(workspace, photos, content, photos.fingerprint(content), plan, folds, recipes, weights, device)


def _recipes(settings: Settings, specialists: Mapping[str, Specialist], base: RunRecord | None) -> Mapping[str, Recipe]:
    """The recipes asked for, on top of the base run's where none is named."""
    bases = {base.task: Recipe.model_validate(base.recipe)} if base else None
    return load_recipes(specialists, settings.recipes, settings.changes, bases)


def settle(settings: Settings, task: str, folds: Sequence[int] = ()) -> Settings:
    """Fills in what a retraining leaves open as the current runs have it, so that scores go on together.

    Args:
        settings: with `k` or `plan_seed` None where they are open.
        task: the specialist to retrain; its own current run counts first.
        folds: those asked for; without them and without `k`, a current run of fold 0 alone is retrained as such.
    """
    k, seed, valid_only = 5, 0, settings.valid_only
    if Workspace.is_at(settings.workspace):
        workspace = Workspace(settings.workspace)
        names = [name for one in (task, *TASKS) if (name := workspace.current(one))]
        if names:
            run = workspace.run(names[0])
            k, seed = (run.plan["k"], run.plan["seed"]) if run.plan else (0, 0)
            valid_only = valid_only or (settings.k is None and not folds and bool(run.plan) and run.folds == [0])
    k = k if settings.k is None else settings.k
    return replace(
        settings, k=k, plan_seed=seed if settings.plan_seed is None else settings.plan_seed, valid_only=valid_only
    )


def base_run(root: Path, task: str, base: str | None) -> RunRecord | None:
    """The run that `--fold` starts from: the one named, else the current one, else none.

    Raises:
        ConfigError: a run of another specialist.
        WorkspaceError: no such run, or an unfinished one.
    """
    if base is None and not Workspace.is_at(root):
        return None
    workspace = Workspace(root)
    name = base or workspace.current(task)
    if name is None:
        return None
    run = workspace.run(name)
    if run.task != task:
        raise ConfigError(f"--base {name}: a run of the {run.task} specialist; needed: one of {task}.")
    if not run.complete:
        raise WorkspaceError(
            f"--base {name}: this run is unfinished. Complete it first: run its training command again."
        )
    return run


def check_folds(folds: Sequence[int], inputs: Inputs, parent: RunRecord | None) -> None:
    """Refuses folds that the plan does not have, and a parent of another recipe, plan or data."""
    if not folds:
        return
    if parent is not None and inputs.recipes[parent.task].digest() != Recipe.model_validate(parent.recipe).digest():
        raise ConfigError(
            f"--fold retrains folds of {parent.id}, and the settings differ from its recipe. A run has one recipe: leave "
            "--recipe and --set out, or retrain the whole specialist (without --fold)."
        )
    if inputs.plan is None:
        raise ConfigError("--fold goes with a fold plan; --folds 0 has none.")
    wrong = [fold for fold in folds if not 0 <= fold < inputs.plan.k]
    if wrong:
        raise ConfigError(f"--fold {', '.join(map(str, wrong))}: allowed: 0 to {inputs.plan.k - 1}.")
    if parent is None:
        return
    if parent.plan is None or parent.plan["digest"] != inputs.plan.digest:
        other = (
            f"by plan {parent.plan['digest'][:12]} with {parent.plan['k']} folds" if parent.plan else "without a plan"
        )
        raise ConfigError(
            f"--fold: {parent.id} was trained {other}, this command's plan is {inputs.plan.digest[:12]} with "
            f"{inputs.plan.k}: members of different plans never mix. Give the same --folds and --plan-seed, or retrain all."
        )
    if parent.initial_weights["sha256"] != inputs.weights[parent.task].sha256:
        raise ConfigError(
            f"--fold: the initial weights ({inputs.recipes[parent.task].weights}) are other bytes than those {parent.id} began "
            "from. Restore them, or retrain the whole specialist (without --fold)."
        )
    if parent.data["fingerprint"] != inputs.fingerprint:
        raise ConfigError(
            f"--fold: the photos changed since {parent.id} was trained: members of different data never mix. "
            "Retrain the whole specialist (without --fold)."
        )


def key_of(
    settings: Settings, inputs: Inputs, task: str, parent: RunRecord | None = None, folds: Sequence[int] = ()
) -> str:
    """A digest of everything that a run's result depends on."""
    return run_key(
        {
            "task": task,
            "recipe": inputs.recipes[task].digest(),
            "weights": inputs.weights[task].sha256,
            "data": inputs.fingerprint,
            "plan": inputs.plan.digest if inputs.plan else None,
            "folds": list(folds) or inputs.folds,
            "seed": settings.seed,
            "device": inputs.device.split(":")[0],
            "parent": parent.id if parent else None,
        }
    )


def _is_for(change: str, task: str) -> bool:
    """Whether a `--set` word touches a task."""
    first = change.partition("=")[0].partition(".")[0]
    return first == task or first not in TASKS


def new_run(
    settings: Settings,
    inputs: Inputs,
    task: str,
    members: int,
    parent: RunRecord | None = None,
    folds: Sequence[int] = (),
    base: RunRecord | None = None,
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
        key=key_of(settings, inputs, task, parent, folds),
        status=UNFINISHED,
        created=now(),
        recipe_name=named or (base.recipe_name if base else "quick"),
        changes=[*(base.changes if base and not named else []), *changes],
        recipe=inputs.recipes[task].model_dump(mode="json"),
        seed=settings.seed,
        folds=trained,
        plan=None if plan is None else {"k": plan.k, "seed": plan.seed, "digest": plan.digest},
        data={
            "source": str(settings.data), "layout": inputs.photos.layout, "fingerprint": inputs.fingerprint,
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
    )  # fmt: skip
    run.save()
    return run

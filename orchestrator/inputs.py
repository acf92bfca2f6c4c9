"""From what a user asks for to what runs are made of: photos, plan, recipes, weights, all read and checked first.

Nothing is trained here. What is wrong with the data is told before torch is imported, in a second instead of five. A run's key is
a digest of everything that its result depends on; it decides whether a command goes on with a run or begins another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.checks import (
    check_dropped,
    check_here,
    check_left,
    check_watched,
    refuse_classes,
    tell_extra,
    tell_loading,
)
from orchestrator.config import choices_of
from orchestrator.data.check import twins
from orchestrator.data.extra import Extra, read_extra
from orchestrator.data.files import from_root
from orchestrator.data.folds import FoldPlan, plan_folds
from orchestrator.data.hashes import HashCache
from orchestrator.data.photos import Photos
from orchestrator.data.readers import check_command, read
from orchestrator.errors import ConfigError, DataError, Mistakes, Problem
from orchestrator.labels import CLASSES
from orchestrator.lint import lint
from orchestrator.recipe import Recipe
from orchestrator.records.environment import git_revision, hardware, versions
from orchestrator.records.origins import keep_content, keep_plan
from orchestrator.records.run import UNFINISHED, RunRecord, run_key
from orchestrator.records.workspace import Workspace, now
from orchestrator.settings import Settings, add_mistakes, recipes_of
from orchestrator.specialist import Specialist

if TYPE_CHECKING:
    from orchestrator.training.backbones import InitialWeights, State

__all__ = ["Inputs", "key_of", "new_run", "read_inputs"]

OF_NETWORKS = (
    "backbone", "weights", "pooling", "train", "frozen_stages", "drop_rate", "drop_path_rate", "height", "width", "small_epochs",
    "small_size", "checkpointing", "precision", "sam", "workers",
)  # fmt: skip
"""Settings that only torch can judge. A named recipe has them in order, and so has a run's."""


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
        extra: photos from elsewhere that join training; None without any.
        extra_content: sha256 of each of them.
        learning: the tasks that learn from them, because the table knows what they ask for.
        specialists: task -> specialist.
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
    extra: Extra | None = None
    extra_content: Sequence[str] = ()
    learning: frozenset[str] = frozenset()
    specialists: Mapping[str, Specialist] = field(default_factory=dict)

    def extra_of(self, task: str) -> str | None:
        """Fingerprint of the photos from elsewhere that a task learns from; None where it learns from none."""
        return self.extra.fingerprint(self.extra_content) if self.extra is not None and task in self.learning else None


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
    with wrong.kept():
        recipes = recipes_of(settings, specialists, base)
    add_mistakes(settings, wrong)
    photos, plan, extra, notes = _data(settings, specialists, recipes, wrong)
    if not _asks_torch(settings, specialists):  # nothing else can be wrong that the user has chosen
        wrong.tell()
    device, states = _networks(settings, recipes, wrong)
    assert photos is not None  # or something wrong was told
    for note in [*notes, *photos.notes[:5]]:
        say(f"note: {note}")
    if len(photos.notes) > 5:
        command = check_command(settings.data, settings.columns, settings.distinct)
        say(f"... and {len(photos.notes) - 5} more notes: `{command}` lists them.")
    for task, recipe in recipes.items():
        for problem in lint(specialists[task], recipe):
            say(f"note: {task}.{problem}")
        if recipe.sampling == "per_person" and recipe.draw_by == "mask" and "mask" not in photos.table:
            say(f"note: the data has no mask column: {task} draws any photo of a person.")
        tell_loading(task, recipe, device, say)
    workspace = Workspace(settings.workspace, create=True)
    if plan is not None:
        plan = keep_plan(workspace, plan, say)
    content = photos.content(workspace.hashes())
    leaks = [problem for problem in twins(photos, content) if problem.fatal]
    if leaks:
        raise DataError(f"{settings.data}: people would leak across folds.", leaks)
    extra_content: list[str] = []
    if extra is not None:
        extra_content = HashCache(workspace.cache / "extra_hashes.json").hashes(extra.paths)
        extra.check(photos, content, extra_content, plan)
        tell_extra(extra, photos, specialists, say)
        keep_content(workspace, extra.fingerprint(extra_content), extra_content, say)
    elif base is not None and base.extra is not None:
        sources = ", ".join(base.data["extra"]["sources"])
        say(f"note: {base.id} learnt from extra photos too ({sources}); without --extra this does not.")
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
    from orchestrator.training.backbones import keep_weights

    weights = {
        task: keep_weights(recipe.backbone, states[task], workspace.cache / "weights")
        for task, recipe in recipes.items()
    }
    fingerprint = photos.fingerprint(content)
    keep_content(workspace, fingerprint, content, say)
    learning = frozenset(
        task for task, specialist in specialists.items() if extra is not None and len(extra.known(specialist.columns))
    )
    return Inputs(
        workspace, photos, content, fingerprint, plan, folds, recipes, weights, device, extra, extra_content, learning,
        specialists,
    )  # fmt: skip


def _data(
    settings: Settings, specialists: Mapping[str, Specialist], recipes: Mapping[str, Recipe], wrong: Mistakes
) -> tuple[Photos | None, FoldPlan | None, Extra | None, list[Problem]]:
    """Photos, plan, photos from elsewhere, and what is worth knowing of them. What is wrong is added; torch is not imported."""
    photos, plan, extra = None, None, None
    notes: list[Problem] = []
    for task, recipe in recipes.items():
        with wrong.kept():
            check_watched(task, recipe, settings.k != 0)
    with wrong.kept():
        photos = read(settings.data, settings.columns, settings.distinct)
        for task, specialist in specialists.items():
            with wrong.kept():
                photos.require(specialist.columns, f"the {task} specialist")
            with wrong.kept():
                check_dropped(task, recipes.get(task), photos)
        plan = plan_folds(photos.people, settings.k, settings.plan_seed or 0) if settings.k else None
        for task, recipe in recipes.items():
            with wrong.kept():
                check_left(task, recipe, photos, plan, settings.folds_used, bool(settings.extra))
    with wrong.kept():
        extra = read_extra(settings.extra) if settings.extra else None
        if extra is not None and photos is not None:
            notes += extra.check_people(photos, settings.distinct)
    if photos is not None:
        with wrong.kept():
            notes += refuse_classes(photos, specialists, plan, bool(settings.extra))
    return photos, plan, extra, notes


def _asks_torch(settings: Settings, tasks: Collection[str]) -> bool:
    """Whether networks, their weights or a GPU were chosen by hand: what is wrong with them is told together with the data's."""
    keys = {change.partition("=")[0].rpartition(".")[2] for change in settings.changes}
    files = any(name.endswith(".toml") for name in choices_of(tasks, settings.recipes)[0].values())
    return files or not keys.isdisjoint(OF_NETWORKS) or settings.device not in ("auto", "cpu")


def _networks(settings: Settings, recipes: Mapping[str, Recipe], wrong: Mistakes) -> tuple[str, dict[str, State]]:
    """The device, and the initial weights of each task; raises what is wrong with them, and what was wrong before."""
    from orchestrator.training.backbones import check_backbone, load_state
    from orchestrator.training.devices import resolve_device
    from orchestrator.training.features import check_head_alone

    device = ""
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
    for task, recipe in recipes.items():
        with wrong.kept():
            check_here(task, recipe, device)
    wrong.tell()
    for task, recipe in recipes.items():  # after all that is quick to tell: a hub may take minutes
        if task not in states:
            with wrong.kept(task):
                states[task] = load_state(recipe)
    wrong.tell()
    return device, states


def key_of(
    settings: Settings, inputs: Inputs, task: str, parent: RunRecord | None = None, folds: Sequence[int] = ()
) -> str:
    """A digest of everything that a run's result depends on."""
    plan = inputs.plan.digest if inputs.plan else None
    trained = sorted(folds) or inputs.folds
    recipe, weights = inputs.recipes[task], inputs.weights[task].sha256
    origin = parent.id if parent else None
    data, extra = inputs.fingerprint, inputs.extra_of(task)
    return run_key(task, recipe, weights, data, plan, trained, settings.seed, inputs.device, origin, extra)


def _about_extra(inputs: Inputs, task: str) -> dict[str, Any]:
    """For a run's record: empty where its task learns from no photo from elsewhere."""
    fingerprint = inputs.extra_of(task)
    if inputs.extra is None or fingerprint is None:
        return {}
    sources = [from_root(source) for source in inputs.extra.sources]
    return {"extra": {"sources": sources, "fingerprint": fingerprint, "photos": len(inputs.extra)}}


def _is_for(change: str, task: str) -> bool:
    """Whether a `--set` word touches a task."""
    first = change.partition("=")[0].partition(".")[0]
    return first == task or first not in CLASSES


def _changes(settings: Settings, inputs: Inputs, task: str, named: str, base: RunRecord | None) -> list[str]:
    """The `--set` words without which a task's recipe would be another one, those of the base run before them."""
    found = [change for change in settings.changes if _is_for(change, task)]
    recipes = (named,) if named else () if base else ("quick",)
    for change in list(found):
        rest = [*found]
        rest.remove(change)
        without = replace(settings, recipes=recipes, changes=rest)
        try:
            same = recipes_of(without, {task: inputs.specialists[task]}, base)[task] == inputs.recipes[task]
        except ConfigError:  # words that are right together only: `loss=focal` and `focal_gamma=3`
            continue
        if same:
            found = rest
    before = base.changes if base and not named else []
    words = {change.partition("=")[0].removeprefix(f"{task}."): change for change in (*before, *found)}
    return list(words.values())  # a key that is set again counts once


def new_run(
    settings: Settings,
    inputs: Inputs,
    task: str,
    members: int,
    parent: RunRecord | None = None,
    folds: Sequence[int] = (),
    base: RunRecord | None = None,
    offered: bool = False,
    threads: int = 0,
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
        threads: of each member's training; 0: as the base run's, or else as many as the cores allow. Other threads add up in
            another order, which changes results as another seed does: what is held against a run is trained as it was.
    """
    from orchestrator.training.jobs import share_out

    if not threads and base is not None and base.device == inputs.device == "cpu":
        threads = base.threads
    threads = threads or share_out(settings.jobs, members, inputs.device)[1]
    plan = inputs.plan
    named = choices_of((task,), settings.recipes)[0].get(task, "")
    trained: list[int | None] = [*folds] or inputs.folds
    if parent:
        trained = [*sorted({*folds, *(fold for fold in parent.folds if fold is not None)})]
    run = RunRecord(
        folder=Path(),
        id="",
        task=task,
        status=UNFINISHED,
        created=now(),
        recipe_name=named or (base.recipe_name if base else "quick"),
        changes=_changes(settings, inputs, task, named, base),
        recipe=inputs.recipes[task].model_dump(mode="json"),
        seed=settings.seed,
        folds=trained,
        plan=None if plan is None else {"k": plan.k, "seed": plan.seed, "digest": plan.digest},
        data={
            "source": from_root(settings.data), "columns": dict(settings.columns),
            **({"distinct_people": True} if settings.distinct else {}),
            "layout": inputs.photos.layout, "fingerprint": inputs.fingerprint,
            "photos": len(inputs.photos), "people": len(inputs.photos.people),
            **_about_extra(inputs, task),
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
    with inputs.workspace.making(task) as (run.id, run.folder):
        run.save()
    run.folder = inputs.workspace.root / run.id
    return run

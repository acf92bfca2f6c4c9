"""What runs are made from, in three stages: recipes by their names, the data, initial weights; all checked before any training.

    recipes_of (settings.py)   from names and `--set` changes to recipes; pure
    read_tables, load_dataset  tables, then photos (dataset.py)
    read_weights               checks of networks that only torch can make, and initial weights

Errors in the first two are reported before torch is imported, in one second instead of five.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.artifacts.ingredients import Ingredients
from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.errors import Mistakes
from orchestrator.pipeline.checks import (
    check_device_support,
    check_dropped,
    check_schedule,
    check_training_rows,
    loading_warning,
)
from orchestrator.pipeline.dataset import Dataset, Tables, load_dataset, log_notes, read_tables
from orchestrator.pipeline.settings import Settings, add_mistakes, recipes_of
from orchestrator.recipes.lint import lint
from orchestrator.recipes.load import choices_of
from orchestrator.recipes.names import is_file_name
from orchestrator.recipes.schema import OF_NETWORK, Recipe
from orchestrator.specialist import Specialist

if TYPE_CHECKING:
    from orchestrator.networks.backbones import InitialWeights, State

__all__ = ["Inputs", "read_inputs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Everything that runs are made from.

    Attributes:
        workspace: the workspace of the runs.
        data: photos, labels and the fold plan.
        recipes: task -> recipe.
        weights: task -> initial weights of its members.
        device: `cpu`, `cuda` or `cuda:N`.
        specialists: task -> specialist.
        warned: warnings about recipes that were logged while these inputs, and those read after them, were read.
        checked: `Recipe.network_digest` -> initial weights, of the networks that were checked meanwhile.
    """

    workspace: Workspace
    data: Dataset
    recipes: Mapping[str, Recipe]
    weights: Mapping[str, InitialWeights]
    device: str
    specialists: Mapping[str, Specialist]
    warned: set[str] = field(default_factory=set, repr=False, compare=False)
    checked: dict[str, InitialWeights] = field(default_factory=dict, repr=False, compare=False)

    def ingredients(self, task: str) -> Ingredients:
        """What members of a task that are trained from these inputs depend on."""
        plan = self.data.plan.digest if self.data.plan else None
        recipe, weights = self.recipes[task].digest(), self.weights[task].sha256
        return Ingredients(task, recipe, weights, self.fingerprint_of(task), plan, self.extra_of(task))

    def fingerprint_of(self, task: str) -> str:
        """Digest of photos, people, and those labels that a task learns from by its recipe."""
        return self.data.fingerprint(self.specialists[task], self.recipes[task])

    def extra_of(self, task: str) -> str | None:
        """Fingerprint of the extra photos that a task learns from; None if it learns from none."""
        return self.data.extra_of(self.specialists[task])


def read_inputs(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    base: RunRecord | None = None,
    earlier: Inputs | None = None,
) -> Inputs:
    """Reads and checks everything before the first step of training; a wrong input leaves no run behind.

    Args:
        settings: what the command asks for.
        specialists: task -> specialist.
        base: the run whose recipe is used if none is named.
        earlier: inputs that were read with settings that differ only in the recipe: their dataset is used, networks that were
            checked already are not built again, and warnings not logged again. None: the dataset is loaded.

    Raises:
        OrchestratorError: recipes, backbones, device, photos, plan or weights are wrong; names all mistakes.
    """
    mistakes = Mistakes()
    recipes: Mapping[str, Recipe] = {}
    with mistakes.collect():
        recipes = recipes_of(settings, specialists, base)
    add_mistakes(settings, mistakes)
    tables = read_tables(settings, specialists, mistakes) if earlier is None else earlier.data.tables
    _check_recipes(settings, recipes, tables, mistakes)
    if not _asks_torch(settings, specialists):  # else the user chose nothing that torch must check
        mistakes.raise_if_any()
    checked: dict[str, InitialWeights] = {} if earlier is None else earlier.checked
    device, states = read_weights(settings, recipes, mistakes, checked)
    workspace = Workspace(settings.workspace, create=True)
    if earlier is None:
        log_notes(settings, tables)
    warned = set[str]() if earlier is None else earlier.warned
    for warning in _recipe_warnings(recipes, specialists, tables, device):
        if warning not in warned:
            log.warning(warning)
            warned.add(warning)
    data = _load(settings, specialists, tables, workspace, base) if earlier is None else earlier.data
    from orchestrator.networks.backbones import keep_weights

    for recipe in recipes.values():
        if (network := recipe.network_digest()) not in checked:
            checked[network] = keep_weights(recipe.backbone, states[network], workspace.cache / "weights")
    weights = {task: checked[recipe.network_digest()] for task, recipe in recipes.items()}
    return Inputs(workspace, data, recipes, weights, device, specialists, warned, checked)


def _load(
    settings: Settings,
    specialists: Mapping[str, Specialist],
    tables: Tables,
    workspace: Workspace,
    base: RunRecord | None,
) -> Dataset:
    """The dataset; warns if the base run was trained on extra photos, and it has none."""
    data = load_dataset(settings, specialists, tables, workspace)
    if data.extra is None and base is not None and base.data.extra is not None:
        sources = ", ".join(base.data.extra.sources)
        log.warning(f"{base.id} was trained on extra photos too ({sources}); without --extra, this run is not.")
    return data


def _check_recipes(settings: Settings, recipes: Mapping[str, Recipe], tables: Tables, mistakes: Mistakes) -> None:
    """Adds conflicts of recipes with the plan or the data."""
    for task, recipe in recipes.items():
        with mistakes.collect():
            check_schedule(task, recipe, settings.folds != 0)
        if tables.photos is None:
            continue
        with mistakes.collect():
            check_dropped(task, recipe, tables.photos)
        if settings.folds and tables.plan is None:  # the error is in the plan
            continue
        with mistakes.collect():
            check_training_rows(task, recipe, tables.photos, tables.plan, settings.folds_used, bool(settings.extra))


def _recipe_warnings(
    recipes: Mapping[str, Recipe], specialists: Mapping[str, Specialist], tables: Tables, device: str
) -> Iterator[str]:
    """Warnings about recipes, for this data on this device."""
    assert tables.photos is not None  # else an error was raised
    for task, recipe in recipes.items():
        for problem in lint(specialists[task], recipe):
            yield f"{task}.{problem}"
        if recipe.draws_by_mask and "mask" not in tables.photos.table:
            yield f"the data has no mask column: {task} draws any photo of a person."
        if warning := loading_warning(task, recipe, device, len(tables.photos.table)):
            yield warning


def _asks_torch(settings: Settings, tasks: Collection[str]) -> bool:
    """Whether the user chose networks, weights or a GPU: errors in them are reported together with the data's.

    In named recipes and in recipes of runs they are valid already.
    """
    keys = {change.partition("=")[0].rpartition(".")[2] for change in settings.changes}
    files = any(is_file_name(name) for name in choices_of(tasks, settings.recipes)[0].values())
    return files or not keys.isdisjoint(OF_NETWORK) or settings.device not in ("auto", "cpu")


def read_weights(
    settings: Settings, recipes: Mapping[str, Recipe], mistakes: Mistakes, checked: Collection[str]
) -> tuple[str, dict[str, State]]:
    """The device, and initial weights; raises their errors together with those in `mistakes`.

    Args:
        settings: what the command asks for.
        recipes: task -> recipe.
        mistakes: mistakes so far.
        checked: `Recipe.network_digest` of networks that need no check any more.

    Returns:
        The device; and `Recipe.network_digest` -> initial weights, for all other networks.
    """
    from orchestrator.networks.backbones import check_backbone, load_state
    from orchestrator.networks.devices import resolve_device
    from orchestrator.training.features import check_head_alone

    device = ""
    states: dict[str, State] = {}
    from_hub: dict[str, tuple[str, Recipe]] = {}
    for task, recipe in recipes.items():
        network = recipe.network_digest()
        if network in checked or network in states or network in from_hub:
            continue
        with mistakes.collect(task):
            model = check_backbone(recipe)
            if recipe.train == "head":
                check_head_alone(recipe)
            if recipe.weights == "hub":
                from_hub[network] = task, recipe
            else:
                states[network] = load_state(recipe, model)
    with mistakes.collect():
        device = resolve_device(settings.device)
    for task, recipe in recipes.items():
        with mistakes.collect():
            check_device_support(task, recipe, device)
    mistakes.raise_if_any()
    for network, (task, recipe) in from_hub.items():  # after all quick checks: a hub may take minutes
        with mistakes.collect(task):
            states[network] = load_state(recipe)
    mistakes.raise_if_any()
    return device, states

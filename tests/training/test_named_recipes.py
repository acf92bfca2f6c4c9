"""Every named recipe trains: two steps by each, with its own backbone, at a tiny size and from random weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.artifacts.cards import Origin
from orchestrator.data.preprocessing import Preprocess
from orchestrator.networks.backbones import InitialWeights, preprocess_of
from orchestrator.networks.heads import head_of
from orchestrator.recipes.load import load_recipes, recipe_files
from orchestrator.specialists import TRAINABLE
from orchestrator.training.epoch import train_epoch
from orchestrator.training.job import MemberJob
from orchestrator.training.learner import Learner, Progress
from orchestrator.training.scoring import held_out_probabilities
from tests.training.test_loop import Stripes, job_of

NAMED = [(task, name) for task, specialist in TRAINABLE.items() for name in recipe_files(specialist)]
SIZE = 64
SMALLER = {
    "convnextv2_base.fcmae_ft_in22k_in1k_384": "convnextv2_atto",
    "tf_efficientnetv2_l.in21k_ft_in1k": "tf_efficientnetv2_b0",
}
"""Building 100 million weights takes most of half a minute: the age specialist's recipes do, the others stay in the family."""


class Tall(Stripes):
    """The stripes at the size of these recipes."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(super().take(rows).repeat(2, axis=1).repeat(2, axis=2))


def job_for(task: str, name: str, folder: Path) -> MemberJob:
    specialist = TRAINABLE[task]
    changes = [
        f"height={SIZE}",
        f"width={SIZE}",
        "weights=none",
        "epochs=2",
        "batch_size=2",
        "patience=0",
        "train=network",
    ]
    recipe = load_recipes({task: specialist}, [name], [f"{task}.{change}" for change in changes])[task]
    if task != "age":
        recipe = recipe.model_copy(update={"backbone": SMALLER.get(recipe.backbone, recipe.backbone)})
    plain = job_of(folder, people=12)
    rows = np.arange(len(plain.rows))
    steps = 2 * recipe.batch_size * recipe.accumulate
    classes = plain.rows.truth % len(specialist.classes)
    ages = np.array([20.0, 45.0, 61.0])[classes]
    head = head_of(specialist, recipe)
    target = ages if recipe.loss == "soft_age" else classes
    labelled = replace(plain.rows, truth=classes, trained=classes, person=rows, target=target)
    preprocess: Preprocess = preprocess_of(recipe)
    return MemberJob(
        run="r", folder=folder, task=task, fold=0, classes=specialist.classes, rows=labelled, train=rows[:steps],
        held_out=rows[steps : steps + 3], held_out_photos=plain.held_out_photos.iloc[:3],
        pixels=Tall(plain.rows.truth), recipe=recipe, head=head,
        preprocess=preprocess, initial=InitialWeights(None, ""), seed=1, threads=1, device="cpu",
        origin=Origin("r", None, "", None, {}, {}),
    )  # fmt: skip


def test_all_named_recipes_are_here() -> None:
    assert len(NAMED) == 37


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), NAMED)
def test_a_named_recipe_takes_two_steps(task: str, name: str, tmp_path: Path) -> None:
    job = job_for(task, name, tmp_path)
    backbone = load_recipes({task: TRAINABLE[task]}, [name])[task].backbone
    assert job.recipe.backbone == (backbone if task == "age" else SMALLER.get(backbone, backbone))
    learner = Learner(job, 1)
    before = next(iter(learner.trained)).detach().clone()
    epoch = train_epoch(job, learner, Progress())
    assert job.steps_per_epoch == 2
    assert np.isfinite(epoch.loss)
    assert not np.array_equal(before, next(iter(learner.trained)).detach())
    answers = held_out_probabilities(job, learner.scored)
    assert answers.shape == (3, len(TRAINABLE[task].classes))
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-4)

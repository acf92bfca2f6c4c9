"""Decision: a pixel store, jobs of one thread, channels-last, kept memory and one loop for all, instead of a loop per model.

Trains the same specialists over the same folds twice, in turn: by `orch train-all`, and by the loop that most people write (one
model after the other, every photo opened and resized anew in every epoch, torch's own threads and memory format). Network,
weights, frozen layers, sampling, augmentation, optimiser, schedule, epochs and scoring are the same, so the scores must agree
within their intervals. Prints seconds, the ratio, and both macro F1.

    python benchmarks/bench_train_all.py --data people/train --people 240 --folds 2
    python benchmarks/bench_train_all.py --data people/train --people 240 --folds 2 --scale 2     # photos twice as large
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from orchestrator.core.labels import CLASSES, LABELS, TASKS, compose
from orchestrator.core.metrics import macro_f1
from orchestrator.core.strategies import Strategy
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.folds import plan_folds
from orchestrator.data.photos import Photos
from orchestrator.data.readers import read
from orchestrator.data.sampling import draw_epoch, expected_draws
from orchestrator.networks.backbones import (
    InitialWeights,
    create,
    freeze_stages,
    keep_weights,
    load_state,
    preprocess_of,
)
from orchestrator.networks.heads import head_of, photo_weights
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Recipe
from orchestrator.specialist import Specialist
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.optimisers import create_optimiser, rate_factor, set_rate


class Files(Dataset):
    """Photos opened whenever they are asked for."""

    def __init__(self, photos: Photos, rows: np.ndarray, recipe: Recipe, augmented: bool) -> None:
        self.paths, self.rows, self.recipe = photos.paths, rows, recipe
        self.preprocess = preprocess_of(recipe)
        self.augmenter = Augmenter(recipe.augment, recipe.height, recipe.width) if augmented else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = int(self.rows[index])
        photo = np.asarray(Image.open(self.paths[row]).convert("RGB"))
        pixels = self.preprocess.geometry.apply(photo)[None]
        if self.augmenter is not None:
            pixels = self.augmenter(pixels, int(np.random.randint(2**31)))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.preprocess.mean, self.preprocess.std))
        return (torch.from_numpy(pixels[0]).permute(2, 0, 1).float() / 255 - mean) / std, row


def plain_member(
    specialist: Specialist,
    recipe: Recipe,
    photos: Photos,
    train: np.ndarray,
    held_out: np.ndarray,
    initial: InitialWeights,
) -> np.ndarray:
    """One model by a plain loop: probabilities of the held-out rows by its best epoch."""
    head = head_of(specialist, recipe)
    model = create(recipe.backbone, head.outputs, recipe, initial).to(memory_format=torch.contiguous_format)
    frozen = freeze_stages(model, recipe.frozen_stages)
    optimiser = create_optimiser(model, recipe)
    persons = pd.factorize(photos.table["person"].iloc[train])[0]
    kinds = np.array([CLASSES["mask"].index(word) for word in photos.table["mask"].iloc[train]])
    kinds = kinds if recipe.draw_by == "mask" else np.zeros_like(kinds)
    target = torch.tensor(head.targets(specialist, photos.table, recipe))
    weights = torch.ones(len(target))
    draws = expected_draws(recipe.sampling, persons, kinds)
    weights[train] = torch.from_numpy(
        photo_weights(specialist.training_label(photos.table, recipe)[train], recipe.class_balance, draws)
    )
    truth = specialist.label(photos.table)[held_out]
    rng, step, best, answers = np.random.default_rng(0), 0, -1.0, np.zeros(0)
    for epoch in range(recipe.epochs):
        model.train()
        for module in frozen:
            module.eval()
        rows = train[draw_epoch(recipe.sampling, persons, kinds, rng)]
        batches = DataLoader(Files(photos, rows, recipe, True), recipe.batch_size, drop_last=True)
        for inputs, numbers in batches:
            set_rate(optimiser, rate_factor(step, recipe.epochs * len(batches), recipe.warmup))
            loss = head.loss(model(inputs), target[numbers], weights[numbers])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimiser.step()
            step += 1
        if (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs:
            model.eval()
            with torch.no_grad():
                parts = [
                    head.probabilities(model(inputs)).numpy()
                    for inputs, _ in DataLoader(Files(photos, held_out, recipe, False), 64)
                ]
            probabilities = np.concatenate(parts)
            score = macro_f1(truth, probabilities.argmax(axis=1), len(specialist.classes))
            if score > best:
                best, answers = score, probabilities
    return answers


def plain_train_all(data: Path, folds: int, recipe: str, cache: Path) -> float:
    """All specialists over all folds, one model after the other; the 18-way macro F1 out of fold."""
    photos, recipes = read(data), load_recipes(SPECIALISTS, [recipe])
    plan = plan_folds(photos.people, folds, 0)
    answers = {task: np.zeros(len(photos), np.int64) for task in TASKS}
    for task in TASKS:
        initial = keep_weights(recipes[task].backbone, load_state(recipes[task]), cache)
        for fold in range(folds):
            train, held_out = plan.split(photos.table["person"], fold)
            probabilities = plain_member(SPECIALISTS[task], recipes[task], photos, train, held_out, initial)
            answers[task][held_out] = probabilities.argmax(axis=1)
    truth = compose(*(SPECIALISTS[task].label(photos.table) for task in TASKS))
    return macro_f1(truth, compose(*(answers[task] for task in TASKS)), len(LABELS))


def some(data: Path, people: int, scale: float, folder: Path) -> Path:
    """A manifest of some people, their photos larger by `scale`."""
    photos = read(data)
    chosen = photos.people.groupby(["gender"]).sample(people // 2, random_state=0).index
    table = photos.table[photos.table["person"].isin(chosen)].reset_index(drop=True)
    for number, path in enumerate(table["path"]):
        image = Image.open(photos.root / path).convert("RGB")
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=92)
    table.assign(path=[f"{number}.jpg" for number in range(len(table))]).to_csv(folder / "some.csv", index=False)
    return folder / "some.csv"


def orch_train_all(data: Path, folds: int, recipe: str, workspace: Path) -> float:
    """The same by the product's own command, in a process of its own; the 18-way macro F1 out of fold."""
    from orchestrator.artifacts.workspace import Workspace
    from orchestrator.ensembling.build import build_ensemble
    from orchestrator.ensembling.choosing import choose_runs

    code = "from orchestrator.cli.app import main\nif __name__ == '__main__': main()"
    program = workspace.parent / "orch.py"
    program.write_text(code)
    words = ["train-all", "--data", data, "--folds", folds, "--recipe", recipe, "--workspace", workspace]
    subprocess.run([sys.executable, program, *map(str, words)], check=True, capture_output=True)
    space = Workspace(workspace)
    built = build_ensemble(space, Strategy.parse(), choose_runs(space), SPECIALISTS)
    assert built.scored is not None
    return built.scored.evaluation["label"].scores.macro_f1


def main() -> None:
    """Prints a line per round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=240)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = some(options.data, options.people, options.scale, folder)
        for number in range(options.rounds):
            started = time.perf_counter()
            ours = orch_train_all(data, options.folds, options.recipe, folder / f"runs{number}")
            between = time.perf_counter()
            plain = plain_train_all(data, options.folds, options.recipe, folder / "cache")
            ended = time.perf_counter()
            print(
                f"round {number}: orch {between - started:.1f} s (macro F1 {ours:.3f})  plain {ended - between:.1f} s "
                f"(macro F1 {plain:.3f})  ratio {(ended - between) / (between - started):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""A member's training: what it learns, draws, scores, keeps and refuses."""

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from orchestrator.artifacts import cards
from orchestrator.artifacts.cards import MemberCard, Origin
from orchestrator.core.errors import DeviceError, TrainingError, WorkspaceError
from orchestrator.core.events import EpochEnded, EpochProgress, Event
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.data.store import PixelSource
from orchestrator.networks.backbones import InitialWeights
from orchestrator.networks.heads import head_of
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS
from orchestrator.training import epoch, learner, loop, scoring
from orchestrator.training.job import MemberJob, TrainingRows
from orchestrator.training.loop import train_fold
from tests.conftest import TINY


class Stripes(PixelSource):
    """Photos whose class is the brightness of their left half: learnable in a few steps."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), 32, 32, 3), np.uint8)
        for index, row in enumerate(rows):
            rng = np.random.default_rng(row)
            out[index] = rng.integers(0, 60, (32, 32, 3))
            out[index, :, :16] += np.uint8(90 * self.truth[row])
        return out


def job_of(folder: Path, *changes: str, people: int = 30, **more: object) -> MemberJob:
    specialist = SPECIALISTS["mask"]
    recipe = load_recipes({"mask": specialist}, ["quick"], [*TINY, "epochs=4", "lr=3e-3", *changes])["mask"]
    truth = np.tile([0, 1, 2], people)[: people * 3]
    photos = pd.DataFrame(
        {"path": [f"{n}.jpg" for n in range(people * 3)], "person": np.repeat([f"p{n}" for n in range(people)], 3)}
    )
    rows, none = np.arange(len(photos)), np.zeros(len(photos), np.int64)
    job = MemberJob(
        run=folder.parent.name, folder=folder, task="mask", fold=0, classes=specialist.classes,
        rows=TrainingRows(rows // 3, truth, truth, truth, none, none.astype(bool)), train=rows[: people * 2],
        held_out=rows[people * 2 :], held_out_photos=photos.iloc[people * 2 :],
        pixels=Stripes(truth), recipe=recipe, head=head_of(specialist, recipe),
        preprocess=Preprocess(Geometry(32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), initial=InitialWeights(None, ""),
        seed=1, threads=1, device="cpu",
        origin=Origin(folder.parent.name, None, "", None, {"timm": "1"}, {}),
    )  # fmt: skip
    return dataclasses.replace(job, **more)


def test_a_member_learns_and_leaves_a_whole_record(tmp_path: Path) -> None:
    card = train_fold(job_of(tmp_path / "m", "epochs=12", "augment={}"))
    folder = tmp_path / "m"
    assert {path.name for path in folder.iterdir()} - {cards.LOCK} == {
        cards.CARD, cards.HELD_OUT, cards.HISTORY, cards.WEIGHTS,
    }  # fmt: skip
    history = json.loads((folder / cards.HISTORY).read_text())
    assert [entry["epoch"] for entry in history] == list(range(1, 13))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert card.scores.macro_f1 == max(entry["macro_f1"] for entry in history) > 0.6
    assert history[card.best_epoch - 1]["macro_f1"] == card.scores.macro_f1
    table = pd.read_parquet(folder / cards.HELD_OUT)
    assert len(table) == 30 == card.held_out.photos
    assert np.allclose(table[["p(mask wear)", "p(mask incorrect)", "p(mask not_wear)"]].sum(axis=1), 1, atol=1e-5)
    assert MemberCard.load(folder) == card
    assert [epoch.as_dict() for epoch in card.history] == history
    assert np.trace(card.confusion) / 30 == card.scores.accuracy


def test_seeds_folds_and_tasks_draw_differently_and_the_same_seed_the_same(tmp_path: Path) -> None:
    first = train_fold(job_of(tmp_path / "a", "epochs=1"))
    same = train_fold(job_of(tmp_path / "b", "epochs=1"))
    other = train_fold(job_of(tmp_path / "c", "epochs=1", seed=2))
    assert first.sha256 == same.sha256 != other.sha256
    job = job_of(tmp_path / "d")
    entropies = {
        dataclasses.replace(job, task=task, fold=fold, seed=seed).entropy(purpose, 0)
        for task in ("age", "mask") for fold in (0, 1, None) for seed in (0, 1) for purpose in range(5)
    }  # fmt: skip
    assert len(entropies) == 2 * 3 * 2 * 5


def test_every_epoch_draws_and_changes_photos_anew(tmp_path: Path) -> None:
    drawn: list[np.ndarray] = []

    class RecordingStripes(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            drawn.append(rows)
            return super().take(rows)

    job = job_of(tmp_path / "m", "sampling=per_person", "epochs=3")
    pixels = RecordingStripes(job.rows.truth)
    # Three photos a person, all people to train on, so an epoch is one photo of each: batches of 16 from 30 people.
    train_fold(dataclasses.replace(job, pixels=pixels, train=np.arange(90), held_out=np.array([], int)))
    epochs = [set(rows.tolist()) for rows in drawn]
    assert [len(rows) for rows in epochs] == [16, 16, 16]
    for rows in epochs:
        assert len({row // 3 for row in rows}) == 16
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    seen: list[int] = []
    real = Augmenter.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Augmenter, "__call__", lambda self, pixels, seed: (seen.append(seed), real(self, pixels, seed))[1]
        )
        train_fold(job_of(tmp_path / "a", "epochs=2"))
    assert len(seen) == len(set(seen)) == 2 * (60 // 16)


def test_scores_are_of_the_truth_whatever_is_trained_on(tmp_path: Path) -> None:
    # Scored once, at the end: the best epoch by the truth would be the one that learned least of what it was taught.
    job = job_of(tmp_path / "m", "epochs=12", "evaluate_every=12", "augment={}")
    moved = (job.rows.truth + 1) % 3  # as a moved border moves classes, only for everybody
    card = train_fold(dataclasses.replace(job, rows=dataclasses.replace(job.rows, trained=moved, target=moved)))
    table = pd.read_parquet(tmp_path / "m" / cards.HELD_OUT)
    assert table["truth"].tolist() == job.rows.truth[job.held_out].tolist()
    answers = table.filter(like="p(").to_numpy().argmax(axis=1)
    assert (answers == (table["truth"] + 1) % 3).mean() > 0.6  # it learned what it was taught
    assert card.scores.accuracy == (answers == table["truth"]).mean() < 0.4


def test_gradients_are_clipped_to_the_recipes_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))))
            return super().step(closure)

    def watched(model: torch.nn.Module, recipe: object) -> torch.optim.Optimizer:
        optimiser = Watched([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        optimiser.param_groups[0]["peak_lr"] = 1e-3
        return optimiser

    monkeypatch.setattr(learner, "create_optimiser", watched)
    train_fold(job_of(tmp_path / "free", "clip_norm=0", "epochs=1"))
    assert min(norms) > 0.06
    norms.clear()
    train_fold(job_of(tmp_path / "held", "clip_norm=0.05", "epochs=1"))
    assert norms
    assert max(norms) <= 0.05 + 1e-6


def test_networks_train_channels_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = epoch.Batch.loss

    def watched(batch: epoch.Batch, job: MemberJob, network: torch.nn.Module) -> torch.Tensor:
        spatial = [p for p in network.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
        seen.append(bool(spatial) and all(p.is_contiguous(memory_format=torch.channels_last) for p in spatial))
        return real(batch, job, network)

    monkeypatch.setattr(epoch.Batch, "loss", watched)
    train_fold(job_of(tmp_path, "epochs=1"))
    assert seen
    assert all(seen)


def test_a_member_is_trained_by_as_many_threads_as_its_job_says(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        card = train_fold(job_of(tmp_path, "epochs=1", threads=2))
        assert torch.get_num_threads() == 2 == card.threads
    finally:
        torch.set_num_threads(before)


def test_patience_stops_and_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    real = scoring.member_scores

    def scored(*arguments: object) -> object:
        epoch_scores, confusion = real(*arguments)
        return dataclasses.replace(epoch_scores, macro_f1=next(scores)), confusion

    monkeypatch.setattr(scoring, "member_scores", scored)
    card = train_fold(job_of(tmp_path, "epochs=9", "patience=2"))
    assert (card.epochs, card.best_epoch) == (4, 2)


def test_trained_on_everything_there_is_no_score_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path, "epochs=2")
    everything = dataclasses.replace(job, fold=None, train=np.arange(90), held_out=np.array([], int))
    card = train_fold(everything)
    assert card.scores is None
    assert card.best_epoch == 2
    assert set(card.sha256) == {cards.WEIGHTS}


def test_a_member_whose_answers_or_weights_are_no_numbers_is_never_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken after the last step, so that no loss tells: by weights, by a norm's statistics, by the answers alone."""
    real = learner.Learner.scored.fget
    assert real is not None

    def broken(key: str) -> property:
        def scored(self: learner.Learner) -> torch.nn.Module:
            average = real(self)
            with torch.no_grad():
                dict(average.state_dict())[key].fill_(float("nan"))
            return average

        return property(scored)

    for name, key in (("a", "classifier.bias"), ("b", "bn1.running_var")):
        with (
            monkeypatch.context() as patch,
            pytest.raises(TrainingError, match=rf"\({key} first\) became infinite or NaN in"),
        ):
            patch.setattr(learner.Learner, "scored", broken(key))
            everything = dataclasses.replace(job_of(tmp_path / name), fold=None, held_out=np.array([], int))
            train_fold(everything)
        assert not (tmp_path / name / cards.CARD).exists()
    monkeypatch.setattr(scoring, "autocast", lambda *_: Overflow())
    with pytest.raises(TrainingError, match=r"answers are infinite or NaN for 30 of 30 held-out photos.*mask.lr="):
        train_fold(job_of(tmp_path / "c"))
    assert not (tmp_path / "c" / cards.CARD).exists()


class Overflow:
    """A forward pass whose numbers run over, as in fp16: only while scoring, with weights that are in order."""

    def __enter__(self) -> None:
        self.hook = torch.nn.modules.module.register_module_forward_hook(lambda module, _, out: out * float("inf") * 0)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def test_scores_of_no_numbers_are_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    probabilities = np.full((30, 3), 1 / 3, np.float32)
    assert scoring.scores_of(job, probabilities)[0].accuracy == pytest.approx(1 / 3)
    probabilities[4, 1] = np.nan
    with pytest.raises(TrainingError, match="infinite or NaN"):
        scoring.scores_of(job, probabilities)


def test_the_way_out_of_numbers_that_are_none_fits_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clip harder" in str(epoch.diverged(job_of(tmp_path), "x"))
    message = str(epoch.diverged(job_of(tmp_path, "clip_norm=0.2", "lr=3e-3"), "x"))
    assert message == (
        "mask fold 0: x. Ways out, each by training another run: lower the learning rate (--set mask.lr=1.0e-03)."
    )
    monkeypatch.setattr(epoch, "precision_of", lambda *_: torch.float16)
    assert "--set mask.precision=bf16" in str(epoch.diverged(job_of(tmp_path), "x"))


def test_a_loss_that_explodes_is_told_with_the_setting(tmp_path: Path) -> None:
    # Which check notices it first, that of the loss, the weights or the answers, differs between processors.
    ways = r"lower the learning rate \(--set mask\.lr=3\.3e\+00\); clip harder \(--set mask\.clip_norm=0\.5\)\.$"
    with pytest.raises(
        TrainingError, match=rf"^mask fold 0: .*(inf|nan|NaN).* Ways out, each by training another run: {ways}"
    ):
        train_fold(
            job_of(
                tmp_path, "lr=10", "clip_norm=0", "optimiser=sgd", "epochs=30", "label_smoothing=0", "weight_decay=1"
            )
        )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("can't allocate memory: 9 bytes"),
        OSError(errno.ENOMEM, "no process for loading"),
    ],
)
def test_out_of_memory_says_which_setting_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "train_epoch", fail)
    with pytest.raises(DeviceError, match=r"batch_size \(now 16; --set mask.batch_size=8\).*--jobs"):
        train_fold(job_of(tmp_path))


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / cards.CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(WorkspaceError, match="this fold then starts over"):
        train_fold(job_of(tmp_path))


def test_two_processes_never_train_one_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FileLock.acquire
    monkeypatch.setattr(loop.FileLock, "acquire", lambda self, timeout=None: real(self, timeout=0.1))
    with FileLock(tmp_path / cards.LOCK), pytest.raises(WorkspaceError, match="another process is training"):
        train_fold(job_of(tmp_path))


def test_workers_are_started_where_they_repay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)  # the machine's, of which a container has a share
    monkeypatch.setattr(epoch, "cores", lambda: 6)
    recipes = {
        workers: load_recipes({"mask": SPECIALISTS["mask"]}, ["quick"], [f"workers={workers}"])["mask"]
        for workers in (-1, 0, 3)
    }
    counts = [epoch.worker_count(recipes[-1], "cuda", batches) for batches in (5, 15, 16, 47, 48, 1000)]
    assert counts == [0, 0, 1, 2, 3, 6]
    assert epoch.worker_count(recipes[-1], "cpu", 1000) == 0
    assert [epoch.worker_count(recipes[workers], "cuda", 5) for workers in (0, 3)] == [0, 3]


def test_a_training_tells_its_listener_of_progress_and_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch, "PROGRESS_SECONDS", 0)
    events: list[Event] = []
    job = job_of(tmp_path / "r" / "m", "epochs=2")
    card = train_fold(job, events.append)
    ends = [event for event in events if isinstance(event, EpochEnded)]
    assert ends == [EpochEnded("r", 0, epoch) for epoch in card.history]
    steps = job.steps_per_epoch
    assert [event.epochs for event in events if isinstance(event, EpochProgress)] == [
        pytest.approx(number / steps) for number in range(1, 2 * steps + 1)
    ]
    assert events.index(ends[0]) == steps
    assert train_fold(job, events.append) == card
    assert len(events) == 2 * steps + 2  # a complete member has no progress

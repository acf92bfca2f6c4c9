import dataclasses
import json
import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError

from orchestrator.artifacts import cards, weights
from orchestrator.artifacts.cards import MemberCard, Origin
from orchestrator.core.errors import DeviceError, TrainingError, WorkspaceError
from orchestrator.core.events import EpochEnded, Event, MemberEnded, nobody
from orchestrator.data.augmentation import Augmenter
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.data.store import PixelSource
from orchestrator.execution.local import LocalExecutor, claim_gpu
from orchestrator.networks.backbones import InitialWeights
from orchestrator.networks.heads import head_of
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS
from orchestrator.training import epoch, learner, loop, scoring
from orchestrator.training.cancelling import CancelFile
from orchestrator.training.loop import train_fold
from orchestrator.training.member import MemberJob
from tests.conftest import TINY


class Stripes(PixelSource):
    """Photos whose class is the brightness of their left half: learnable in a few steps."""

    def __init__(self, truth: np.ndarray) -> None:
        self.truth = truth

    def take(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), 32, 32, 3), np.uint8)
        for place, row in enumerate(rows):
            rng = np.random.default_rng(row)
            out[place] = rng.integers(0, 60, (32, 32, 3))
            out[place, :, :16] += np.uint8(90 * self.truth[row])
        return out


def job_of(folder: Path, *changes: str, people: int = 30, **more: object) -> MemberJob:
    specialist = SPECIALISTS["mask"]
    recipe = load_recipes({"mask": specialist}, ["quick"], [*TINY, "epochs=4", "lr=3e-3", *changes])["mask"]
    truth = np.tile([0, 1, 2], people)[: people * 3]
    table = pd.DataFrame(
        {"path": [f"{n}.jpg" for n in range(people * 3)], "person": np.repeat([f"p{n}" for n in range(people)], 3)}
    ).assign(truth=truth, trained=truth, target=truth, kind=0, extra=False)
    rows = np.arange(len(table))
    job = MemberJob(
        run=folder.parent.name, folder=folder, locks=folder.parent, task="mask", fold=0, classes=specialist.classes,
        table=table, train=rows[: people * 2],
        held_out=rows[people * 2 :], pixels=Stripes(truth), recipe=recipe, head=head_of(specialist, recipe),
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
    assert card.scores["macro_f1"] == max(entry["macro_f1"] for entry in history) > 0.6
    assert history[card.best_epoch - 1]["macro_f1"] == card.scores["macro_f1"]
    table = pd.read_parquet(folder / cards.HELD_OUT)
    assert len(table) == 30 == card.held_out["photos"]
    assert np.allclose(table[["p(mask wear)", "p(mask incorrect)", "p(mask not_wear)"]].sum(axis=1), 1, atol=1e-5)
    assert MemberCard.load(folder) == card
    assert card.history == history
    assert np.trace(card.confusion) / 30 == card.scores["accuracy"]


def test_seeds_folds_and_tasks_draw_differently_and_the_same_seed_the_same(tmp_path: Path) -> None:
    one = train_fold(job_of(tmp_path / "a", "epochs=1"))
    same = train_fold(job_of(tmp_path / "b", "epochs=1"))
    other = train_fold(job_of(tmp_path / "c", "epochs=1", seed=2))
    assert one.sha256 == same.sha256 != other.sha256
    job = job_of(tmp_path / "d")
    entropies = {
        dataclasses.replace(job, task=task, fold=fold, seed=seed).entropy(purpose, 0)
        for task in ("age", "mask") for fold in (0, 1, None) for seed in (0, 1) for purpose in range(5)
    }  # fmt: skip
    assert len(entropies) == 2 * 3 * 2 * 5


def test_every_epoch_draws_and_changes_photos_anew(tmp_path: Path) -> None:
    asked: list[np.ndarray] = []

    class Told(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            asked.append(rows)
            return super().take(rows)

    job = job_of(tmp_path / "m", "sampling=per_person", "epochs=3")
    pixels = Told(job.table["truth"].to_numpy())
    # Three photos a person, all people to train on, so an epoch is one photo of each: batches of 16 from 30 people.
    train_fold(dataclasses.replace(job, pixels=pixels, train=np.arange(90), held_out=np.array([], int)))
    epochs = [set(rows.tolist()) for rows in asked]
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
    # Scored once, at the end: the best epoch by the truth would be the one that learnt least of what it was taught.
    job = job_of(tmp_path / "m", "epochs=12", "evaluate_every=12", "augment={}")
    moved = (job.table["truth"] + 1) % 3  # as a moved border moves classes, only for everybody
    card = train_fold(dataclasses.replace(job, table=job.table.assign(trained=moved, target=moved)))
    table = pd.read_parquet(tmp_path / "m" / cards.HELD_OUT)
    assert table["truth"].tolist() == job.table["truth"].iloc[job.held_out].tolist()
    answers = table.filter(like="p(").to_numpy().argmax(axis=1)
    assert (answers == (table["truth"] + 1) % 3).mean() > 0.6  # it learnt what it was taught
    assert card.scores["accuracy"] == (answers == table["truth"]).mean() < 0.4


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


def test_patience_stops_and_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    real = scoring.score

    def scored(*words: object) -> object:
        found = real(*words)
        object.__setattr__(found, "macro_f1", next(scores))
        return found

    monkeypatch.setattr(scoring, "score", scored)
    card = train_fold(job_of(tmp_path, "epochs=9", "patience=2"))
    assert (card.epochs, card.best_epoch) == (4, 2)


def test_trained_on_everything_there_is_no_score_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path, "epochs=2")
    everything = dataclasses.replace(job, fold=None, train=np.arange(90), held_out=np.array([], int))
    card = train_fold(everything)
    assert card.scores == {}
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
            found = real(self)
            with torch.no_grad():
                dict(found.state_dict())[key].fill_(float("nan"))
            return found

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
        self.hook = torch.nn.modules.module.register_module_forward_hook(lambda one, _, out: out * float("inf") * 0)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def test_scores_of_no_numbers_are_refused(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    probabilities = np.full((30, 3), 1 / 3, np.float32)
    assert scoring.scores_of(job, probabilities)[1]["accuracy"] == pytest.approx(1 / 3)
    probabilities[4, 1] = np.nan
    with pytest.raises(TrainingError, match="infinite or NaN"):
        scoring.scores_of(job, probabilities)


def test_the_way_out_of_numbers_that_are_none_fits_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "clip harder" in str(epoch.diverged(job_of(tmp_path), "x"))
    said = str(epoch.diverged(job_of(tmp_path, "clip_norm=0.2", "lr=3e-3"), "x"))
    assert said == (
        "mask fold 0: x. Ways out, each by training another run: lower the learning rate (--set mask.lr=1.0e-03)."
    )
    monkeypatch.setattr(epoch, "precision_of", lambda *_: torch.float16)
    assert "--set mask.precision=bf16" in str(epoch.diverged(job_of(tmp_path), "x"))


def test_a_loss_that_explodes_is_told_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"(the loss became|infinite or NaN).*--set mask.lr="):
        train_fold(
            job_of(
                tmp_path, "lr=10", "clip_norm=0", "optimiser=sgd", "epochs=30", "label_smoothing=0", "weight_decay=1"
            )
        )


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: 9 bytes")],
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


def test_one_failing_job_never_sinks_the_others(tmp_path: Path) -> None:
    class Broken(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            raise OSError("the disk is gone")

    good = [job_of(tmp_path / "r" / f"fold-{fold}", "epochs=1", fold=fold) for fold in (0, 2)]
    bad = job_of(tmp_path / "r" / "fold-1", "epochs=1", fold=1, pixels=Broken(np.zeros(90)))
    events: list[Event] = []
    results = LocalExecutor().run([good[0], bad, good[1]], 1, events.append)
    assert [result.outcome for result in results] == ["done", "failed", "done"]
    assert "mask fold 1: OSError: the disk is gone" in results[1].why
    ends = [event for event in events if isinstance(event, MemberEnded)]
    assert [(end.run, end.fold, end.outcome) for end in ends] == [
        ("r", 0, "done"),
        ("r", 1, "failed"),
        ("r", 2, "done"),
    ]
    (one, *_, last) = [event for event in events if isinstance(event, EpochEnded)]
    assert (one.fold, one.entry["epoch"], last.fold) == (0, 1, 2)
    assert events.index(one) < events.index(ends[0])  # its epochs before its end
    failure = json.loads((tmp_path / "r" / "fold-1" / "failure.json").read_text())
    assert "Traceback" in failure["traceback"]


class Deadly(Stripes):
    """Pixels whose reader is killed, as the kernel does when memory runs out."""

    def take(self, rows: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().take(rows)


@pytest.mark.slow
def test_a_job_whose_worker_dies_twice_is_told_with_the_settings_to_lower(tmp_path: Path) -> None:
    good = job_of(tmp_path / "r" / "fold-0", "epochs=1")
    bad = job_of(tmp_path / "r" / "fold-1", "epochs=1", fold=1, pixels=Deadly(np.zeros(90)))
    results = LocalExecutor().run([bad, good], 2, nobody)
    assert [result.outcome for result in results] == ["failed", "done"]
    assert "mask fold 1: its process was killed, most likely because memory ran out" in results[0].why
    assert "--set mask.batch_size=8 (now 16) or --jobs" in results[0].why


@pytest.mark.slow
def test_a_listener_that_raises_ends_the_other_workers(tmp_path: Path) -> None:
    """Instead of leaving them at work on members that nobody waits for."""
    short = job_of(tmp_path / "r" / "fold-0", "epochs=1")
    long = job_of(tmp_path / "r" / "fold-1", "epochs=10000", fold=1)

    def listen(event: Event) -> None:
        if isinstance(event, MemberEnded):
            raise ZeroDivisionError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ZeroDivisionError):
            LocalExecutor().run([short, long], 2, listen)
    assert not [child for child in psutil.Process().children() if "LokyProcess" in " ".join(child.cmdline())]


def test_cores_are_shared_out_and_wrong_numbers_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.externals.loky.cpu_count", lambda *_, **__: 8)
    assert LocalExecutor(0).parallelism(15, "cpu") == (8, 1)
    assert LocalExecutor(2).parallelism(15, "cpu") == (2, 4)
    assert LocalExecutor(0).parallelism(3, "cpu") == (3, 2)
    assert LocalExecutor(0).parallelism(15, "cuda") == (1, 8)
    with pytest.raises(Exception, match="--jobs -1"):
        LocalExecutor(-1).parallelism(3, "cpu")


def test_gpus_are_claimed_one_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.execution.local.gpu_count", lambda: 2)
    with claim_gpu(tmp_path, "cuda") as one, claim_gpu(tmp_path, "cuda") as other, claim_gpu(tmp_path, "cuda") as third:
        assert (one, other) == ("cuda:0", "cuda:1")
        assert third in ("cuda:0", "cuda:1")
    with claim_gpu(tmp_path, "cpu") as device:
        assert device == "cpu"


def test_a_full_disk_is_a_sentence_and_sinks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights.save_file

    def full(tensors: object, path: Path, note: object) -> None:
        if "fold-0" in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path, note)

    monkeypatch.setattr(weights, "save_file", full)
    jobs = [job_of(tmp_path / "r" / f"fold-{fold}", "epochs=1", fold=fold) for fold in (0, 1)]
    results = LocalExecutor().run(jobs, 1, nobody)
    assert "the disk is full; the file was not written and nothing was damaged" in results[0].why
    assert results[1].outcome == "done"
    assert not list((tmp_path / "r").rglob("*.tmp"))


def test_a_training_that_is_asked_to_stop_keeps_its_epochs_and_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    """By a file, which other processes and machines see too."""
    whole = train_fold(job_of(tmp_path / "whole", "epochs=4"))
    stop = CancelFile(tmp_path / "stop")
    job = job_of(tmp_path / "r" / "fold-0", "epochs=4", cancel=(stop,))

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnded):
            stop.cancel()

    class Slow(Stripes):
        def take(self, rows: np.ndarray) -> np.ndarray:
            time.sleep(0.1)  # the file is looked at once a second
            return super().take(rows)

    slow = dataclasses.replace(job, pixels=Slow(job.table["truth"].to_numpy()))
    (result,) = LocalExecutor().run([slow], 1, listen)
    assert (result.outcome, "goes on from there" in result.why) == ("cancelled", True)
    assert not (job.folder / cards.CARD).exists()
    (again,) = LocalExecutor().run([job], 1, nobody)
    assert again.outcome == "cancelled"  # still asked to stop: before anything is loaded
    stop.path.unlink()
    events: list[Event] = []
    (done,) = LocalExecutor().run([job], 1, events.append)
    assert done.outcome == "done"
    first = next(event for event in events if isinstance(event, EpochEnded))
    assert first.entry["epoch"] > 1
    assert MemberCard.load(job.folder).sha256 == whole.sha256


@pytest.mark.slow
def test_workers_are_asked_to_stop_by_the_same_file(tmp_path: Path) -> None:
    stop = CancelFile(tmp_path / "stop")
    stop.cancel()
    jobs = [job_of(tmp_path / "r" / f"fold-{fold}", fold=fold, cancel=(stop,)) for fold in (0, 1)]
    assert [result.outcome for result in LocalExecutor().run(jobs, 2, nobody)] == ["cancelled"] * 2

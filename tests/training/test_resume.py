"""Killed and run again ends with the same bits as not killed, whatever technique carries state."""

import json
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.artifacts import cards
from orchestrator.recipes.schema import Optimiser, Schedule
from orchestrator.training import checkpoints, loop
from orchestrator.training.loop import train_fold
from tests.training.test_loop import job_of

TECHNIQUES = [
    *[(f"optimiser={name}", "lr=1e-3") for name in get_args(Optimiser)],
    *[(f"schedule={name}",) for name in get_args(Schedule) if name != "plateau"],
    ("schedule=plateau", "plateau_patience=0", "lr_factor=0.1"),
    ("ema=0.9",),
    ("sam=0.05",),
    ("sam=0.05", "optimiser=sgd", "accumulate=2", "ema=0.9"),
    ("accumulate=2",),
    ("frozen_stages=3", "unfreeze_after=1"),
    ("frozen_stages=3", "unfreeze_after=2", "layer_decay=0.7"),
    ("small_epochs=2", "small_size=0.5"),
    ("mixup=0.4", "cutmix=1.0", "drop_rate=0.3"),
    ("backbone=test_resnet", "drop_path_rate=0.5"),  # the other test network has no paths to drop
    ("sample_balance=1.0", "sample_factor={incorrect = 1.5}"),
    ("checkpointing=true", "drop_rate=0.3"),
    ("pooling=avgmax", "loss=0.4 f1 + 0.6 focal"),
    ("augment.randaugment=2", "augment.cutout=0.5", "augment.elastic=0.5"),
]


class StopError(Exception):
    """What stands for a kill in these tests; tests/e2e kills for real."""


def stop_in_second_epoch(patch: pytest.MonkeyPatch, moment: str) -> None:
    real_save, real_score = checkpoints.save_checkpoint, loop.score_epoch
    calls = {"save": 0, "score": 0}

    def save(*arguments: object) -> None:
        calls["save"] += 1
        if moment == "before the checkpoint" and calls["save"] == 2:
            raise StopError
        real_save(*arguments)
        if moment == "after the checkpoint" and calls["save"] == 2:
            raise StopError

    def score(*arguments: object) -> object:
        calls["score"] += 1
        result = real_score(*arguments)
        if moment == "after the best" and calls["score"] == 2:
            raise StopError
        return result

    patch.setattr(checkpoints, "save_checkpoint", save)
    patch.setattr(loop, "score_epoch", score)


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...], moment: str) -> None:
    changes = ("epochs=3", *changes)
    whole = train_fold(job_of(tmp_path / "whole", *changes))
    with monkeypatch.context() as patch:
        stop_in_second_epoch(patch, moment)
        with pytest.raises(StopError):
            train_fold(job_of(tmp_path / "cut", *changes))
    assert not (tmp_path / "cut" / cards.CARD).exists()
    trained: list[int] = []
    real = loop.train_epoch
    monkeypatch.setattr(
        loop, "train_epoch", lambda *arguments: (trained.append(arguments[2].epoch), real(*arguments))[1]
    )
    cut = train_fold(job_of(tmp_path / "cut", *changes))
    # It goes on from its last checkpoint: from the second epoch on, or from the third where that was written.
    assert trained == ([2] if moment == "after the checkpoint" else [1, 2])
    assert cut.sha256 == whole.sha256
    assert cut.scores == whole.scores
    strip = [{k: v for k, v in e.items() if k not in ("seconds", "photos_per_second")} for e in (
        *json.loads((tmp_path / "cut" / cards.HISTORY).read_text()),
        *json.loads((tmp_path / "whole" / cards.HISTORY).read_text()),
    )]  # fmt: skip
    assert strip[:3] == strip[3:]


@pytest.mark.parametrize("moment", ["before the checkpoint", "after the best", "after the checkpoint"])
def test_a_stopped_training_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    check(tmp_path, monkeypatch, ("drop_rate=0.3", "mixup=0.4", "ema=0.9"), moment)


@pytest.mark.parametrize("changes", TECHNIQUES, ids=" ".join)
def test_every_technique_survives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]
) -> None:
    check(tmp_path, monkeypatch, changes, "after the checkpoint")

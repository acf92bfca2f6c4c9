"""What an interrupted training goes on from: damage of any kind is reported, and the way out ends with the same bits."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.artifacts import cards
from orchestrator.artifacts.cards import MemberCard
from orchestrator.core.epochs import MemberScores
from orchestrator.core.errors import DamagedError
from orchestrator.training import checkpoints, loop
from orchestrator.training.loop import train_fold
from tests.training.test_loop import job_of


class StopError(Exception):
    """What stands for a kill; tests/e2e kills for real."""


def begin(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """Trains two of three epochs, and stops."""
    real = loop.train_epoch

    def stop_in_the_third(*arguments: object) -> object:
        if arguments[2].epoch == 2:
            raise StopError
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_epoch", stop_in_the_third)
        with pytest.raises(StopError):
            train_fold(job_of(folder, "epochs=3", **more))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A training that was stopped, one of another seed, and the whole of the first."""
    root = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        begin(root / "cut" / "fold-0", patch)
        begin(root / "other" / "fold-0", patch, seed=2)
    train_fold(job_of(root / "whole" / "fold-0", "epochs=3"))
    return {name: root / name / "fold-0" for name in ("cut", "other", "whole")}


def damage(path: Path, how: str, other: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how.startswith("one bit"):
        flipped = bytearray(data)
        flipped[{"one bit of a weight": -100, "one bit of the notes": 60}[how]] ^= 4
        path.write_bytes(flipped)
    elif how == "another run's":
        shutil.copy(other, path)
    elif how == "a folder":
        path.mkdir()
    elif how == "a dangling link":
        path.symlink_to("nowhere")


DAMAGES = (
    "deleted", "truncated", "empty", "one bit of a weight", "one bit of the notes", "another run's", "a folder",
    "a dangling link",
)  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", ["checkpoint", "best"])
def test_a_damaged_checkpoint_is_named_and_the_way_out_works(
    begun: dict[str, Path], tmp_path: Path, file: str, how: str
) -> None:
    folder = tmp_path / "a b" / "fold-0"
    shutil.copytree(begun["cut"], folder)
    name = cards.CHECKPOINT if file == "checkpoint" else next(folder.glob("best-*.safetensors")).name
    others = (
        begun["other"] / cards.CHECKPOINT if file == "checkpoint" else next(begun["other"].glob("best-*.safetensors"))
    )
    damage(folder / name, how, others)
    right = MemberCard.load(begun["whole"]).sha256
    if (file, how) != ("checkpoint", "deleted"):  # without a checkpoint a fold simply starts over
        with pytest.raises(DamagedError) as caught:
            train_fold(job_of(folder, "epochs=3"))
        assert name in str(caught.value)
        (command,) = [part for part in str(caught.value).split("`") if part.startswith("mv ")]
        subprocess.run(shlex.split(command), check=True)
    assert train_fold(job_of(folder, "epochs=3")).sha256 == right
    assert not list(folder.glob("best-*.safetensors"))


def test_a_card_of_another_run_is_not_taken_for_the_members_own(begun: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "fold-0"
    shutil.copytree(begun["whole"], folder)
    with pytest.raises(DamagedError, match="the card of a member of another run or fold"):
        train_fold(job_of(folder, "epochs=3", seed=2))
    assert train_fold(job_of(folder, "epochs=3")).sha256 == MemberCard.load(folder).sha256


def test_a_kill_between_the_best_and_its_checkpoint_keeps_the_best_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint speaks of the best epoch by its number, so a newer best file is not taken for it."""
    folder, real = tmp_path / "fold-0", checkpoints.save_checkpoint
    saved: list[int] = []

    def stop_at_the_second(path: Path, identity: str, *arguments: object) -> None:
        saved.append(1)
        if len(saved) == 2:
            raise StopError
        real(path, identity, *arguments)

    scores = iter([0.5, 0.9, 0.4, 0.4])  # as on a GPU, where the second epoch trained again need not be the best
    monkeypatch.setattr(loop, "scores_of", lambda *_: (MemberScores(next(scores), 0.5, 0.7), np.eye(3, dtype=int)))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", stop_at_the_second)
        with pytest.raises(StopError):
            train_fold(job_of(folder, "epochs=3"))
    assert {path.name for path in folder.glob("best-*")} == {"best-1.safetensors", "best-2.safetensors"}
    scores = iter([0.4, 0.4, 0.4])
    card = train_fold(job_of(folder, "epochs=3"))
    assert card.best_epoch == 1


def test_tensors_come_back_with_their_digest(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.zeros(0), "c": torch.tensor(3.5, dtype=torch.bfloat16)}
    checkpoints.save_best(tmp_path / "best-1.safetensors", "me", tensors)
    loaded, held_out = checkpoints.load_best(tmp_path / "best-1.safetensors", "me", tmp_path / cards.CHECKPOINT)
    assert held_out is None
    assert all(torch.equal(loaded[key], value) for key, value in tensors.items())
    with pytest.raises(DamagedError, match="of another run or fold"):
        checkpoints.load_best(tmp_path / "best-1.safetensors", "you", tmp_path / cards.CHECKPOINT)

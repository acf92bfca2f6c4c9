"""A disk that is really full: a small file system of our own, filled by training."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Done, tiny


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of some kilobytes; needs the right to mount, which CI's root has."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes: int) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system is not allowed here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_store_that_cannot_fit_is_refused_first(
    small_disk: Callable[[int], Path], people: Path, orch: Callable[..., Done]
) -> None:
    disk = small_disk(2000)
    words = ["--data", people / "train", "-w", disk / "runs", "--folds", 3, "--jobs", 1]
    done = orch("train-all", *words, *tiny("height=64", "width=64"))
    assert done.code == 2
    assert "the pixel store of 168 photos needs" in done.err
    assert "--no-store" in done.err


def test_training_on_a_disk_that_fills_up_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Callable[[int], Path], people: Path, orch: Callable[..., Done]
) -> None:
    disk = small_disk(5000)  # a member's checkpoint and weights take 1.5 to 3 MB, nine members more than there is
    words = ["--data", people / "train", "-w", disk / "runs", "--folds", 3, "--jobs", 1, "--no-store"]
    done = orch("train-all", *words, *tiny())
    assert done.code == 1
    assert "the disk is full; the file was not written and nothing was damaged" in done.err
    assert "Traceback" not in done.err
    complete = sorted(path.parent for path in disk.rglob("member.json"))
    assert complete
    kept = {path: (path / "weights.safetensors").read_bytes() for path in complete}
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    done = orch("train-all", *words, *tiny())
    assert done.code == 0, done.err
    assert len(list(disk.rglob("member.json"))) == 9
    assert all((path / "weights.safetensors").read_bytes() == data for path, data in kept.items())
    assert orch("ensemble", "-w", disk / "runs").code == 0

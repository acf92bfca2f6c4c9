"""A run is completed from its record alone, or an error says why it cannot be."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.artifacts.workspace import Workspace
from tests.conftest import Done, edit_sealed, hashes, tiny

Orch = Callable[..., Done]


def test_resuming_needs_no_photos_where_nothing_is_missing(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    here = tmp_path / "people"
    shutil.copytree(people, here)
    words = ("train", "mask", "--data", here / "train", "-w", tmp_path / "own", "--folds", 2, "--jobs", 1, *tiny())
    assert orch(*words).code == 0
    here.rename(tmp_path / "moved")
    assert (
        "is complete, and every file of it is as it was written"
        in orch("resume", "mask-0001", "-w", tmp_path / "own").err
    )
    shutil.rmtree(tmp_path / "own/mask-0001/fold-1")
    done = orch("resume", "mask-0001", "-w", tmp_path / "own")
    assert done.code == 2
    assert "Give their new path: `orch resume mask-0001 --data DIR" in done.err
    done = orch("resume", "mask-0001", "--data", tmp_path / "moved/train", "--jobs", 1, "-w", tmp_path / "own")
    assert done.code == 0, done.err
    assert "mask-0001 goes on: fold 1 from the start." in done.err
    assert (tmp_path / "own/mask-0001/fold-1/member.json").is_file()


def test_a_run_is_resumed_though_its_weights_and_extra_photos_have_moved(
    orch: Orch, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from safetensors.torch import save_model

    monkeypatch.chdir(tmp_path)
    save_model(timm.create_model("test_efficientnet", num_classes=3), "init.safetensors")
    others = tmp_path / "others"
    shutil.copytree(people / "eval", others)
    names = [*sorted(path.name for path in (others / "images").iterdir())]
    (others / "extra.csv").write_text(
        "path,person,mask\n" + "".join(f"images/{name},x{number},wear\n" for number, name in enumerate(names))
    )
    words = ("train", "mask", "--data", people / "train", "-w", "own", "--folds", 2, "--jobs", 1)
    started = orch(*words, "--extra", "others/extra.csv", *tiny("weights=init.safetensors", "epochs=1"))
    assert started.code == 0, started.err
    weights = hashes(tmp_path / "own/mask-0001/fold-1")["weights.safetensors"]
    shutil.rmtree("own/mask-0001/fold-1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # a relative path on record would be another file here
    assert Path(json.loads((tmp_path / "own/mask-0001/run.json").read_text())["recipe"]["weights"]).is_absolute()
    others.rename(tmp_path / "moved")
    (tmp_path / "init.safetensors").rename(tmp_path / "gone.safetensors")
    resume = ("resume", "mask-0001", "--jobs", 1, "-w", tmp_path / "own")
    done = orch(*resume)
    assert done.code == 2
    assert f"`orch resume mask-0001 --extra TABLE --workspace {tmp_path / 'own'}`" in done.err
    (restore,) = re.findall(r"`(cp [^`]+)`", done.err)
    subprocess.run(shlex.split(restore), check=True)
    done = orch(*resume, "--extra", tmp_path / "moved/extra.csv")
    assert done.code == 0, done.err
    assert hashes(tmp_path / "own/mask-0001/fold-1")["weights.safetensors"] == weights


def test_what_has_changed_since_a_run_began_is_told_with_a_training_that_works(
    orch: Orch, people: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "own place"
    words = ("train", "mask", "--data", people / "train", "-w", workspace, "--folds", 2, "--plan-seed", 3, "--seed", 4)
    assert orch(*words, "--jobs", 1, *tiny("epochs=1")).code == 0
    shutil.rmtree(workspace / "mask-0001/fold-1")
    weights = json.loads((workspace / "mask-0001/run.json").read_text())["initial_weights"]
    edit_sealed(workspace / "mask-0001/run.json", initial_weights={**weights, "sha256": "0" * 64}, status="unfinished")
    done = orch("resume", "mask-0001", "--jobs", 1, "-w", workspace)
    assert done.code == 2
    assert "the initial weights changed since the run was started" in done.err
    (anew,) = re.findall(r"`(orch train [^`]+)`", done.err)
    done = orch(*shlex.split(anew)[1:], "--jobs", 1)
    assert done.code == 0, done.err
    old, new = (json.loads((workspace / f"mask-000{number}/run.json").read_text()) for number in (1, 2))
    assert (old["recipe"], old["seed"], old["plan"]) == (new["recipe"], new["seed"], new["plan"])


def test_a_run_that_was_killed_before_it_became_current_becomes_it_by_resume(orch: Orch, workspace: Path) -> None:
    (workspace / "current" / "age.json").unlink()
    edit_sealed(workspace / "age-0001" / "run.json", make_current="auto", was_offered=False)
    assert orch("resume", "age-0001", "-w", workspace).code == 0
    assert Workspace(workspace).current("age") == "age-0001"
    assert orch("ensemble", "-w", workspace).code == 0

"""What a run was trained on is on record: machine, versions, revision."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from orchestrator.artifacts.environment import environment_of, git_revision, hardware
from tests.conftest import ROOT


def test_the_gpu_on_record_is_the_one_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {torch.device(device)}")
    assert hardware("cuda:1").gpu == "name of cuda:1"
    assert hardware("cpu").gpu is None


def test_a_run_is_recorded_with_machine_and_revision(workspace: Path) -> None:
    record = json.loads((workspace / "age-0001" / "run.json").read_text())["environment"]
    assert record["hardware"]["cores"] >= 1
    assert record["hardware"]["processor"]
    assert record["versions"]["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert set(record["versions"]) >= {"python", "torch", "timm", "albumentations", "numpy"}


def test_the_revision_on_record_is_of_the_code_and_not_of_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = environment_of("cpu")
    assert environment.git_of_orchestrator == git_revision(ROOT)
    assert environment.git is None


def test_the_revision_is_git_s_and_changes_show(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        return subprocess.run(
            ["git", *who, "-C", tmp_path, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert git_revision(tmp_path) is None
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert git_revision(tmp_path) == git("rev-parse", "HEAD") + "+changes"

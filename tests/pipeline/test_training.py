"""What is trained, kept, found again and begun not at all."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.artifacts.run import RunRecord
from orchestrator.artifacts.workspace import Workspace
from orchestrator.core.events import Listener
from orchestrator.execution.executor import JobResult
from orchestrator.execution.local import LocalExecutor
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import train_all
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.job import MemberJob
from tests.conftest import TINY, Done, Silent, edit_sealed, hashes, tiny, train

Orch = Callable[..., Done]


def test_what_a_newer_version_calls_current_stops_a_training_before_it_begins(
    orch: Orch, people: Path, workspace: Path
) -> None:
    path = workspace / "current/age.json"
    edit_sealed(path, format=99)
    before = path.read_bytes()
    words = ("--data", people / "train", "-w", workspace, "--jobs", 1)
    for command in (("train-all", *words, "--folds", 3, *tiny("lr=0.01")), ("train", "age", *words, "--seed", 3),
                    ("runs", "use", "age-0001", "-w", workspace)):  # fmt: skip
        done = orch(*command)
        assert (done.code, "by a newer version" in done.err) == (2, True), done.err
    assert path.read_bytes() == before
    assert [run.id for run in Workspace(workspace).runs("age")] == ["age-0001"]


def test_train_all_again_keeps_what_is_complete(orch: Orch, people: Path, workspace: Path) -> None:
    before = hashes(workspace)
    done = train(orch, people, workspace, "train-all", *tiny())
    assert done.code == 0, done.err
    assert done.err.count("is complete already") == 3
    assert hashes(workspace) == before


def test_changed_data_recipe_or_plan_is_a_new_run(orch: Orch, people: Path, workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    photo = next((copy / "train" / "images").rglob("normal.*"))
    Image.open(photo).rotate(180).save(photo)
    assert train(orch, copy, workspace, "train-all", *tiny(), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny("epochs=1"), "--tasks", "mask").code == 0
    assert train(orch, people, workspace, "train-all", *tiny(), "--tasks", "mask", "--plan-seed", 4).code == 0
    keys = [RunRecord.load(path.parent).key for path in sorted(workspace.glob("mask-*/run.json"))]
    assert len(keys) == len(set(keys)) == 4
    done = orch("ensemble", "-w", workspace)
    assert done.code == 2
    assert "the runs follow different fold plans" in done.err
    assert "--no-score" in done.err
    done = orch("ensemble", "-w", workspace, "--members", "mask=mask-0002")
    assert done.code == 0, done.err  # the changed photo is answered by the members that held its person out
    assert "answering for photos that joined the data later, or were given another name (1 photo)" in done.err
    record = json.loads((workspace / "soft-0001/ensemble.json").read_bytes())
    assert record["evaluation"]["label"]["photos"] == 168
    assert "later_people" not in record
    done = orch("ensemble", "-w", workspace, "--no-score", "--json")
    assert json.loads(done.out)["evaluation"] is None


def test_a_kill_before_the_last_step_is_made_up_for(orch: Orch, people: Path, workspace: Path) -> None:
    assert train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1")).code == 0
    edit_sealed(workspace / "age-0002" / "run.json", make_current="auto", was_offered=False)
    Workspace(workspace).set_current("age", "age-0001")
    (workspace / "age-0002" / "fold-0" / "checkpoint.safetensors").write_bytes(b"left behind")
    done = train(orch, people, workspace, "train", "age", "--seed", 1, *tiny("epochs=1"))
    assert "age-0002 is now the current age run (was age-0001); `orch runs use age-0001" in done.err
    assert not (workspace / "age-0003").exists()


def test_nothing_is_begun_when_an_input_is_wrong(orch: Orch, people: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = train(orch, people, runs, "train-all", *tiny("weights=nope.pth"))
    assert done.code == 2
    assert not runs.exists()
    copy = tmp_path / "people"
    shutil.copytree(people, copy)
    photo = next((copy / "train" / "images").rglob("mask3.jpg"))
    photo.write_bytes(photo.read_bytes()[:300])  # its header is whole: only decoding finds it
    done = train(orch, copy, runs, "train-all", *tiny())
    assert done.code == 2
    assert "1 of 168 photos cannot be read" in done.err
    assert not list(runs.glob("*-0001"))


def test_going_on_under_other_versions_is_told(orch: Orch, people: Path, workspace: Path) -> None:
    path = workspace / "age-0001" / "run.json"
    environment = json.loads(path.read_text())["environment"]
    environment["versions"]["torch"] = "1.0"
    edit_sealed(path, environment=environment, status="unfinished", make_current="auto", was_offered=False)
    done = train(orch, people, workspace, "train-all", *tiny())
    assert done.code == 0, done.err
    assert "note: age-0001 was started with other versions (torch 1.0 -> " in done.err


@pytest.mark.slow
def test_workers_of_several_jobs_train_the_same_bits(orch: Callable[..., Done], people: Path, tmp_path: Path) -> None:
    weights = []
    for workers in (2, 0):
        words = tiny("epochs=1", f"workers={workers}")
        folder = tmp_path / str(workers)
        done = orch(
            "train-all", "--data", people / "train", "-w", folder, "--folds", 2, "--tasks", "mask", "--jobs", 2, *words
        )
        assert done.code == 0, done.err
        weights.append([hashes(folder / "mask-0001")[f"fold-{fold}/weights.safetensors"] for fold in (0, 1)])
    assert weights[0] == weights[1]


class Lazy(LocalExecutor):
    """An executor that trains the first member alone, and says of all that they are done."""

    def run(self, jobs: Sequence[MemberJob], at_once: int, listen: Listener) -> list[JobResult]:
        super().run(jobs[:1], at_once, listen)
        return [JobResult(*job.key) for job in jobs]


def test_a_member_that_is_not_there_in_the_end_is_a_failure(people: Path, tmp_path: Path) -> None:
    settings = Settings(
        people / "train", tmp_path / "runs", changes=(*TINY, "epochs=1"), folds=2, device="cpu", executor=Lazy(1)
    )
    report = train_all(settings, {"mask": SPECIALISTS["mask"]}, Silent())
    assert not report.complete
    assert list(report.failures) == [("mask-0001", 1)]
    assert "fold-1/member.json: missing" in report.failures["mask-0001", 1]

"""One network for all tasks, a member of the vote beside the specialists."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.combining.votes import soft_vote
from orchestrator.core.labels import CLASSES, JOINT, TASKS, marginals
from orchestrator.specialists import TRAINABLE
from tests.conftest import TINY, Done, Silent, hashes, member_files, tiny, train

Orch = Callable[..., Done]


@pytest.fixture(scope="module")
def with_joint(people: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with a joint run beside the specialists."""
    from orchestrator.pipeline.retraining import starting_point
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain

    workspace = tmp_path_factory.mktemp("joint") / "runs"
    shutil.copytree(trained, workspace)
    settings = Settings(people / "train", workspace, changes=TINY, folds=3, jobs=1, device="cpu")
    assert retrain(starting_point(settings, TRAINABLE[JOINT]), Silent()).complete
    return workspace


@pytest.fixture
def joint_workspace(with_joint: Path, tmp_path: Path) -> Path:
    shutil.copytree(with_joint, tmp_path / "runs")
    return tmp_path / "runs"


def test_a_joint_network_votes_in_every_task_beside_the_specialists(
    orch: Orch, people: Path, joint_workspace: Path, tmp_path: Path
) -> None:
    record = json.loads((joint_workspace / "joint-0001/run.json").read_text())
    assert (record["task"], record["recipe"]["sampling"]) == ("joint", "per_photo")
    done = orch("ensemble", "-w", joint_workspace, "--json")
    alone = json.loads(done.out)
    assert "joint" not in alone["members"]  # it takes part only when it is named
    assert "agree on every out-of-fold photo" in orch("ensemble", "-w", joint_workspace).out
    assert (
        "agree on every out-of-fold photo"
        not in orch("ensemble", "-w", joint_workspace, "--members", "joint=joint-0001").out
    )
    done = orch("cascade", people / "eval", "-w", joint_workspace, "--rate", 0.5)
    assert done.code == 2
    assert "a cascade asks the members of each task in turn" in done.err
    done = orch("ensemble", "-w", joint_workspace, "--members", "joint=joint-0001", "--json")
    assert done.code == 0, done.err
    both = json.loads(done.out)
    assert [member["fold"] for member in both["members"]["joint"]] == [0, 1, 2]
    assert [score["run"] for score in both["single"]["age"] if score["fold"] is None] == ["age-0001", "joint-0001"]
    # By hand: each task's vote is of the specialist and of the joint network's marginals, out of fold.
    tables = {
        name: pd.concat([pd.read_parquet(path) for path in (joint_workspace / name).glob("fold-*/held_out.parquet")])
        .sort_values("path", ignore_index=True)
        for name in ("mask-0001", "gender-0001", "age-0001", "joint-0001")
    }  # fmt: skip
    joint = marginals(tables["joint-0001"].filter(like="p(").to_numpy())
    out_of_fold = pd.read_parquet(joint_workspace / both["id"] / "out_of_fold.parquet")
    for task in TASKS:
        own = tables[f"{task}-0001"].filter(like="p(").to_numpy()
        assert (out_of_fold[f"{task}_truth"] == tables[f"{task}-0001"]["truth"]).all()
        expected = soft_vote([own, joint[task].astype(np.float32)], [1.0, 1.0])
        assert (out_of_fold[task].to_numpy() == expected.choice).all()
        assert np.allclose(out_of_fold.filter(like=f"p({task} ").to_numpy(), expected.shares, atol=1e-6)
    shown = orch("ensemble", "-w", joint_workspace, "--members", "joint=joint-0001")
    assert "joint-0001" in shown.out
    # Predictions: a photo's own answers are the mean over the specialist's and the joint network's members.
    photo = next(iter(sorted((people / "eval/images").iterdir())))
    answer = json.loads(orch("predict", photo, "-w", joint_workspace, "--json", "--engine", "torch").out)[0]
    answer_alone = json.loads(
        orch("predict", photo, "-w", joint_workspace, "--json", "--engine", "torch", "--ensemble", alone["id"]).out
    )[0]
    assert answer["asked"] == 12
    from orchestrator.data.preprocessing import decode
    from orchestrator.inference.engines import torch_runners
    from orchestrator.inference.member import load_members
    from orchestrator.inference.shared_backbone import unshared

    members = load_members(member_files(joint_workspace, "joint-0001", 0, 1, 2))
    answers = [
        runner(member.preprocess.geometry.apply(decode(photo))[None])
        for member, runner in zip(members, torch_runners([unshared(member) for member in members], "cpu"), strict=True)
    ]
    own_mean = marginals(np.mean(answers, axis=0))
    for task in TASKS:
        for code, name in enumerate(CLASSES[task]):
            mean = (answer_alone["probabilities"][task][name] + float(own_mean[task][0, code])) / 2
            assert answer["probabilities"][task][name] == pytest.approx(mean, abs=2e-5)
    refused = orch("predict", photo, "-w", joint_workspace, "--cascade")
    assert refused.code == 2
    assert "joint networks and external tables" in refused.err


def test_a_joint_run_is_compared_retrained_and_resumed_like_any_other(
    orch: Orch, people: Path, joint_workspace: Path
) -> None:
    before = hashes(joint_workspace / "joint-0001")
    done = train(orch, people, joint_workspace, "train", "joint", *tiny(), "--fold", 1, "--seed", 1)
    assert done.code == 0, done.err
    assert hashes(joint_workspace / "joint-0001") == before
    comparison = json.loads(orch("runs", "compare", "joint-0001", "joint-0002", "-w", joint_workspace, "--json").out)
    assert len(comparison["runs"][0]["classes"]) == 18
    again = train(orch, people, joint_workspace, "train", "joint", *tiny())
    assert "joint-0001 has it already" in again.err
    assert "train_border = 58 is for the age specialist" in train(
        orch, people, joint_workspace, "train", "joint", *tiny("train_border=58")
    ).err  # fmt: skip
    assert "it cuts away the rows" in train(orch, people, joint_workspace, "train", "joint", *tiny("crop=0.4")).err


def test_the_first_joint_run_names_the_ensemble_that_it_votes_in(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "joint", *tiny())
    (fuse,) = re.findall(r"next: (orch .+)", done.err)
    done = orch(*shlex.split(fuse)[1:], "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["members"]) == {*TASKS, JOINT}


def test_an_export_answers_with_a_joint_network_as_predict_does(
    orch: Orch, people: Path, joint_workspace: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `engines` is not installed")
    assert orch("ensemble", "-w", joint_workspace, "--members", "joint=joint-0001").code == 0
    done = orch("export", "-w", joint_workspace, "--out", tmp_path / "export")
    assert done.code == 0, done.err
    photo = next(iter(sorted((people / "eval/images").iterdir())))
    expected = json.loads(orch("predict", photo, "-w", joint_workspace, "--json", "--engine", "torch").out)[0]
    ran = subprocess.run(
        [sys.executable, tmp_path / "export" / "predict.py", photo], capture_output=True, text=True, check=True
    )
    answer = json.loads(ran.stdout)
    assert answer["label"] == expected["label"]
    for task in TASKS:
        for name, value in answer["probabilities"][task].items():
            assert value == pytest.approx(expected["probabilities"][task][name], abs=1e-4)


def test_a_joint_network_votes_in_the_chosen_tasks_alone(
    orch: Orch, people: Path, joint_workspace: Path, tmp_path: Path
) -> None:
    members = ("--members", "joint=joint-0001:mask,gender")
    done = orch("ensemble", "-w", joint_workspace, *members, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert {tuple(member["votes_in"]) for member in record["members"]["joint"]} == {("mask", "gender")}
    assert [entry["run"] for entry in record["single"]["age"] if entry["fold"] is None] == ["age-0001"]
    tables = {
        name: pd.concat([pd.read_parquet(path) for path in (joint_workspace / name).glob("fold-*/held_out.parquet")])
        .sort_values("path", ignore_index=True)
        for name in ("mask-0001", "gender-0001", "age-0001", "joint-0001")
    }  # fmt: skip
    joint = marginals(tables["joint-0001"].filter(like="p(").to_numpy())
    out_of_fold = pd.read_parquet(joint_workspace / record["id"] / "out_of_fold.parquet")
    for task in TASKS:
        own = tables[f"{task}-0001"].filter(like="p(").to_numpy()
        expected = own if task == "age" else (own + joint[task]) / 2
        assert np.allclose(out_of_fold.filter(like=f"p({task} ").to_numpy(), expected, atol=1e-6)
    photos = sorted((people / "eval/images").iterdir())[:2]
    done = orch("predict", *photos, "-w", joint_workspace, "--json", "--engine", "torch")
    answers = json.loads(done.out)
    alone = orch("ensemble", "-w", joint_workspace).code
    assert alone == 0
    plain = json.loads(orch("predict", *photos, "-w", joint_workspace, "--json", "--engine", "torch").out)
    for answer, of_specialists in zip(answers, plain, strict=True):
        assert answer["probabilities"]["age"] == pytest.approx(of_specialists["probabilities"]["age"], abs=1e-6)
        assert answer["probabilities"]["mask"] != pytest.approx(of_specialists["probabilities"]["mask"], abs=1e-6)
    assert orch("ensembles", "use", record["id"], "-w", joint_workspace).code == 0
    exported = orch("export", "--out", tmp_path / "files", "-w", joint_workspace)
    assert exported.code == 0, exported.err  # the program's answers are compared with these
    out = subprocess.run(
        [sys.executable, tmp_path / "files/predict.py", photos[0]], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(out)["probabilities"]["age"] == pytest.approx(answers[0]["probabilities"]["age"], abs=1e-4)
    (joint_workspace / record["id"] / "out_of_fold.parquet").unlink()
    rebuild = re.search(r"`(orch ensemble [^`]+)`", orch("workspace", "check", "-w", joint_workspace).err)
    assert rebuild
    assert "joint=joint-0001:mask,gender" in rebuild[1]


@pytest.mark.parametrize(("words", "message"), [
    ("age=age-0001:mask", "joint networks alone vote in chosen tasks: joint=RUN:TASK,TASK with tasks of mask, gender, age."),
    ("joint=joint-0001:hair", "joint networks alone vote in chosen tasks: joint=RUN:TASK,TASK with tasks of"),
    ("joint=joint-0001:mask,hair", "run 'hair' is not in"),
])  # fmt: skip
def test_tasks_are_chosen_for_joint_networks_alone(orch: Orch, joint_workspace: Path, words: str, message: str) -> None:
    done = orch("ensemble", "-w", joint_workspace, "--members", words)
    assert done.code == 2
    assert message in done.err

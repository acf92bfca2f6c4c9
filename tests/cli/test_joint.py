"""One network for all tasks, and answers from elsewhere: members of the vote beside the specialists."""

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
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from orchestrator.artifacts.ensembles import EnsembleMember, EnsembleRecord
from orchestrator.combining.answers import Answers, Voter
from orchestrator.combining.combiners import SoftVote
from orchestrator.combining.votes import soft_vote
from orchestrator.core.errors import DataError
from orchestrator.core.labels import (
    CLASS_COUNTS,
    CLASSES,
    JOINT,
    LABELS,
    TASKS,
    decompose,
    joint_probabilities,
    marginals,
)
from orchestrator.ensembling.external import ExternalTable, read_external
from orchestrator.networks.heads import ClassHead, JointHead, head_from_dict, head_of
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import TRAINABLE
from tests.conftest import TINY, Done, Silent, hashes, member_files, tiny, train

Orch = Callable[..., Done]


@pytest.fixture(scope="module")
def with_joint(people: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with a joint run beside the specialists."""
    from orchestrator.pipeline.settings import Settings
    from orchestrator.pipeline.training import retrain

    place = tmp_path_factory.mktemp("joint") / "runs"
    shutil.copytree(trained, place)
    settings = Settings(people / "train", place, changes=TINY, folds=3, jobs=1, device="cpu")
    assert retrain(settings, TRAINABLE[JOINT], Silent()).complete
    return place


@pytest.fixture
def place(with_joint: Path, tmp_path: Path) -> Path:
    shutil.copytree(with_joint, tmp_path / "runs")
    return tmp_path / "runs"


@given(arrays.arrays(np.float64, (5, 8), elements=st.floats(0, 1)))
def test_marginals_are_the_inverse_of_the_product(numbers: np.ndarray) -> None:
    by_task, start = {}, 0
    for task in TASKS:
        part = numbers[:, start : start + len(CLASSES[task])] + 0.01
        start += len(CLASSES[task])
        by_task[task] = part / part.sum(axis=1, keepdims=True)
    found = marginals(joint_probabilities(by_task))
    for task in TASKS:
        assert np.allclose(found[task], by_task[task], atol=1e-12)
    certain = np.eye(len(LABELS))
    for task, digits in decompose(np.arange(len(LABELS))).items():
        assert (marginals(certain)[task].argmax(axis=1) == digits).all()
    assert not any(part.any() for part in marginals(np.zeros((2, 18))).values())


def test_the_heads_losses_add_up_and_their_probabilities_multiply() -> None:
    head = JointHead((ClassHead(3, 0.1), ClassHead(2, 0.1), ClassHead(3, 0.1)))
    outputs, labels = torch.randn(18, 8, generator=torch.manual_seed(0)), torch.arange(18)
    weights = torch.linspace(0.5, 1.5, 18)
    digits = {task: torch.from_numpy(code) for task, code in decompose(np.arange(18)).items()}
    parts = dict(zip(TASKS, outputs.split([3, 2, 3], dim=1), strict=True))
    expected = sum(ClassHead(len(CLASSES[task]), 0.1).loss(parts[task], digits[task], weights) for task in TASKS)
    assert head.loss(outputs, labels, weights).item() == pytest.approx(float(expected), rel=1e-6)
    product = joint_probabilities({task: parts[task].softmax(dim=1).numpy() for task in TASKS})
    assert np.allclose(head.probabilities(outputs).numpy(), product, atol=1e-6)
    assert head.outputs == 8
    again = head_from_dict(head.as_dict())
    assert np.allclose(again.probabilities(outputs).numpy(), product, atol=1e-6)
    recipe = load_recipes({JOINT: TRAINABLE[JOINT]}, ["quick"], ["loss=0.4 f1 + 0.6 focal"])[JOINT]
    asked = head_of(TRAINABLE[JOINT], recipe)
    assert isinstance(asked, JointHead)
    assert [one.terms for one in asked.heads] == [(("f1", 0.4), ("focal", 0.6))] * 3


def test_a_joint_network_votes_in_every_task_beside_the_specialists(
    orch: Orch, people: Path, place: Path, tmp_path: Path
) -> None:
    record = json.loads((place / "joint-0001/run.json").read_text())
    assert (record["task"], record["recipe"]["sampling"]) == ("joint", "per_photo")
    done = orch("ensemble", "-w", place, "--json")
    alone = json.loads(done.out)
    assert "joint" not in alone["members"]  # it takes part only when it is named
    assert "agree on every out-of-fold photo" in orch("ensemble", "-w", place).out
    assert "agree on every out-of-fold photo" not in orch("ensemble", "-w", place, "--members", "joint=joint-0001").out
    done = orch("cascade", people / "eval", "-w", place, "--rate", 0.5)
    assert done.code == 2
    assert "a cascade asks the members of each task in turn" in done.err
    done = orch("ensemble", "-w", place, "--members", "joint=joint-0001", "--json")
    assert done.code == 0, done.err
    both = json.loads(done.out)
    assert [one["fold"] for one in both["members"]["joint"]] == [0, 1, 2]
    assert [one["run"] for one in both["single"]["age"] if one["fold"] is None] == ["age-0001", "joint-0001"]
    # By hand: each task's vote is of the specialist and of the joint network's marginals, out of fold.
    tables = {
        name: pd.concat([pd.read_parquet(path) for path in (place / name).glob("fold-*/held_out.parquet")])
        .sort_values("path", ignore_index=True)
        for name in ("mask-0001", "gender-0001", "age-0001", "joint-0001")
    }  # fmt: skip
    joint = marginals(tables["joint-0001"].filter(like="p(").to_numpy())
    out_of_fold = pd.read_parquet(place / both["id"] / "out_of_fold.parquet")
    for task in TASKS:
        own = tables[f"{task}-0001"].filter(like="p(").to_numpy()
        assert (out_of_fold[f"{task}_truth"] == tables[f"{task}-0001"]["truth"]).all()
        expected = soft_vote([own, joint[task].astype(np.float32)], [1.0, 1.0])
        assert (out_of_fold[task].to_numpy() == expected.choice).all()
        assert np.allclose(out_of_fold.filter(like=f"p({task} ").to_numpy(), expected.shares, atol=1e-6)
    shown = orch("ensemble", "-w", place, "--members", "joint=joint-0001")
    assert "joint-0001" in shown.out
    # Predictions: a photo's own answers are the mean over the specialist's and the joint network's members.
    photo = next(iter(sorted((people / "eval/images").iterdir())))
    answer = json.loads(orch("predict", photo, "-w", place, "--json", "--engine", "torch").out)[0]
    one = json.loads(orch("predict", photo, "-w", place, "--json", "--engine", "torch", "--ensemble", alone["id"]).out)[
        0
    ]
    assert answer["asked"] == 12
    from orchestrator.data.preprocessing import decode
    from orchestrator.inference.engines import torch_runners
    from orchestrator.inference.member import load_members
    from orchestrator.inference.shared_backbone import unshared

    members = load_members(member_files(place, "joint-0001", 0, 1, 2))
    answers = [
        runner(member.preprocess.geometry.apply(decode(photo))[None])
        for member, runner in zip(members, torch_runners([unshared(member) for member in members], "cpu"), strict=True)
    ]
    own_mean = marginals(np.mean(answers, axis=0))
    for task in TASKS:
        for code, name in enumerate(CLASSES[task]):
            mean = (one["probabilities"][task][name] + float(own_mean[task][0, code])) / 2
            assert answer["probabilities"][task][name] == pytest.approx(mean, abs=2e-5)
    refused = orch("predict", photo, "-w", place, "--cascade")
    assert refused.code == 2
    assert "joint networks and external tables" in refused.err


def test_a_joint_run_is_compared_retrained_and_resumed_like_any_other(orch: Orch, people: Path, place: Path) -> None:
    before = hashes(place / "joint-0001")
    done = train(orch, people, place, "train", "joint", *tiny(), "--fold", 1, "--seed", 1)
    assert done.code == 0, done.err
    assert hashes(place / "joint-0001") == before
    found = json.loads(orch("runs", "compare", "joint-0001", "joint-0002", "-w", place, "--json").out)
    assert len(found["runs"][0]["classes"]) == 18
    again = train(orch, people, place, "train", "joint", *tiny())
    assert "joint-0001 has it already" in again.err
    assert "train_border = 58 is for the age specialist" in train(
        orch, people, place, "train", "joint", *tiny("train_border=58")
    ).err  # fmt: skip
    assert "it cuts away the rows" in train(orch, people, place, "train", "joint", *tiny("crop=0.4")).err


def test_the_first_joint_run_names_the_ensemble_that_it_votes_in(orch: Orch, people: Path, workspace: Path) -> None:
    done = train(orch, people, workspace, "train", "joint", *tiny())
    (fuse,) = re.findall(r"next: (orch .+)", done.err)
    done = orch(*shlex.split(fuse)[1:], "--json")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["members"]) == {*TASKS, JOINT}


def test_an_export_answers_with_a_joint_network_as_predict_does(
    orch: Orch, people: Path, place: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `engines` is not installed")
    assert orch("ensemble", "-w", place, "--members", "joint=joint-0001").code == 0
    done = orch("export", "-w", place, "--out", tmp_path / "export")
    assert done.code == 0, done.err
    photo = next(iter(sorted((people / "eval/images").iterdir())))
    expected = json.loads(orch("predict", photo, "-w", place, "--json", "--engine", "torch").out)[0]
    ran = subprocess.run(
        [sys.executable, tmp_path / "export" / "predict.py", photo], capture_output=True, text=True, check=True
    )
    answer = json.loads(ran.stdout)
    assert answer["label"] == expected["label"]
    for task in TASKS:
        for name, value in answer["probabilities"][task].items():
            assert value == pytest.approx(expected["probabilities"][task][name], abs=1e-4)


# Tables from elsewhere


def submission_of(people: Path, file: Path) -> pd.DataFrame:
    info = pd.read_csv(people / "eval/info.csv", dtype=str)
    table = info.assign(ans=np.random.default_rng(0).integers(0, 18, len(info)))
    table.to_csv(file, index=False)
    return table


def test_an_old_submission_votes_with_one_runs_weight(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    old = submission_of(people, tmp_path / "old.csv")
    plain = json.loads(orch("ensemble", "-w", workspace, "--json").out)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "old.csv", "--json")
    assert done.code == 0, done.err
    assert "for prediction alone: it abstains in the score" in done.err
    assert json.loads(done.out)["evaluation"] == plain["evaluation"]
    words = ("predict", "--eval", people / "eval", "-w", workspace, "--engine", "torch", "--json")
    mine, joined = (
        json.loads(orch(*words, "--out", tmp_path / f"{name}.csv", "--ensemble", name).out)
        for name in (plain["id"], json.loads(done.out)["id"])
    )
    digits = decompose(old["ans"].to_numpy())
    # A label speaks as surely as the members do, on the average over the photos that they held out.
    sure = {}
    for task in TASKS:
        tables = [pd.read_parquet(path) for path in (workspace / f"{task}-0001").glob("fold-*/held_out.parquet")]
        sure[task] = pd.concat(tables).filter(like="p(").max(axis=1).mean()
    for row, (one, both) in enumerate(zip(mine, joined, strict=True)):
        for task in TASKS:
            for code, name in enumerate(CLASSES[task]):
                label = sure[task] if digits[task][row] == code else (1 - sure[task]) / (len(CLASSES[task]) - 1)
                there = (one["probabilities"][task][name] + label) / 2
                assert both["probabilities"][task][name] == pytest.approx(there, abs=2e-5)
    refused = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert refused.code == 2
    assert "old.csv: an export holds networks" in refused.err
    # One name, two photos, in whatever batches: the table means neither.
    same = old["ImageID"].iloc[0]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(people / "eval/images" / same, tmp_path / folder / same)
    both = orch(
        "predict",
        tmp_path / "one" / same,
        tmp_path / "two" / same,
        "-w",
        workspace,
        "--engine",
        "torch",
        "--batch",
        1,
        "--json",
    )
    single = orch(
        "predict", tmp_path / "one" / same, "-w", workspace, "--engine", "torch", "--json", "--ensemble", plain["id"]
    )
    for answer in json.loads(both.out):
        assert answer["probabilities"] == json.loads(single.out)[0]["probabilities"]
    # A photo that the table does not know is answered by the members alone.
    elsewhere = tmp_path / "unknown.jpg"
    shutil.copy(next(iter((people / "eval/images").iterdir())), elsewhere)
    one, both = (
        json.loads(orch("predict", elsewhere, "-w", workspace, "--engine", "torch", "--json", "--ensemble", name).out)
        for name in (plain["id"], json.loads(done.out)["id"])
    )
    assert [answer.pop("changed_by_external") for answer in (one[0], both[0])] == [None, False]
    assert one == both


def test_out_of_fold_probabilities_from_elsewhere_are_scored_and_leaks_refused(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    parts = [pd.read_parquet(path) for path in sorted((workspace / "age-0001").glob("fold-*/held_out.parquet"))]
    table = pd.concat(parts, ignore_index=True)
    rng = np.random.default_rng(1)
    sure = np.eye(3)[table["truth"]] * 0.9 + 0.1 * rng.dirichlet(np.ones(3), len(table))
    other = pd.DataFrame({"path": table["path"], "fold": table["fold"]} | {
        f"p(age {name})": sure[:, code] for code, name in enumerate(CLASSES["age"])
    })  # fmt: skip
    other.to_parquet(tmp_path / "other.parquet")
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "other.parquet", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "scored where it is out of fold" in done.err
    (alone,) = [one for one in found["single"]["age"] if one["run"] == "other.parquet"]
    assert alone["accuracy"] == 1.0
    assert "other.parquet" not in [one["run"] for one in found["single"]["mask"]]
    own = table.sort_values("path", ignore_index=True)
    both = [own.filter(like="p(").to_numpy(), sure[np.argsort(table["path"])].astype(np.float32)]
    shares = soft_vote(both, [1.0, 1.0]).shares
    written = pd.read_parquet(workspace / found["id"] / "out_of_fold.parquet")
    assert np.allclose(written.filter(like="p(age").to_numpy(), shares, atol=1e-6)
    other.drop(columns="fold").to_csv(tmp_path / "silent.csv", index=False)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "silent.csv")
    assert done.code == 2
    assert "no column `fold` says which fold's member answered" in done.err
    other.assign(fold=(other["fold"] + 1) % 3).to_csv(tmp_path / "seen.csv", index=False)
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "seen.csv")
    assert done.code == 2
    assert f"{len(other):,} such photos" in done.err
    done = orch("ensemble", "-w", workspace, "--with", tmp_path / "silent.csv", "--no-score")
    assert done.code == 0, done.err


@pytest.mark.parametrize("kind", ["tasks", "labels", "codes", "answers"])
def test_every_way_of_writing_answers_is_read(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(2)
    by_task = {task: rng.dirichlet(np.ones(len(CLASSES[task])), 6) for task in TASKS}
    joint = joint_probabilities(by_task)
    codes = joint.argmax(axis=1)
    columns: dict[str, object] = {"ImageID": [f"{n}.jpg" for n in range(6)]}
    if kind == "tasks":
        columns |= {
            f"share({task} {name})": by_task[task][:, c] for task in TASKS for c, name in enumerate(CLASSES[task])
        }
    elif kind == "answers":
        columns |= {"ans": codes}
        by_task = {task: np.eye(len(CLASSES[task]))[digits] for task, digits in decompose(codes).items()}
    else:
        columns |= {(f"p({name})" if kind == "labels" else str(c)): joint[:, c] for c, name in enumerate(LABELS)}
    pd.DataFrame(columns).to_csv(tmp_path / "table.csv", index=False)
    found = read_external(tmp_path / "table.csv")
    for task in TASKS:
        assert np.allclose(found.by_task[task], by_task[task], atol=1e-6)
    assert list(found.rows(["some/where/3.jpg", "0.jpg", "9.jpg"])) == [3, 0, -1]
    found.frame().to_parquet(tmp_path / "again.parquet")
    again = read_external(tmp_path / "again.parquet")
    for task in TASKS:
        assert np.allclose(again.by_task[task], found.by_task[task], atol=2e-7)
    nobody = again.answers(again.rows(["9.jpg"]))
    assert {voter.task for voter in nobody.voters} == set(TASKS)
    assert all((probabilities == 0).all() for probabilities in nobody.probabilities)


def test_all_that_is_wrong_with_a_table_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    for text, told in {
        "name,ans\na,1\n": ("one must be path or ImageID",),
        "path,ans\na.jpg,1\na.jpg,2\nb.jpg,18\nc.jpg,old\n": (
            "'a.jpg' stands in 2 rows", "line 4: ans is '18'; allowed: 0 to 17", "line 5: ans is 'old'",
        ),
        "path,p(gender male)\na.jpg,1\n": ("and not its other classes",),
        "path,p(gender male),p(gender female)\na.jpg,0.5,0.6\nb.jpg,-1,2\nc.jpg,,\n": ("line 2", "line 3"),
        "path,0,1\na.jpg,0.5,0.5\n": ("has 2 of the 18 labels' columns",),
        "path,other\na.jpg,1\n": ("has no answers: ans, or p(mask wear)",),
    }.items():  # fmt: skip
        file.write_text(text)
        with pytest.raises(DataError) as caught:
            read_external(file)
        for words in told:
            assert words in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_external(tmp_path / "gone.csv")
    file.write_text("path,ans\nc/a/x.jpg,1\nb/x.jpg,2\nc/y.jpg,\nz.jpg,3\n")
    found = read_external(file)
    # The end of a path, in either direction, and an ImageID anywhere; another person's file of the same name is another photo.
    assert list(found.rows(["a/x.jpg", "/data/b/x.jpg", "/data/z.jpg"])) == [0, 1, 3]
    assert list(found.rows(["c/a/x.jpg"])) == [0]
    assert list(found.rows(["z/x.jpg", "z/y.jpg", "x.jpg", "ac/y.jpg"])) == [-1, -1, -1, -1]
    assert list(found.rows(["one/z.jpg", "two/z.jpg", "b/x.jpg"])) == [
        -1,
        -1,
        1,
    ]  # one name, two photos: neither is meant
    assert list(found.rows(["one/z.jpg", "one/z.jpg"])) == [3, 3]
    assert not any(array.any() for array in found.answers(found.rows(["c/y.jpg"])).probabilities)


@given(st.integers(1, 4), st.integers(1, 3))
def test_a_table_weighs_as_much_as_a_run_whatever_its_folds(folds: int, photos: int) -> None:
    rng = np.random.default_rng(folds)
    task, classes = "age", CLASS_COUNTS["age"]
    members = [EnsembleMember(task, run, fold, "", "", "") for run in ("age-0001", "age-0002") for fold in range(folds)]
    record = EnsembleRecord(Path(), "soft-0001", {"name": "soft"}, "", tuple(members))
    own = rng.dirichlet(np.ones(classes), photos)
    labels = ExternalTable("old.csv", tuple(map(str, range(photos))), {task: np.eye(classes)[np.zeros(photos, int)]})
    voters = tuple(Voter(task, one.run, one.fold) for one in members)
    answers = Answers(CLASS_COUNTS, photos, voters, (own,) * len(voters))
    weights = {task: record.members_a_run(task)}
    both = SoftVote().decide(answers.with_voters(labels.answers(np.arange(photos), weights)).of(task))
    assert np.allclose(both.shares, (2 * own + labels.by_task[task]) / 3, atol=1e-5)  # two runs and a table


@given(st.integers(2, 18), st.floats(0.4, 0.99), st.floats(0.5, 1))
def test_a_label_is_outvoted_by_members_who_are_surer(classes: int, sure: float, mine: float) -> None:
    task = next(task for task in TASKS if len(CLASSES[task]) == min(3, classes))
    own = len(CLASSES[task])
    labels = np.eye(own, dtype=np.float32)[[0, 1]]
    table = ExternalTable("old.csv", ("a", "b", "c"), {task: np.concatenate([labels, np.zeros((1, own), np.float32)])})
    soft = table.softened({task: max(sure, 1 / own + 0.01)}).by_task[task]
    assert soft[:2].sum(axis=1) == pytest.approx(1)
    assert not soft[2].any()  # what abstains goes on abstaining
    assert (soft[:2].argmax(axis=1) == [0, 1]).all()
    member = np.full(own, (1 - mine) / (own - 1))
    member[1] = mine
    if mine > soft[0, 0] + 1e-3:
        assert (soft[0] + member).argmax() == 1
    given_probabilities = ExternalTable("p.csv", ("a",), {task: np.full((1, own), 1 / own, np.float32)})
    assert (given_probabilities.softened({task: 0.9}).by_task[task] == np.float32(1 / own)).all()

"""Scores on people whom no member has seen, and whom else they are refused for."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from orchestrator import api
from orchestrator.artifacts.held_out import held_out_of
from orchestrator.artifacts.workspace import Workspace
from orchestrator.combining.combiners import Combiner
from orchestrator.core.errors import LeakError
from orchestrator.core.labels import LABELS, TASKS, compose
from orchestrator.data.readers import read
from orchestrator.ensembling.out_of_fold import join
from orchestrator.inference.cascade import EXACT
from orchestrator.specialists import SPECIALISTS
from orchestrator.synthetic.people import write_people
from tests.conftest import Done

Orch = Callable[..., Done]


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 12 people who are in nobody's training, with names of their own; read only."""
    root = tmp_path_factory.mktemp("strangers")
    write_people(root / "drawn", 12, 0, seed=77)
    photos = read(root / "drawn/train")
    table = photos.table.assign(path=[str(path) for path in photos.paths], person="stranger " + photos.table["person"])
    table.assign(team=[f"team {number % 2}" for number in range(len(table))]).to_csv(
        root / "strangers.csv", index=False
    )
    return root / "strangers.csv"


@pytest.fixture(scope="session")
def fused(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace with a soft and a hard ensemble, the soft one current; read only."""
    workspace = Path(shutil.copytree(trained, tmp_path_factory.mktemp("fused") / "runs"))
    for strategy in ("hard", "soft"):
        api.ensemble(workspace=workspace, strategy=strategy)
    return workspace


@pytest.mark.parametrize("strategy", [None, "hard"])
def test_scores_are_scikit_learns_of_what_predict_answers(fused: Path, strangers: Path, strategy: str | None) -> None:
    result = api.evaluate(strangers, workspace=fused, strategy=strategy, engine="torch", device="cpu")
    photos = read(strangers)
    answered = api.predict(photos.paths, workspace=fused, strategy=strategy, engine="torch", device="cpu").answers.label
    truth = compose(*(SPECIALISTS[task].label(photos.table) for task in TASKS))
    label = result.evaluation["label"]
    assert label.scores.accuracy == pytest.approx(accuracy_score(truth, answered))
    expected = f1_score(truth, answered, labels=range(len(LABELS)), average="macro", zero_division=0)
    assert label.scores.macro_f1 == pytest.approx(expected)
    assert (label.people, int(label.scores.counts.sum())) == (12, 84)
    assert label.intervals["macro_f1"].low <= label.scores.macro_f1 <= label.intervals["macro_f1"].high
    assert {scores.kind for scores in result.recorded().values()} == {"held-out"}
    assert (result.seen_people, result.seen_photos) == (0, 0)
    whole = [part for part in result.slices if part.task == "age" and tuple(part.by) == ("mask",)]
    assert sum(part.photos for part in whole) == 84
    right = sum(part.photos * part.accuracy for part in whole) / 84
    assert right == pytest.approx(result.evaluation["age"].scores.accuracy)


def test_a_persons_photos_answer_together(
    orch: Orch, trained: Path, people: Path, strangers: Path, tmp_path: Path
) -> None:
    """Never two ages or genders for one person, and the scores are of these answers."""
    workspace = Path(shutil.copytree(trained, tmp_path / "runs"))
    done = orch("ensemble", "--pool-people", "--decide", "macro-f1", "-w", workspace, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert (record["id"], record["pool_people"]) == ("soft-0001", True)
    out_of_fold = pd.read_parquet(workspace / "soft-0001" / "out_of_fold.parquet")
    assert (out_of_fold.groupby("person")[["age", "gender"]].nunique() == 1).all().all()
    result = api.evaluate(strangers, workspace=workspace, engine="torch", device="cpu")
    photos = read(strangers)
    names = dict(zip(map(str, photos.paths), photos.table["person"], strict=True))
    predicted = api.predict(photos.paths, workspace=workspace, people=names, engine="torch", device="cpu").answers
    table = pd.DataFrame(
        {"person": list(names.values()), "age": predicted.label % 3, "gender": predicted.label // 3 % 2}
    )
    assert (table.groupby("person")[["age", "gender"]].nunique() == 1).all().all()
    truth = compose(*(SPECIALISTS[task].label(photos.table) for task in TASKS))
    assert result.evaluation["label"].scores.accuracy == pytest.approx(accuracy_score(truth, predicted.label))
    alone = api.predict(photos.paths, workspace=workspace, engine="torch", device="cpu").answers
    assert (alone.label // 6 == predicted.label // 6).all()  # the mask is a photo's own
    some = {path: name for path, name in names.items() if name != photos.table["person"][0]}
    partly = api.predict(photos.paths, workspace=workspace, people=some, engine="torch", device="cpu", batch=5).answers
    known = np.array([path in some for path in names])
    assert (partly.label[known] == predicted.label[known]).all()
    assert (partly.label[~known] == alone.label[~known]).all()
    assert partly.agreement[~known] == pytest.approx(alone.agreement[~known])
    assert record["alone"]["label"] == pytest.approx(
        f1_score(*_alone(workspace, record), labels=range(18), average="macro", zero_division=0)
    )
    shown = orch("ensemble", "--pool-people", "-w", workspace)
    assert "Each photo alone: 18-way macro F1" in " ".join(shown.out.split())
    assert "--pool-people folder" in shown.err.splitlines()[-1]
    assert orch("ensembles", "use", "soft-0001", "-w", workspace).code == 0
    folders = orch(
        "predict", people / "train/images", "-w", workspace, "--pool-people", "folder", "--json", "--engine", "torch"
    )
    assert folders.code == 0, folders.err
    assert "photos of one person answer together: 24 people on 168 photos" in folders.err
    by_folder = pd.DataFrame(json.loads(folders.out)).assign(folder=lambda rows: rows["path"].str.rpartition("/")[0])
    assert (by_folder.groupby("folder")[["age", "gender"]].nunique() == 1).all().all()


def _alone(workspace: Path, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The truth, and what each fold's combiner answers for each photo alone."""
    space = Workspace(workspace)
    joined = join({f"{task}-0001": held_out_of(space, space.run(f"{task}-0001")) for task in TASKS})
    label = np.zeros(len(joined.photos), np.int64)
    for fold, value in record["combiners_by_fold"].items():
        rows = np.flatnonzero(joined.photos["fold"] == int(fold))
        label[rows] = Combiner.from_dict(value).combine(joined.answers.take(rows)).label
    return joined.label, label


def test_people_in_python_are_one_for_each_photo_and_known(
    orch: Orch, people: Path, trained: Path, fused: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(trained, tmp_path / "runs"))
    assert orch("ensemble", "--pool-people", "-w", workspace).code == 0
    images = sorted((people / "eval/images").iterdir())[:4]
    with api.load_predictor(workspace=workspace, device="cpu") as predictor:
        alone = predictor.answers(images)
        assert list(predictor.answers(images, people=["", None, "", None])) == list(alone)  # nobody is known
        for wrong, message in ((["a"], "got 1 people for 4 photos"), ("abcd", "people")):
            with pytest.raises(api.OrchestratorError, match=message):
                predictor.answers(images, people=wrong)
        with pytest.raises(api.OrchestratorError, match="leave the cascade out"):
            predictor.answers(images, people=["a"] * 4, cascade=EXACT)
        nothing = predictor.answers([b"x"], people=["a"], on_error="mark")
        assert (nothing.label.tolist(), list(nothing.errors)) == ([-1], [0])
    with (
        api.load_predictor(workspace=fused, device="cpu") as predictor,
        pytest.raises(api.OrchestratorError, match="has not learned how a person's photos answer together"),
    ):
        predictor.answers(images, people=["a"] * 4)
    with pytest.raises(api.OrchestratorError, match="none of the 4 photos is among the 1 in it"):
        api.predict(images, workspace=workspace, people={"elsewhere.jpg": "a"}, device="cpu")
    whole = orch("export", "--out", tmp_path / "out", "-w", workspace)
    assert whole.code == 0, whole.err
    assert "the exported program answers each photo alone" in whole.err
    assert json.loads((tmp_path / "out/card.json").read_text())["combiner"]["people"] is None


def test_people_that_an_ensemble_cannot_use_are_refused_with_the_way_out(
    orch: Orch, people: Path, fused: Path, tmp_path: Path
) -> None:
    images = people / "eval/images"
    done = orch("predict", images, "-w", fused, "--pool-people", "folder")
    assert done.code == 2
    fault = "soft-0001 (soft vote) has not learned how a person's photos answer together"
    assert f"{fault}: `orch ensemble --strategy soft --pool-people" in " ".join(done.err.split())
    done = orch("predict", images, "-w", fused, "--pool-people", "person")
    assert "--pool-people person; allowed: folder, or with --eval a column of info.csv" in done.err
    evaluation = ("predict", "--eval", people / "eval", "--out", tmp_path / "s.csv", "-w", fused)
    done = orch(*evaluation, "--pool-people", "person")
    assert "says who is on the photos; it has ImageID, ans" in " ".join(done.err.split())
    assert orch(*evaluation, "--pool-people", "folder").code == 2
    done = orch("predict", images, "-w", fused, "--pool-people", "folder", "--cascade")
    assert "--pool-people needs all members' answers" in done.err


def test_people_of_the_training_are_refused_and_left_out_on_request(
    orch: Orch, people: Path, fused: Path, strangers: Path, tmp_path: Path
) -> None:
    ours, others = read(people / "train"), pd.read_csv(strangers, dtype=str)
    known = ours.table.assign(path=[str(path) for path in ours.paths]).astype(str)
    renamed = known[known["person"] == known["person"].iloc[0]].assign(person="somebody new")  # a photo tells
    same_name = others[others["person"] == others["person"].iloc[0]].assign(person=known["person"].iloc[-1])
    rest = others[others["person"] != others["person"].iloc[0]]
    mixed = tmp_path / "mixed.csv"
    pd.concat([renamed, same_name, rest]).to_csv(mixed, index=False)
    with pytest.raises(LeakError) as error:
        api.evaluate(mixed, workspace=fused)
    problems = [str(problem) for problem in error.value.problems]
    assert len(problems) == 2
    assert "somebody new: 7 photos of this person were trained on." in problems
    assert f"{known['person'].iloc[-1]}: a person of this name was trained on." in problems
    done = orch("evaluate", "--data", mixed, "-w", fused)
    assert done.code == 2
    (again,) = re.findall(r"`(orch evaluate [^`]+)`", done.err)
    done = orch(*shlex.split(again)[1:], "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["left_out"] == {"people": 2, "photos": 14}
    alone = tmp_path / "rest.csv"
    rest.to_csv(alone, index=False)
    assert (
        result["evaluation"] == json.loads(orch("evaluate", "--data", alone, "-w", fused, "--json").out)["evaluation"]
    )
    done = orch("evaluate", "--data", mixed, "-w", fused, "--distinct-people", "--allow-seen", "--json")
    assert json.loads(done.out)["left_out"] == {"people": 1, "photos": 7}  # the name says nothing, the photos do
    done = orch("evaluate", "--data", people / "train", "-w", fused, "--allow-seen")
    assert done.code == 2
    assert "all 24 people are people of the training of soft-0001: nobody is left to score." in done.err


def test_a_table_of_some_labels_is_scored_in_these(orch: Orch, fused: Path, strangers: Path, tmp_path: Path) -> None:
    whole = pd.read_csv(strangers, dtype=str)
    part = tmp_path / "masks.csv"
    whole[["path", "person", "mask"]].to_csv(part, index=False)
    done = orch("evaluate", "--data", part, "-w", fused, "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)["evaluation"]
    assert list(scores) == ["mask"]
    assert (
        scores["mask"]
        == json.loads(orch("evaluate", "--data", strangers, "-w", fused, "--json").out)["evaluation"]["mask"]
    )
    shown = orch("evaluate", "--data", part, "-w", fused)
    assert "no column age, gender: only mask can be scored, and no 18-way label." in shown.err
    assert " mask " in shown.out
    assert "18-way" not in shown.out
    done = orch("evaluate", "--data", part, "-w", fused, "--picture", tmp_path / "scores.png")
    assert done.code == 2
    assert "has no column age, gender: --picture draws the scores of all tasks." in done.err
    whole[["path", "person"]].to_csv(part, index=False)
    assert orch("evaluate", "--data", part, "-w", fused).code == 2


def test_what_is_shown_stands_beside_the_out_of_fold_scores(
    orch: Orch, fused: Path, strangers: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "scores.png"
    done = orch("evaluate", "--data", strangers, "-w", fused, "--picture", picture, "--by", "team")
    assert done.code == 0, done.err
    record = json.loads((fused / "soft-0001/ensemble.json").read_text())
    row = next(line for line in done.out.splitlines() if line.strip().startswith("age "))
    assert f"{record['evaluation']['age']['macro_f1']:.4f}" in row
    assert "soft-0001 on 84 photos of 12 people whom no member has seen" in done.out
    for team in ("team=team 0", "team=team 1"):
        assert len([line for line in done.out.splitlines() if line.strip().startswith(team)]) == 3
    assert picture.stat().st_size > 10_000
    shown = json.loads(orch("evaluate", "--data", strangers, "-w", fused, "--json").out)
    assert shown["out_of_fold"]["label"]["macro_f1"] == record["evaluation"]["label"]["macro_f1"]


def test_runs_without_a_plan_know_people_by_name_too(orch: Orch, people: Path, strangers: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "runs"
    settings = api.Settings(people / "train", workspace, recipes=["quick"], folds=0, jobs=1, device="cpu", changes=[
        "backbone=test_efficientnet", "weights=none", "height=32", "width=32", "epochs=1", "batch_size=16", "frozen_stages=0",
    ])  # fmt: skip
    assert api.train_all(settings).complete
    api.ensemble(workspace=workspace)
    done = orch("evaluate", "--data", strangers, "-w", workspace)
    assert done.code == 0, done.err
    table, known = pd.read_csv(strangers, dtype=str), pd.read_csv(people / "train/train.csv", dtype=str)["id"][0]
    renamed = strangers.with_name("known.csv")
    table.assign(person=table["person"].where(table["person"] != table["person"][0], known)).to_csv(
        renamed, index=False
    )
    done = orch("evaluate", "--data", renamed, "-w", workspace)
    assert done.code == 2
    assert known in done.err
    assert orch("evaluate", "--data", people / "train", "-w", workspace).code == 2

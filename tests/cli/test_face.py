"""Crops around faces: the same in training, scoring and prediction, with the photos that have none counted and listed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.core.commands import orch as orch_command
from orchestrator.data.preprocessing import Geometry, decode
from orchestrator.data.store import build_stores
from orchestrator.inference.engines import torch_runners
from orchestrator.inference.member import load_members
from orchestrator.inference.predictor import start_predictor
from orchestrator.inference.shared_backbone import unshared
from orchestrator.pipeline.settings import Settings
from orchestrator.pipeline.training import train_all
from orchestrator.specialists import SPECIALISTS
from tests.conftest import SOFT, TINY, Done, edit_sealed, hashes, listening, member_files, tiny, train

Orch = Callable[..., Done]
FACE = ("face=0.3", "crop=0.8", "anchor=1")


@pytest.fixture(scope="module")
def trained_around(people: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose current age run crops around faces; read only."""
    workspace = tmp_path_factory.mktemp("around") / "runs"
    shutil.copytree(trained, workspace)
    settings = Settings(people / "train", workspace, changes=(*TINY, *FACE), folds=3, jobs=1, device="cpu")
    with listening() as messages:
        assert train_all(settings, {"age": SPECIALISTS["age"]}).complete
    (faces,) = [line for line in messages if line.startswith("faces: ")]
    lists = orch_command("data", "faces", "--data", people / "train", workspace=workspace)
    rest = f"use the recipe's crop and anchor: `{lists}` lists them."
    assert re.fullmatch(rf"faces: found in \d+ of 168 photos; the other \d+ {re.escape(rest)}", faces)
    return workspace


@pytest.fixture
def around(trained_around: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    shutil.copytree(trained_around, tmp_path / "runs")
    return tmp_path / "runs"


def boxes_of(orch: Orch, people: Path, workspace: Path) -> dict[str, list[int] | None]:
    done = orch("data", "faces", "--data", people / "train", "-w", workspace, "--json")
    faces = json.loads(done.out)
    boxes = {photo["path"]: photo["box"] for photo in faces["boxes"]}
    assert faces["found"] == sum(box is not None for box in boxes.values())
    assert 0 < faces["found"] < faces["photos"] == len(boxes)
    return boxes


def test_a_member_predicts_from_the_crops_that_it_was_scored_on(orch: Orch, people: Path, around: Path) -> None:
    boxes = boxes_of(orch, people, around)
    (member,) = load_members(member_files(around, "age-0002", 0))
    geometry = member.preprocess.geometry
    assert (geometry.face, geometry.detector) == (0.3, "mtcnn-1.0.0-r1")
    table = pd.read_parquet(around / "age-0002/fold-0/held_out.parquet")
    table = pd.concat(
        [table[table["path"].map(boxes.get).notna()].head(6), table[table["path"].map(boxes.get).isna()].head(6)]
    )
    predictor = start_predictor([member], SOFT, sharing=False)
    prepared = [predictor.reader.prepare(decode(people / "train" / path)) for path in table["path"]]
    assert [photo.face_found for photo in prepared] == [boxes[path] is not None for path in table["path"]]
    pixels = np.stack([photo.pixels[geometry] for photo in prepared])
    by_hand = [
        geometry.apply(decode(people / "train" / path), boxes[path] and tuple(boxes[path])) for path in table["path"]
    ]
    assert np.array_equal(pixels, by_hand)
    (runner,) = torch_runners([unshared(member)], "cpu")
    np.testing.assert_allclose(runner(pixels), table.filter(like="p(").to_numpy(), atol=1e-5)


def test_without_a_store_the_same_bits_are_trained(orch: Orch, people: Path, around: Path, tmp_path: Path) -> None:
    done = train(orch, people, tmp_path / "direct", "train", "age", "--no-store", "--valid-only", *tiny(*FACE))
    assert done.code == 0, done.err
    assert "looked for faces in 168 photos." in done.err
    ours, theirs = around / "age-0002", tmp_path / "direct/age-0001"
    assert (ours / "fold-0/weights.safetensors").read_bytes() == (theirs / "fold-0/weights.safetensors").read_bytes()


def test_photos_without_a_face_are_told_in_every_answer(orch: Orch, people: Path, around: Path, tmp_path: Path) -> None:
    assert orch("ensemble", "-w", around).code == 0
    table = tmp_path / "p.parquet"
    done = orch("predict", people / "eval/images", "-w", around, "--probabilities", table, "--json")
    assert done.code == 0, done.err
    answers = json.loads(done.out)
    has_face = [answer["face_found"] for answer in answers]
    assert set(has_face) == {True, False}
    assert pd.read_parquet(table)["face_found"].tolist() == has_face
    lines = [line for line in done.err.splitlines() if line.startswith("no face found: ")]
    assert len(lines) == min(5, has_face.count(False))


def test_an_export_finds_the_same_faces_and_gives_the_same_answers(
    orch: Orch, people: Path, around: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", around).code == 0
    refused = orch("export", "-w", around, "--out", tmp_path / "out")
    assert refused.code == 2
    assert "Give some: --photos DIR." in refused.err
    done = orch("export", "-w", around, "--out", tmp_path / "out", "--photos", people / "eval/images")
    assert done.code == 0, done.err
    photos = sorted((people / "eval/images").iterdir())
    ours = json.loads(orch("predict", *photos, "-w", around, "--json", "--engine", "torch").out)
    assert {answer["face_found"] for answer in ours} == {True, False}
    theirs = subprocess.run(
        [sys.executable, tmp_path / "out/predict.py", *photos], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    for line, expected in zip(theirs.stdout.splitlines(), ours, strict=True):
        answer = json.loads(line)
        assert answer["label"] == expected["label"]
        assert answer["probabilities"]["age"] == pytest.approx(expected["probabilities"]["age"], abs=1e-4)


def test_views_are_tried_on_the_same_crops_when_the_store_is_gone(orch: Orch, around: Path) -> None:
    words = ("tta", "age-0002", "--views", "flip", "-w", around, "--json")
    before, with_store = hashes(around / "store"), orch(*words)
    shutil.rmtree(around / "store")
    without = orch(*words)
    assert without.code == 0, without.err
    assert json.loads(without.out) == json.loads(with_store.out)
    after = {name: digest for name, digest in hashes(around / "store").items() if name.endswith(".npy")}
    assert after
    assert after.items() <= before.items()
    with pytest.raises(ValueError, match="needs their boxes"):
        build_stores(around / "store", [], {Geometry(8, 8, face=0.3, detector="mtcnn-1.0.0-r1"): "key"}, 1)


def test_members_of_another_detector_are_refused(orch: Orch, people: Path, around: Path) -> None:
    assert orch("ensemble", "-w", around).code == 0
    card = around / "age-0002/fold-1/member.json"
    preprocess = json.loads(card.read_text())["preprocess"]
    preprocess["geometry"]["detector"] = "mtcnn-0.9-r1"
    edit_sealed(card, preprocess=preprocess)
    assert orch("ensemble", "-w", around).code == 0
    done = orch("predict", people / "eval/images", "-w", around)
    assert done.code == 2
    assert "age-0002/fold-1" in done.err
    assert "mtcnn-0.9-r1" in done.err


def test_members_without_face_crops_look_for_none(orch: Orch, people: Path, workspace: Path) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    done = orch("predict", people / "eval/images", "-w", workspace, "--json")
    assert {answer["face_found"] for answer in json.loads(done.out)} == {None}
    assert "no face" not in done.err
    assert not (workspace / "cache/faces").exists()


def test_the_faces_are_listed_and_drawn(orch: Orch, people: Path, tmp_path: Path) -> None:
    picture = tmp_path / "faces.png"
    before = hashes(people)
    done = orch("data", "faces", "--data", people / "train", "-w", tmp_path / "runs", "--out", picture)
    assert done.code == 0, done.err
    assert hashes(people) == before
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert done.out.count("no face  images/") == 20
    assert "By mask: incorrect " in done.out

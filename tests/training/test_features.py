"""A head alone: features once, for all folds and tasks, and members that answer photos as any other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from orchestrator.core.errors import ConfigError
from orchestrator.core.labels import TASKS, columns_of
from orchestrator.data.preprocessing import decode
from orchestrator.inference.engines import torch_runners
from orchestrator.inference.member import load_members
from orchestrator.inference.predictor import start_predictor
from orchestrator.inference.shared_backbone import unshared
from orchestrator.recipes.load import load_recipes
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.features import check_head_alone
from tests.conftest import SOFT, Done, hashes, member_files, tiny, train

Orch = Callable[..., Done]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "body.safetensors")
    return tmp_path / "body.safetensors"


def test_one_pass_serves_all_folds_and_tasks_and_the_members_answer_photos(
    orch: Orch, people: Path, tmp_path: Path, weights: Path
) -> None:
    runs = tmp_path / "runs"
    words = ["--recipe", "probe", *tiny(f"weights={weights}", "crop=0.8", "anchor=0.5", "lr=0.01")]
    done = train(orch, people, runs, "train-all", *words, "--device", "cpu")  # a GPU computes features in bf16
    assert done.code == 0, done.err
    assert done.err.count("computed the features of 168 photos") == 1
    (features,) = (runs / "cache" / "features").glob("*.npy")
    assert np.load(features).shape[0] == 168
    initial, head = load_file(weights), "classifier."
    for task in TASKS:
        state = load_file(runs / f"{task}-0001" / "fold-1" / "weights.safetensors")
        assert all(torch.equal(state[key], initial[key]) for key in initial if not key.startswith(head))
    for task in TASKS:
        table = pd.read_parquet(runs / f"{task}-0001" / "fold-1" / "held_out.parquet")
        members = [files for name in TASKS for files in member_files(runs, f"{name}-0001", 1)]
        predictor = start_predictor(load_members(members), SOFT)
        paths = [people / "train" / "images" / path for path in table["path"]]
        paths = [
            path if path.exists() else people / "train" / name for path, name in zip(paths, table["path"], strict=True)
        ]
        shares = np.concatenate(
            [batch.combined.decisions[task].shares for batch in predictor.predict(paths) if batch.combined]
        )
        assert np.allclose(shares, table[columns_of(task)], atol=1e-5)
    before = hashes(runs / "age-0001")
    again = train(orch, people, runs, "train", "age", "--seed", 1)
    assert again.code == 0, again.err
    assert "computed the features" not in again.err  # they are kept
    assert hashes(runs / "age-0001") == before


def test_damaged_features_are_computed_again_with_a_note(
    orch: Orch, people: Path, tmp_path: Path, weights: Path
) -> None:
    runs = tmp_path / "runs"
    words = ["train", "gender", "--valid-only", "--again", "--recipe", "probe", *tiny(f"weights={weights}", "epochs=1")]
    assert train(orch, people, runs, *words).code == 0
    (features,) = (runs / "cache" / "features").glob("*.npy")
    about = features.with_suffix(".json")
    right = features.read_bytes()

    def flip(path: Path) -> None:
        flipped = bytearray(path.read_bytes())
        flipped[len(flipped) // 2] ^= 1
        path.write_bytes(flipped)

    def put_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    damages: list[tuple[Path, Callable[[Path], object]]] = [
        (features, flip), (features, lambda path: path.write_bytes(b"")), (features, put_folder), (about, flip),
    ]  # fmt: skip
    for number, (path, damage) in enumerate(damages, start=2):
        damage(path)
        done = train(orch, people, runs, *words)
        assert done.code == 0, done.err
        (note,) = [line for line in done.err.splitlines() if path.name in line]
        assert note.startswith("note: ")
        assert note.endswith(": computed again.")
        assert features.read_bytes() == right
        first, again = (hashes(runs / f"gender-{run:04}")["fold-0/weights.safetensors"] for run in (1, number))
        assert first == again


def test_each_pooling_has_features_of_its_own(orch: Orch, people: Path, tmp_path: Path, weights: Path) -> None:
    runs = tmp_path / "runs"
    for number, pooling in enumerate(("avg", "max", "catavgmax"), start=1):
        words = ["--recipe", "probe", *tiny(f"weights={weights}", "lr=0.01", f"pooling={pooling}", "epochs=3")]
        done = train(orch, people, runs, "train", "gender", "--valid-only", *words)
        assert done.code == 0, done.err
        folder = runs / f"gender-000{number}/fold-0"
        table = pd.read_parquet(folder / "held_out.parquet").head(8)
        (member,) = load_members(member_files(runs, f"gender-000{number}", 0))
        (runner,) = torch_runners([unshared(member)], "cpu")
        pixels = [member.preprocess.geometry.apply(decode(people / "train" / path)) for path in table["path"]]
        assert np.allclose(runner(np.stack(pixels)), table.filter(like="p("), atol=1e-5)


def test_a_head_learns_what_its_features_tell(orch: Orch, people: Path, tmp_path: Path) -> None:
    words = ("--recipe", "probe", "--tasks", "mask", "--set", "height=64", "--set", "width=48", "--set", "epochs=12")
    done = train(orch, people, tmp_path / "runs", "train-all", *words)
    assert done.code == 0, done.err
    tables = [pd.read_parquet(path) for path in (tmp_path / "runs").glob("mask-0001/fold-*/held_out.parquet")]
    table = pd.concat(tables)
    answers = table[columns_of("mask")].to_numpy().argmax(axis=1)
    worn = (table["truth"] == 0).mean()
    assert (answers == table["truth"]).mean() > worn + 0.1  # better than always the commonest


def test_networks_and_weights_that_a_head_alone_cannot_use_are_told() -> None:
    distilled = ["backbone=deit_tiny_distilled_patch16_224", "weights=hub"]
    recipe = load_recipes({"age": SPECIALISTS["age"]}, ["probe"], distilled)["age"]
    with pytest.raises(ConfigError, match="are not one classifier on its features. Use train = network"):
        check_head_alone(recipe)
    check_head_alone(load_recipes({"age": SPECIALISTS["age"]}, ["probe"])["age"])
    with pytest.raises(ConfigError, match="weights = none gives a random one"):
        load_recipes({"age": SPECIALISTS["age"]}, ["probe"], ["weights=none"])

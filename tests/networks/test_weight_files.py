"""Weights are found in whatever wrapping, and what cannot be found is named; what is saved comes back bit for bit."""

import argparse
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from orchestrator.artifacts import cards
from orchestrator.artifacts.weights import load_weights
from orchestrator.core.errors import WeightsError
from orchestrator.networks.backbones import create, keep_weights, load_state
from orchestrator.networks.tensors import unshared
from orchestrator.networks.weight_files import read_weights
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS
from orchestrator.training.loop import train_fold
from tests.training.test_loop import job_of

NAME = "test_resnet"
State = dict[str, torch.Tensor]

PREFIXES = [
    "", "module.", "model.", "backbone.", "net.", "network.", "encoder.", "_orig_mod.", "model._orig_mod.",
    "module.model.backbone.", "_orig_mod.module.", "feature_extractor.body.", "student.backbone.",
]  # fmt: skip

WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "ordered": OrderedDict,
    **{
        name: lambda state, name=name: {name: state, "epoch": 3}
        for name in ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "net", "params_ema", "weights")
    },
    "lightning": lambda state: {
        "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1},
        "state_dict": state if "fc.bias" in state else state | {"criterion.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1}]}],
    },
    "timm's trainer": lambda state: {
        "arch": NAME, "state_dict": {key: value - 1 for key, value in state.items()}, "state_dict_ema": state,
        "args": argparse.Namespace(lr=0.1), "metric": np.float64(0.5), "scores": np.ones(3),
    },
    "nested": lambda state: {"state": {"model": {"state_dict": state}}, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}},
}  # fmt: skip


def recipe(weights: object, backbone: str = NAME) -> Recipe:
    changes = {"backbone": backbone, "weights": str(weights), "frozen_stages": 0, "drop_rate": 0.0}
    return load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(update=changes)


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    return {key: value + 0.5 for key, value in timm.create_model(NAME, num_classes=7).state_dict().items()}


def body_of(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def same(loaded: State, state: State) -> bool:
    loaded, wanted = body_of(loaded), body_of(state)
    return loaded.keys() == wanted.keys() and all(torch.equal(loaded[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_of_torchs_files_is_understood(wrapping: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for prefix in PREFIXES:
        torch.save(WRAPPINGS[wrapping]({prefix + key: value for key, value in state.items()}), path)
        assert same(read_weights(path, list(body_of(state))), state), prefix
    assert same(load_state(recipe(path)), state)


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "pt"])
def test_every_prefix_of_safetensors_is_understood_whatever_the_files_name(
    suffix: str, state: State, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{suffix}"
    for prefix in (*PREFIXES, "state_dict.", "model_ema.module."):
        save_file({prefix + key: value for key, value in state.items()}, path)
        assert same(read_weights(path, list(body_of(state))), state), prefix
    assert same(load_state(recipe(path)), state)


def test_a_wrappers_own_head_is_left_out_and_another_model_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({f"backbone.{key}": value for key, value in state.items()} | {"head.weight": torch.ones(2, 3)}, path)
    assert same(load_state(recipe(path)), state)
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, path)
    with pytest.raises(WeightsError, match=r"do not fit the backbone: conv_stem.weight is missing"):
        load_state(recipe(path, "test_efficientnet"))


def test_several_networks_that_fit_are_named_and_equal_ones_are_one(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    other = {key: value + 1 for key, value in state.items()}
    both = {f"encoder_q.{key}": value for key, value in state.items()} | {
        f"encoder_k.{key}": value for key, value in other.items()
    }
    torch.save({"state_dict": both}, path)
    with pytest.raises(
        WeightsError, match=r"several networks that fit \('state_dict.encoder_(q|k)\.', 'state_dict.encoder_"
    ):
        load_state(recipe(path))
    torch.save({"student": state, "teacher": other}, path)
    with pytest.raises(WeightsError, match=r"several networks that fit \('student.', 'teacher.'\)"):
        load_state(recipe(path))
    torch.save({"a": state, "b": {key: value.clone() for key, value in state.items()}}, path)
    assert same(load_state(recipe(path)), state)


class Custom:
    pass


def test_what_could_run_code_is_named_and_not_opened(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state, "callbacks": Custom()}, path)
    with pytest.raises(
        WeightsError, match=r"holds tests.networks.test_weight_files.Custom, which is more than tensors"
    ):
        load_state(recipe(path))
    torch.save(timm.create_model(NAME), path)
    with pytest.raises(WeightsError, match=r"holds timm.models.resnet.ResNet, which is more than tensors"):
        load_state(recipe(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0" * 64, "is not a file of weights, neither torch's nor safetensors"),
        (b"a text", "is not a file of weights, neither torch's nor safetensors"),
        (b"PK\x03\x04" + b"\0" * 64, "cannot be read"),
        (b"\x10\0\0\0\0\0\0\0{" + b"x" * 20, "cannot be read"),
    ],
)
def test_what_is_no_file_of_weights_is_called_so(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_state(recipe(path))
    assert "`" not in caught.value.message  # between backticks stand our own commands


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    key = "layer1.0.conv1.weight"
    save_file(state | {key: torch.full_like(state[key], bad)}, path)
    with pytest.raises(WeightsError, match=r"1 tensor of them \(.*weight first\) hold infinite or NaN values"):
        load_state(recipe(path))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 4)), min_size=1, max_size=6))
def test_any_tensors_are_saved_and_come_back_the_same(drawn: list[tuple[int, bool, int]]) -> None:
    """Whole, the same under another name, transposed, a part of another, empty."""
    whole = [torch.arange(12.0).reshape(3, 4) + number for number in range(4)]
    tensors = {
        f"{index}": (whole[which].t() if turned else whole[which])[:rows] for index, (which, turned, rows) in enumerate(drawn)
    }  # fmt: skip
    separate = unshared(tensors)
    assert all(torch.equal(separate[key], tensors[key]) for key in tensors)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.safetensors"
        save_file(separate, path)
        again = load_file(path)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_a_network_whose_weights_share_tensors_trains_saves_and_begins_another(tmp_path: Path) -> None:
    changes = ("backbone=coat_tiny", "height=32", "width=32", "epochs=1", "ema=0.9")
    job = job_of(tmp_path / "m", *changes, people=12)
    train_fold(job)
    path = tmp_path / "m" / cards.WEIGHTS
    model = create("coat_tiny", 3, job.recipe)
    load_weights(path, model)
    saved = load_file(path)
    own = model.state_dict()
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[key], own[key]) for key in own)
    shared = {
        key
        for key in own
        if sum(own[key].data_ptr() == other.data_ptr() for other in own.values() if other.numel()) > 1
    }
    assert len(shared) > 4
    wanted = job.recipe.model_copy(update={"weights": str(path)})
    kept = keep_weights("coat_tiny", load_state(wanted), tmp_path / "cache")
    assert kept.path is not None
    with safe_open(kept.path, "pt") as file:
        assert all(torch.equal(file.get_tensor(key), saved[key]) for key in file.keys())  # noqa: SIM118  (no dict)


def test_the_largest_network_is_spoken_of_where_none_fits(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"small": {"a": torch.ones(1)}, "large": {"b": torch.ones(1), "c": torch.ones(1)}}, path)
    assert set(read_weights(path, ["x.weight"])) == {"b", "c"}

"""What only a GPU can show: `make test-gpu`. The same bodies run on a CPU with all other tests, so that they cannot rot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from orchestrator.artifacts import cards
from orchestrator.artifacts.cards import MemberCard
from orchestrator.artifacts.weights import load_weights
from orchestrator.networks.backbones import create
from orchestrator.networks.devices import gpu_count, resolve_device
from orchestrator.training.loop import train_fold
from tests.conftest import Done, tiny
from tests.training.test_loop import Stripes, job_of

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and `make test-gpu`"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["auto", "fp16", "bf16", "fp32"])
def test_a_member_learns_on_a_device_and_predicts_the_same_on_a_cpu(
    tmp_path: Path, precision: str, device: str
) -> None:
    assert (resolve_device("auto"), gpu_count() >= 1) == (device, device == "cuda")
    job = job_of(tmp_path / "m", "epochs=12", f"precision={precision}", "augment={}", device=device)
    card = train_fold(job)
    assert card.device.startswith(device)
    assert card.scores.macro_f1 > 0.6
    model = create(MemberCard.load(job.folder).backbone, 3).eval()
    load_weights(job.folder / cards.WEIGHTS, model)
    pixels = torch.from_numpy(Stripes(job.rows.truth).take(job.held_out))
    with torch.inference_mode():
        here = job.head.probabilities(model(job.preprocess.normalise(pixels))).numpy()
    there = pd.read_parquet(job.folder / cards.HELD_OUT).filter(like="p(").to_numpy()
    apart = np.abs(here - there).max()
    assert apart < (0.05 if precision != "fp32" else 0.005)
    if device == "cpu":  # where bf16 alone calculates otherwise than a CPU that predicts
        assert (apart > 1e-5) == (precision == "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_whole_way_on_a_device(orch: Callable[..., Done], people: Path, tmp_path: Path, device: str) -> None:
    """Two jobs with two DataLoader workers each, as they are by default where there are several GPUs; then the same on a CPU."""
    workspace = tmp_path / "runs"
    words = (
        "--data", people / "train", "-w", workspace, "--folds", 2, "--device", device, *tiny("workers=2", "epochs=1"),
    )  # fmt: skip
    done = orch("train-all", "--jobs", 2, *words)
    assert done.code == 0, done.err
    assert MemberCard.load(workspace / "age-0001/fold-1").device.startswith(device)
    assert orch("train-all", "--jobs", 2, *words).err.count("is complete already") == 3
    assert orch("ensemble", "-w", workspace).code == 0
    answers = {}
    for name in {device, "cpu"}:
        table = tmp_path / f"{name}.parquet"
        eval_words = ("--eval", people / "eval", "--out", tmp_path / f"{name}.csv", "--probabilities", table)
        done = orch(
            "predict", *eval_words, "-w", workspace, "--device", name, "--engine", "torch", "--precision", "fp32"
        )
        assert done.code == 0, done.err
        answers[name] = pd.read_parquet(table).filter(like="p(").to_numpy()
    assert answers["cpu"].shape == (28, 26)
    assert np.abs(answers[device] - answers["cpu"]).max() < 0.005

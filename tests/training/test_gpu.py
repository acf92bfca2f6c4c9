"""What only a GPU can show; skipped without one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from orchestrator.artifacts import cards
from orchestrator.artifacts.cards import MemberCard
from orchestrator.artifacts.weights import load_weights
from orchestrator.data.augmentation import Augment
from orchestrator.networks.backbones import create
from orchestrator.networks.devices import gpu_count, resolve_device
from orchestrator.training.loop import train_fold
from tests.training.test_loop import Stripes, job_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["auto", "fp16", "bf16", "fp32"])
def test_a_member_learns_on_a_gpu_and_predicts_the_same_on_a_cpu(tmp_path: Path, precision: str) -> None:
    still = [f"augment.{key}=0" for key in Augment.model_fields]
    job = job_of(tmp_path / "m", "epochs=12", f"precision={precision}", *still, device=resolve_device("auto"))
    card = train_fold(job)
    assert card.device.startswith("cuda")
    assert card.scores["macro_f1"] > 0.6
    model = create(MemberCard.load(job.folder).backbone, 3).eval()
    load_weights(job.folder / cards.WEIGHTS, model)
    pixels = torch.from_numpy(Stripes(job.table["truth"].to_numpy()).take(job.held_out))
    with torch.inference_mode():
        here = job.head.probabilities(model(job.preprocess.normalise(pixels))).numpy()
    there = pd.read_parquet(job.folder / cards.HELD_OUT).filter(like="p(").to_numpy()
    assert np.abs(here - there).max() < (0.05 if precision != "fp32" else 0.005)
    assert gpu_count() >= 1

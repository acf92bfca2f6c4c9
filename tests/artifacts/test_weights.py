"""Weights of members: written as any file is, read by whatever network the card names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.artifacts.cards import WEIGHTS
from orchestrator.artifacts.weights import save_tensors
from orchestrator.core.files import sha256_of
from orchestrator.core.labels import CLASSES
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.inference.member import MemberFiles, load_members
from orchestrator.networks.backbones import create
from tests.artifacts.test_cards import A_CARD


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_of_weights_honours_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        save_tensors(tmp_path / WEIGHTS, {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert (tmp_path / WEIGHTS).stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("backbone", ["test_resnet", "lambda_resnet26t"])
def test_a_member_answers_as_the_network_that_was_trained(backbone: str, tmp_path: Path) -> None:
    """Lambda networks have kernels of five axes, for which there is no memory format channels last."""
    preprocess = Preprocess(Geometry(64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    network = create(backbone, 3, geometry=preprocess.geometry).eval()
    save_tensors(tmp_path / WEIGHTS, network.state_dict())
    card = replace(
        A_CARD, backbone=backbone, views=(), preprocess=preprocess.as_dict(), classes=CLASSES["age"],
        sha256={WEIGHTS: sha256_of(tmp_path / WEIGHTS)},
    )  # fmt: skip
    card.save(tmp_path)
    photos = torch.rand(2, 3, 64, 64)
    for member in load_members([MemberFiles("age", "age-0001", fold, tmp_path) for fold in (0, 1)], "cpu"):
        with torch.no_grad():
            assert torch.allclose(member.network(photos), network(photos), atol=1e-6)

"""Members as they are loaded: laid out once an architecture, with the weights of a file, or refused with the reason."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.artifacts.cards import CARD_FORMAT
from orchestrator.data.geometry import Geometry
from orchestrator.data.preprocessing import Preprocess
from orchestrator.inference.member import _EmptyNetworks
from orchestrator.networks.backbones import create
from tests.conftest import Done, edit_sealed

Orch = Callable[..., Done]

SIZE = Geometry(64, 64)
SEEN = Preprocess(SIZE, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def saved(network: torch.nn.Module, path: Path) -> Path:
    save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()},
        path,
    )
    return path


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_vit", "efficientnet_lite0", "swin_tiny_patch4_window7_224", "levit_128s"]
)
def test_a_network_that_is_laid_out_answers_as_one_that_is_built(backbone: str, tmp_path: Path) -> None:
    size = Geometry(224, 224) if "224" in backbone else SIZE
    torch.manual_seed(0)
    built = create(backbone, 3, geometry=size).eval()
    weights = saved(built, tmp_path / "weights.safetensors")
    layouts, seen = _EmptyNetworks(), Preprocess(size, SEEN.mean, SEEN.std)
    photos = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, size.height, size.width)).astype("float32"))
    photos = photos.contiguous(memory_format=torch.channels_last)
    for _ in range(2):  # the second takes the first one's layout
        network = layouts.network(backbone, "", 3, seen, weights, "").eval()
        with torch.inference_mode():
            assert torch.equal(network(photos), built(photos))
    # Others hold buffers that their weights files do not: those are built.
    assert all(layouts._pickled.values()) == (backbone in ("test_resnet", "test_vit", "efficientnet_lite0"))


def test_loading_members_imports_no_compiler(tmp_path: Path) -> None:
    """torch takes its compiler along for a weight times a number on the device `meta`: 1.3 s of one photo's 2.5."""
    lines = [
        "import sys, pathlib",
        "from tests.inference.test_member import SEEN, SIZE, _EmptyNetworks, create, saved",
        "for backbone in ('test_resnet', 'test_efficientnet', 'test_convnext', 'test_vit', 'efficientnet_lite0'):",
        "    path = saved(create(backbone, 3, geometry=SIZE), pathlib.Path(sys.argv[1]) / f'{backbone}.safetensors')",
        "    _EmptyNetworks().network(backbone, '', 3, SEEN, path, '')",
        "sys.exit('torch._dynamo' in sys.modules)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_missing_and_changed_member_files_are_all_named(orch: Orch, people: Path, workspace: Path) -> None:
    orch("ensemble", "-w", workspace)
    (workspace / "age-0001" / "fold-0" / "weights.safetensors").unlink()
    weights = workspace / "mask-0001" / "fold-2" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    done = orch("predict", people / "eval" / "images", "-w", workspace)
    assert done.code == 2
    assert "2 of the ensemble's 9 members cannot be used" in done.err
    assert "age-0001/fold-0/weights.safetensors: missing. Restore it; or run `orch resume age-0001" in done.err
    assert "mask-0001/fold-2/weights.safetensors: not the file that was written (sha256 " in done.err


def test_weights_that_do_not_fit_their_card_are_told(orch: Orch, people: Path, workspace: Path) -> None:
    card_path = workspace / "age-0001" / "fold-0" / "member.json"
    edit_sealed(card_path, backbone="test_resnet")
    orch("ensemble", "-w", workspace)
    assert (
        "do not fit the network that the card names" in orch("predict", people / "eval" / "images", "-w", workspace).err
    )
    edit_sealed(card_path, backbone="no_such_net")
    assert "not the card of the member that the ensemble was built from" in (
        orch("predict", people / "eval" / "images", "-w", workspace).err
    )
    orch("ensemble", "-w", workspace)
    assert (
        "its backbone 'no_such_net' is unknown to timm"
        in orch("predict", people / "eval" / "images", "-w", workspace).err
    )
    edit_sealed(card_path, format=99)
    assert f"in format 99 by a newer version; this one reads {CARD_FORMAT}" in orch("ensemble", "-w", workspace).err

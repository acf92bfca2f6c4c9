"""Members as they are loaded: networks laid out once an architecture, with the weights of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.data.geometry import Geometry
from orchestrator.data.preprocessing import Preprocess
from orchestrator.inference.member import _EmptyNetworks
from orchestrator.networks.backbones import create

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
    assert all(layouts._known.values()) == (backbone in ("test_resnet", "test_vit", "efficientnet_lite0"))


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

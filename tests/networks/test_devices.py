import platform
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core import device_names
from orchestrator.core.errors import ConfigError, DeviceError
from orchestrator.networks import devices
from orchestrator.networks.devices import resolve_device

PROGRAM = """
import resource
import torch
from orchestrator.networks.devices import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(40 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
before = faults()
keep_freed_memory()
faults()  # the first block after the call is new
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at every free")
def test_freed_blocks_are_used_again_instead_of_mapped_anew() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 20 * 20  # 40 MB anew each time, be it in pages of 4 kB or 2 MB
    assert after < before / 10


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()  # there is a driver, and torch sees nothing
    monkeypatch.setattr(device_names, "DEVICES", tmp_path)
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert (resolve_device("auto"), resolve_device("cpu")) == ("cpu", "cpu")
    with pytest.raises(DeviceError, match="sees no GPU here. Use --device cpu or auto"):
        resolve_device("cuda")
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    assert (resolve_device("auto"), resolve_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(DeviceError, match="--device cuda:2: there are 2, cuda:0 to cuda:1"):
        resolve_device("cuda:2")
    with pytest.raises(ConfigError, match="allowed: auto, cpu, cuda, cuda:0"):
        resolve_device("gpu")

"""Devices are checked by name, and by the files of their drivers, before torch is imported."""

from pathlib import Path

import pytest

from orchestrator.core import device_names
from orchestrator.core.device_names import check_device
from orchestrator.core.errors import ConfigError, DeviceError


def test_a_gpu_that_no_driver_has_is_refused_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names, "DEVICES", tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("cuda", "cuda:0", "cuda:9"):
        with pytest.raises(DeviceError, match=f"^--device {name}: orch sees no GPU here: .* Use --device cpu or auto"):
            check_device(name)
    for name in ("auto", "cpu"):
        check_device(name)
    for name in ("gpu", "cuda:", "cuda:x", "CUDA", ""):
        with pytest.raises(ConfigError, match="allowed: auto, cpu, cuda, cuda:0, cuda:1"):
            check_device(name)


@pytest.mark.parametrize("file", ["nvidia0", "nvidiactl", "kfd", "dxg", "nvhost-gpu"])
def test_whether_a_gpu_can_be_used_is_for_torch(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names, "DEVICES", tmp_path)
    (tmp_path / file).touch()
    check_device("cuda:9")


def test_what_has_no_such_files_is_for_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_names, "DEVICES", tmp_path)
    monkeypatch.setattr("sys.platform", "win32")
    check_device("cuda")

import pytest
import torch

from orchestrator.artifacts.environment import hardware


def test_the_gpu_on_record_is_the_one_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {torch.device(device)}")
    assert hardware("cuda:1")["gpu"] == "name of cuda:1"
    assert "gpu" not in hardware("cpu")

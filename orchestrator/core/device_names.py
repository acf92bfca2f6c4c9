"""Names of devices, checked without torch."""

from __future__ import annotations

from orchestrator.core.errors import ConfigError

__all__ = ["check_device"]


def check_device(name: str) -> None:
    """Rejects an unknown device name; whether the device exists is checked by torch.

    Raises:
        ConfigError: with the names that are known.
    """
    kind, colon, number = name.partition(":")
    if name not in ("auto", "cpu", "cuda") and not (kind == "cuda" and colon and number.isdigit()):
        raise ConfigError(f"--device {name}: allowed: auto, cpu, cuda, cuda:0, cuda:1 ...")

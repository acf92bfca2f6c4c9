"""Versions, hardware and code revision, for the record of a run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator import __version__
from orchestrator.artifacts.provenance import Environment, Hardware
from orchestrator.core.cores import cores

__all__ = ["environment_of", "git_revision", "hardware", "versions"]

PACKAGES = (
    "torch",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "pillow",
    "numpy",
    "pandas",
)


def environment_of(device: str) -> Environment:
    """What this process runs in: versions, machine, and the commits of the folder and of this package.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
    """
    return Environment(versions(), hardware(device), git_revision(Path.cwd()), git_revision(Path(__file__).parent))


def versions() -> dict[str, str]:
    """Python's and the packages' versions that can change a result."""
    installed = {"python": platform.python_version(), "orchestrator": __version__}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def hardware(device: str) -> Hardware:
    """Processor, cores, and the GPU where one is used."""
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    return Hardware(_processor(), cores(), platform.platform(), gpu)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out in `folder`, with `+changes` if files differ; None outside a repository."""

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return result.stdout.strip()

    try:
        if not git("ls-files", "."):  # in a repository but not tracked: installed below another project, say
            return None
        revision = git("rev-parse", "HEAD")
        return revision + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None

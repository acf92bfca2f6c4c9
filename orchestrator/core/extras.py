"""Optional packages: which extra installs them, whether they are installed, and the error if they are not.

The check imports nothing, and code that needs an optional package calls it before any work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from orchestrator.core.commands import extra_hint
from orchestrator.core.errors import ConfigError

__all__ = ["EXTRAS", "missing_of", "require"]

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "engines": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "sweep": ("optuna",),
    "face": ("mtcnn", "lz4"),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
"""Extra in pyproject.toml -> import names of its packages."""


def missing_of(packages: Sequence[str]) -> list[str]:
    """The packages that are not installed; a plain folder of that name, as wandb leaves one, is not a package."""
    return [name for name in packages if (spec := find_spec(name)) is None or spec.origin is None]


def require(what: str, extra: str, packages: Sequence[str] = (), otherwise: str = "") -> None:
    """Refuses what needs packages that are not installed.

    Args:
        what: feature that needs the packages, as the subject of a sentence.
        extra: extra that installs them.
        packages: packages of the extra that are needed; empty: all of them.
        otherwise: alternative without them, to complete a sentence after ", or".

    Raises:
        ConfigError: naming the packages and how to install them.
    """
    if missing := missing_of(packages or EXTRAS[extra]):
        brings = "which comes" if len(missing) == 1 else "which come"
        alternative = f", or {otherwise}" if otherwise else ""
        raise ConfigError(
            f"{what} needs {', '.join(missing)}, {brings} with the extra `{extra}`: {extra_hint(extra)}{alternative}."
        )

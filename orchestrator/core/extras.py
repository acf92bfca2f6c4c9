"""Optional packages: which extra brings them, whether they are here, and what is said where they are not.

Nothing optional is imported to find out, and whatever needs it asks here before any work.
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
"""Extra of pyproject.toml -> the packages that it brings, as they are imported."""


def missing_of(packages: Sequence[str]) -> list[str]:
    """Those of some packages that are not installed; a folder of such a name, as wandb leaves them, is no package."""
    return [name for name in packages if (spec := find_spec(name)) is None or spec.origin is None]


def require(what: str, extra: str, packages: Sequence[str] = (), otherwise: str = "") -> None:
    """Refuses what needs packages that are not installed.

    Args:
        what: needs them, as the subject of a sentence.
        extra: that brings them.
        packages: some of the extra's; none: all of them.
        otherwise: how to do without: the rest of a sentence that begins with ", or".

    Raises:
        ConfigError: naming the packages and how to install them.
    """
    if missing := missing_of(packages or EXTRAS[extra]):
        brings = "which comes" if len(missing) == 1 else "which come"
        rest = f", or {otherwise}" if otherwise else ""
        raise ConfigError(
            f"{what} needs {', '.join(missing)}, {brings} with the extra `{extra}`: {extra_hint(extra)}{rest}."
        )

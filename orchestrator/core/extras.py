"""Optional packages: which extra installs them, whether they are installed, and the errors if they are missing or broken.

`require` and `missing_of` import nothing: code that needs an optional package checks it before any work. `import_optional` is
the only way to the package itself, because an installed package may still fail to load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from orchestrator.core.commands import extra_hint, reinstall_hint
from orchestrator.core.errors import ConfigError, OrchestratorError, first_line

__all__ = ["EXTRAS", "folder_of", "import_optional", "missing_of", "require"]

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "engines": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "sweep": ("optuna",),
    "face": ("mtcnn", "lz4"),
    "alike": ("imagehash",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
"""Extra in pyproject.toml -> import names of its packages."""


def missing_of(packages: Sequence[str]) -> list[str]:
    """The packages that are not installed; a plain folder of that name, as wandb leaves one, is not a package."""
    return [name for name in packages if (spec := find_spec(name)) is None or spec.origin is None]


def require(
    feature: str,
    extra: str,
    packages: Sequence[str] = (),
    otherwise: str = "",
    error: type[OrchestratorError] = ConfigError,
) -> None:
    """Refuses a feature that needs packages which are not installed.

    Args:
        feature: what needs the packages, as the subject of a sentence.
        extra: extra that installs them.
        packages: packages of the extra that are needed; empty: all of them.
        otherwise: alternative without them, to complete a sentence after ", or".
        error: type of the error to raise.

    Raises:
        OrchestratorError: packages are missing (type `error`); names them, and how to install them.
    """
    if missing := missing_of(packages or EXTRAS[extra]):
        brings = "which comes" if len(missing) == 1 else "which come"
        raise error(
            f"{feature} needs {', '.join(missing)}, {brings} with the extra `{extra}`: "
            f"`{extra_hint(extra)}`{_alternative(otherwise)}."
        )


def import_optional(
    module: str,
    feature: str,
    extra: str = "",
    otherwise: str = "",
    error: type[OrchestratorError] = ConfigError,
) -> ModuleType:
    """A module of an optional package.

    Args:
        module: module to import, as in `onnx.numpy_helper`.
        feature: what needs it, as the subject of a sentence.
        extra: extra that installs its package; empty: every installation has the package.
        otherwise: alternative without it, to complete a sentence after ", or".
        error: type of the error to raise.

    Raises:
        OrchestratorError: the package is not installed, or fails to load (type `error`).
    """
    package = module.partition(".")[0]
    if extra and package not in EXTRAS[extra]:  # `torch.utils.tensorboard` is torch's, and needs tensorboard
        (package,) = EXTRAS[extra]
    if extra:
        require(feature, extra, [package], otherwise, error)
    elif missing_of([package]):
        raise error(f"{feature} needs {package}, which is not installed: {_reinstall(package, otherwise)}.")
    try:
        return import_module(module)
    except Exception as reason:  # ImportError, OSError of a shared library, or any error of its own code
        raise error(
            f"{feature} needs {package}, which is installed but cannot be imported ({type(reason).__name__}: "
            f"{first_line(reason)}). Reinstall it: {_reinstall(package, otherwise)}."
        ) from reason


def _reinstall(package: str, otherwise: str) -> str:
    """The pip command, which takes 0.15 s to determine, and the alternative."""
    return f"`{reinstall_hint(package)}`{_alternative(otherwise)}"


def folder_of(package: str, feature: str, extra: str, otherwise: str = "") -> Path:
    """The folder of an optional package, which is not imported.

    Args:
        package: import name of a package with a folder of its own.
        feature: what needs it, as the subject of a sentence.
        extra: extra that installs it; all packages of the extra are needed.
        otherwise: alternative without it, to complete a sentence after ", or".

    Raises:
        ConfigError: packages of the extra are not installed.
    """
    require(feature, extra, otherwise=otherwise)
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations  # `require` found it; a package has a folder
    return Path(spec.submodule_search_locations[0])


def _alternative(otherwise: str) -> str:
    return f", or {otherwise}" if otherwise else ""

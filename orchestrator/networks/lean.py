"""timm, imported without the slow dependencies that nothing here uses.

timm's layers use one class of torchvision, which imports torch's compiler (2.1 s) for two names: a device check in
`roi_align`, and `torch.compiler.disable` in timm's own NaFlexViT. timm's training scripts import Weights & Biases (0.7
s). While timm is imported, stand-ins replace both; their functions look up the real ones when called. Networks are
unchanged, and if the stand-ins do not suffice for a version of these packages, timm is imported normally.

All code here imports timm from this module, or after it: `from orchestrator.networks.lean import timm`. timm.optim,
which imports the compiler again, is used only in training.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import timm
    import timm.models

__all__ = ["timm"]

COMPILER = "torch._dynamo"
UNUSED = ("wandb",)


def _is_compile_supported(device: str) -> bool:
    is_supported: bool = importlib.import_module(f"{COMPILER}.utils").is_compile_supported(device)
    return is_supported


def _disable(
    fn: Callable[..., Any] | None = None, recursive: bool = True, reason: str | None = None, **more: Any
) -> Any:
    """torch's own `disable`, looked up at the first call of the decorated function."""
    if fn is None:
        return lambda function: _disable(function, recursive, reason, **more)
    real: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def disabled(*args: Any, **options: Any) -> Any:
        if not real:
            real.append(importlib.import_module(COMPILER).disable(fn, recursive, reason=reason, **more))
        return real[0](*args, **options)

    return disabled


def _import_lean() -> Any:
    """timm with stand-ins for what is not used.

    Raises:
        Exception: a stand-in did not suffice; timm is then not imported.
    """
    compiler, tools = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    compiler.__path__ = []
    for name, value in (("utils", tools), ("disable", _disable)):
        setattr(compiler, name, value)
    tools.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]  # as torchvision imports it
    stand_ins: dict[str, Any] = {
        COMPILER: compiler,
        tools.__name__: tools,
        **dict.fromkeys(UNUSED),
    }  # None: not installed
    stand_ins = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    before = set(sys.modules)
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("timm")
    except Exception:  # of any kind; raised again, but modules that are half imported must not stay
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]
        raise
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name, ...) is module:
                del sys.modules[name]


if not TYPE_CHECKING:
    import torch  # noqa: F401  (all of its own modules are imported before any stand-in)

    if COMPILER in sys.modules or "timm" in sys.modules:
        timm = importlib.import_module("timm")
    else:
        try:
            timm = _import_lean()
        except Exception:  # a version of timm or torchvision that uses more of what the stand-ins replace
            timm = importlib.import_module("timm")

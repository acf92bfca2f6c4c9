"""Equivalent replacements for layers that torch runs wrongly on some machines.

A network's names and weights stay unchanged; only the way a layer computes its output differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["arranged", "channels_last"]

NARROW = 16
"""Number of input channels below which a strided 1 x 1 convolution is replaced."""


def arranged(model: nn.Module) -> nn.Module:
    """A network in the memory format that is fastest, channels last, where its layers can be.

    Lambda networks have kernels of five axes, for which torch has no such format. On a CPU, in that format, the gradient of a
    strided 1 x 1 convolution with few input channels writes out of bounds (torch 2.15, oneDNN: 3 to 8 channels of even sizes;
    mobileone_s0 and all fastvit_* crashed). Such a layer subsamples its input first and then has no stride, which is equivalent.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _steps_over(module):
            height, width = module.stride[0], module.stride[1]
            module.register_forward_pre_hook(_Every(height, width))
            module.stride = (1, 1)
    return channels_last(model)


def channels_last(model: nn.Module) -> nn.Module:
    """A network in the memory format channels last; unchanged if one of its tensors has five axes."""
    if any(tensor.dim() > 4 for tensor in (*model.parameters(), *model.buffers())):
        return model
    converted: nn.Module = model.to(memory_format=torch.channels_last)
    return converted


def _steps_over(module: nn.Conv2d) -> bool:
    """Whether a layer is a strided 1 x 1 convolution with few input channels."""
    plain = module.groups == 1 and module.padding in ((0, 0), 0, "valid")
    return plain and set(module.kernel_size) == {1} and max(module.stride) > 1 and module.in_channels < NARROW


class _Every:
    """Subsamples the rows and columns of a layer's input; a class, so that networks can be copied and pickled."""

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        subsampled: Tensor = inputs[0][:, :, :: self._rows, :: self._columns]
        return subsampled

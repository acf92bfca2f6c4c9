"""Tensors as a file can hold them: each in memory of its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["unshared"]


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, each in memory of its own, as safetensors requires.

    Some networks hold one tensor under two names (timm's coat_* share position encodings between blocks). Each name gets its own
    copy, so that readers of the file need not know of it; loaded into the network, both names are one tensor again.
    """
    copies: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        # A part of a larger tensor, or a tensor that has another name too.
        if memory.nbytes() != plain.nbytes or memory.data_ptr() in seen:
            plain = plain.clone()
        if plain.numel():
            seen.add(plain.untyped_storage().data_ptr())
        copies[key] = plain
    return copies

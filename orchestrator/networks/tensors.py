"""Tensors as a file can hold them: each in memory of its own."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["unshared"]


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, each whole in memory of its own, as safetensors asks for.

    Some networks hold one tensor under two names (timm's coat_* share position encodings between blocks). Each name gets its own
    copy, so that whoever reads the file needs to know nothing of it; loaded, both names are one tensor again.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.nbytes() != plain.nbytes or memory.data_ptr() in seen:  # a part of another, or another's whole
            plain = plain.clone()
        if plain.numel():
            seen.add(plain.untyped_storage().data_ptr())
        found[key] = plain
    return found

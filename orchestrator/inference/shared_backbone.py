"""The first layers that members share, computed once for all of them.

Members whose recipe freezes the first stages (`frozen_stages`, `train = head`) still have the initial weights there, and see
the same pixels: their features are the same, bit for bit, and the first stages have the largest maps. Three frozen stages of
EfficientNet-Lite0 are three or four tenths of a member's time (docs/experiments.md).

Shared layers are found by their weights, not by recipes, so members of any run and fold can share. A network is split
at the first leaf module, in execution order, whose weights differ; each part passes its input through the other's
layers. Whether the parts reproduce the network's answers depends on the architecture, so every member is tested on
photos of random noise, and is left whole unless its answers are the same bits.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.core.files import digest_of
from orchestrator.inference.member import AnswerFunction, Member

__all__ = ["Part", "Split", "split", "unshared"]

TRIES = 4
"""Split points that are tried. For timm's convolutional networks the first works, or none does."""


@dataclass(frozen=True, eq=False)
class Part:
    """Successive layers of a member as one function.

    Attributes:
        module: in evaluation mode, on the member's device.
        example: example input of two photos.
        names: names of input and output: `photos` or `features` in, `features` or `probabilities` out.
        digest: digest of the weights.
        kind: a digest shared by parts that differ in nothing but their weights.
    """

    module: nn.Module
    example: Tensor
    names: tuple[str, str]
    digest: str
    kind: str


@dataclass(frozen=True, eq=False)
class Split:
    """A member as engines run it.

    Attributes:
        member: the whole member.
        tail: the layers after the shared backbone, up to the probabilities.
        shared_backbone: the first layers, one object for all members that share them; None: nothing is shared.
        sharing: how many members share the shared backbone; 1 where there is none.
    """

    member: Member
    tail: Part
    shared_backbone: Part | None = None
    sharing: int = 1

    @property
    def parts(self) -> tuple[Part, ...]:
        """The shared backbone, if there is one, and the member's own layers."""
        return (self.tail,) if self.shared_backbone is None else (self.shared_backbone, self.tail)


def unshared(member: Member) -> Split:
    """A member that shares nothing."""
    geometry = member.preprocess.geometry
    example = torch.zeros(2, geometry.height, geometry.width, 3, dtype=torch.uint8)
    part = Part(AnswerFunction(member).eval(), example, ("photos", "probabilities"), member.sha256[:16], member.kind)
    return Split(member, part)


def split(members: Sequence[Member]) -> list[Split]:
    """Divides members where their weights begin to differ, so that most arithmetic is shared.

    Args:
        members: loaded on one device.

    Returns:
        One for each member, in order.
    """
    by_body: dict[str, list[Member]] = {}
    for member in members:
        if member.views:  # each view would need features of its own, and rows of a cascade all of them
            continue
        body = digest_of([member.backbone, member.pooling, member.preprocess.as_dict(), member.precision])
        by_body.setdefault(body, []).append(member)
    splits: dict[Member, Split] = {}
    for alike in by_body.values():
        if len(alike) > 1:
            splits |= _divide(alike)
    return [splits.get(member) or unshared(member) for member in members]


class _SharedBackbone(nn.Module):
    """Features of pixels (N, H, W, 3), uint8."""

    def __init__(self, member: Member, network: Any) -> None:
        super().__init__()
        self.network, self._preprocess = network, member.preprocess

    def forward(self, photos: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(self._preprocess.normalise(photos))
        return features


class _Tail(nn.Module):
    """The member's part after the shared layers: from their features to class probabilities."""

    def __init__(self, member: Member, network: nn.Module) -> None:
        super().__init__()
        self.network, self._head = network, member.head

    def forward(self, features: Tensor) -> Tensor:
        return self._head.probabilities(self.network(features))


class _Pass(nn.Module):
    """Identity, instead of layers that run in the other part."""

    def forward(self, inputs: Tensor, *_: object, **__: object) -> Tensor:
        return inputs


class _EntangledError(Exception):
    """The split point is inside a module that is not an nn.Sequential."""


def _divide(members: Sequence[Member]) -> dict[Member, Split]:
    """Splits for members of one architecture that share layers; members that share none are left out."""
    leaves, sizes = _leaves(members[0])
    by_length: list[tuple[float, int, list[str]]] = []
    done = 0
    for length, (size, keys) in enumerate(zip(sizes, _keys(members, leaves), strict=False), start=1):
        done += size
        spared = sum(count - 1 for count in Counter(keys).values()) * done
        if not spared:
            break
        by_length.append((-spared, -length, keys))
    tries = 0
    for _, minus_length, keys in sorted(by_length):
        groups: dict[str, list[Member]] = {}
        for member, key in zip(members, keys, strict=True):
            groups.setdefault(key, []).append(member)
        first = leaves[:-minus_length]
        try:
            shared = [shared_part for key, alike in groups.items() for shared_part in _share(alike, first, leaves, key)]
        except _EntangledError:
            continue
        if shared:
            return {part.member: part for part in shared}
        tries += 1
        if tries == TRIES:
            break
    return {}


def _leaves(member: Member) -> tuple[list[str], list[int]]:
    """Names of a network's leaf modules in execution order, and the output sizes of the first ones, which a shared
    backbone can hold.

    Both are empty when a leaf with weights runs twice.
    """
    named = {module: name for name, module in member.network.named_modules() if not list(module.children())}
    calls = _run(AnswerFunction(member), named, member)
    repeated = {name for name, count in Counter(name for name, _ in calls).items() if count > 1}
    weighty = {name for module, name in named.items() if module.state_dict()}
    if repeated & weighty:
        return [], []
    leaves = [name for name, _ in calls if name not in repeated]
    inside = [
        (name, size)
        for name, size in _run(_SharedBackbone(member, member.network), named, member)
        if name not in repeated
    ]
    if [name for name, _ in inside] != leaves[: len(inside)]:
        return [], []
    return leaves, [size for _, size in inside]


def _run(network: nn.Module, named: Mapping[nn.Module, str], member: Member) -> list[tuple[str, int]]:
    """The named modules in execution order, each with its output size for photos of random noise."""
    calls: list[tuple[str, int]] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        calls.append((named[module], output.numel() if isinstance(output, Tensor) else 0))

    hooks = [module.register_forward_hook(note) for module in named]
    try:
        with torch.inference_mode():
            network(_noise(member))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _keys(members: Sequence[Member], leaves: Sequence[str]) -> Iterator[list[str]]:
    """For each length of a shared backbone, every member's digest of all weights in it.

    Tensors that a module holds next to its children (a layer scale, for example) count with its first leaf, and so do
    those of modules that never run because others use their weights (`F.linear(x, self.qkv.weight)`).
    """
    executed = {""} | {
        ".".join(leaf.split(".")[:depth]) for leaf in leaves for depth in range(len(leaf.split(".")) + 1)
    }
    not_executed: dict[str, list[str]] = {}
    for name, _ in members[0].network.named_modules():
        ancestor = name
        while ancestor not in executed:
            ancestor = ancestor.rpartition(".")[0]
        if ancestor != name:
            not_executed.setdefault(ancestor, []).append(name)
    digests = [hashlib.sha256() for _ in members]
    seen: set[str] = set()
    for leaf in leaves:
        steps = leaf.split(".")
        for path in [".".join(steps[:depth]) for depth in range(len(steps) + 1)]:
            if path not in seen:
                seen.add(path)
                for name_in_key in [path, *not_executed.get(path, ())]:
                    for digest, member in zip(digests, members, strict=True):
                        module = member.network.get_submodule(name_in_key)
                        for name, tensor in [*module.named_parameters("", False), *module.named_buffers("", False)]:
                            digest.update(f"{name_in_key}.{name} {tuple(tensor.shape)}".encode())
                            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        yield [digest.hexdigest() for digest in digests]


def _cut(member: Member, first: Sequence[str], leaves: Sequence[str]) -> tuple[nn.Module, nn.Module]:
    """A member's shared backbone, which runs the first leaves, and its own part, which runs the others.

    Raises:
        _EntangledError: the split point is inside a module that is not an nn.Sequential.
    """
    executed = {member.network.get_submodule(name) for name in leaves}
    before = {member.network.get_submodule(name) for name in first}
    backbone = _SharedBackbone(member, _without(member.network, executed - before, executed))
    tail = _Tail(member, _without(member.network, before, executed))
    return backbone.eval(), tail.eval()


def _without(module: nn.Module, skipped: set[nn.Module], executed: set[nn.Module]) -> nn.Module:
    """A copy that shares all weights, in which the leaves of `skipped` pass their input through."""
    copied = copy.copy(module)
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        below = executed.intersection(child.modules()) if child is not None else set()
        if not below & skipped:
            children[name] = child
        elif below <= skipped:
            children[name] = _Pass()
        elif isinstance(child, nn.Sequential):
            children[name] = _without(child, skipped, executed)
        else:
            raise _EntangledError
    copied._modules = children
    return copied


def _share(members: Sequence[Member], first: Sequence[str], leaves: Sequence[str], key: str) -> list[Split]:
    """Splits for members with the same weights in the first leaves, if their two parts reproduce the whole.

    Raises:
        _EntangledError: the split point is inside a module that is not an nn.Sequential.
    """
    first_member = members[0]
    backbone, _ = _cut(first_member, first, leaves)
    tails = {member: _cut(member, first, leaves)[1] for member in members}
    photos = _noise(first_member)
    try:
        with torch.inference_mode():
            features = backbone(photos)
    except Exception:  # each architecture fails in its own way when layers of it are missing
        return []
    fit = [member for member in members if _fits(member, tails[member], features, photos)]
    if len(fit) < 2:
        return []
    body = digest_of([first_member.backbone, first_member.preprocess.as_dict(), first[-1]])[:16]
    shared = Part(backbone, unshared(first_member).tail.example, ("photos", "features"), key[:16], body)
    example, names = torch.zeros(2, *features.shape[1:]), ("features", "probabilities")
    splits = []
    for member in fit:
        kind = digest_of([member.kind, first[-1]])[:16]
        tail = Part(tails[member], example, names, member.sha256[:16], kind)
        splits.append(Split(member, tail, shared, len(fit)))
    return splits


def _fits(member: Member, tail: nn.Module, features: Tensor, photos: Tensor) -> bool:
    """Whether the two parts reproduce the whole network bit for bit, with photos as the features' first axis."""
    try:
        with torch.inference_mode():
            return len(features) == len(photos) and torch.equal(tail(features), AnswerFunction(member)(photos))
    except Exception:  # as above
        return False


def _noise(member: Member) -> Tensor:
    """Two photos of random noise from a fixed seed, shape (2, H, W, 3), uint8."""
    geometry = member.preprocess.geometry
    draw: Callable[..., Tensor] = torch.randint
    photo = draw(0, 256, (2, geometry.height, geometry.width, 3), generator=torch.Generator().manual_seed(0))
    return photo.to(torch.uint8).to(next(member.network.parameters()).device)

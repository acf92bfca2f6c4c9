"""Backbones: any timm model, with weights from the hub, a pip package, a file, or none.

Initial weights become one safetensors file in the workspace's cache before any job starts: every member of a run starts
from the same bytes, whose sha256 is recorded, and an unreachable hub is reported once, at the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchestrator.core.errors import ConfigError, WeightsError, first_line, nearest, quantity
from orchestrator.core.files import atomic, remove_own_file, sha256_of
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.networks.layers import arranged
from orchestrator.networks.lean import timm
from orchestrator.networks.published import from_hub, from_package
from orchestrator.networks.sight import Blind, blind_edges, patch_of
from orchestrator.networks.tensors import unshared
from orchestrator.networks.weight_files import read_weights
from orchestrator.recipes.schema import Recipe

__all__ = [
    "InitialWeights",
    "State",
    "check_backbone",
    "create",
    "freeze_stages",
    "heads_of",
    "keep_weights",
    "load_state",
    "only_head",
    "preprocess_of",
]

State = dict[str, Tensor]


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights of a run's members.

    Attributes:
        path: a safetensors file in timm's names; None for random weights.
        sha256: hash of that file; empty for random weights.
    """

    path: Path | None
    sha256: str


def check_backbone(recipe: Recipe) -> nn.Module:
    """Refuses a backbone that timm does not know or that cannot process the recipe's input, by a forward pass of zeros.

    Returns:
        The network that was built for it, with random weights.

    Raises:
        ConfigError: no such network, or not for such an input; names the nearest ones, or quotes the network's error.
    """
    name = recipe.backbone
    base, _, tag = name.partition(".")
    if tag and timm.is_model(base):
        tags = [name_with_tag.partition(".")[2] for name_with_tag in timm.list_pretrained(f"{base}.*")]
        if tag not in tags:
            raise ConfigError(
                f"backbone = '{name}': timm {timm.__version__} knows no weights '{tag}' of {base}; allowed: "
                f"{', '.join(tags) or 'none'}.{nearest(tag, tags)}"
            )
    if not timm.is_model(base):
        raise ConfigError(
            f"backbone = '{name}': timm {timm.__version__} has no such model.{nearest(name, timm.list_models(), most=3)} "
            "`python -c \"import timm; print(timm.list_models('*resnet*'))\"` lists names."
        )
    try:
        model = create(name, 2, recipe)
        freeze_stages(model, recipe.frozen_stages)
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, recipe.height, recipe.width))
            if recipe.small_epochs:
                model(torch.zeros(1, 3, *recipe.small))
    except ConfigError:
        raise
    except Exception as error:  # each architecture refuses sizes and options in its own way
        raise ConfigError(
            f"backbone = '{name}' cannot be built for photos of {recipe.height} x {recipe.width}{_with(recipe)}: "
            f"{first_line(error)}. "
            "Choose another size (--set height=... --set width=...), leave these settings at their defaults, or another backbone."
        ) from None
    size = (recipe.height, recipe.width)
    _check_sight(recipe.backbone, size, size)
    if recipe.small_epochs:
        _check_sight(recipe.backbone, size, recipe.small, f"small_size = {recipe.small_size:g}: ")
    return model


@lru_cache(maxsize=64)
def _seen(backbone: str, built: tuple[int, int], size: tuple[int, int]) -> tuple[Blind, tuple[int, int] | None]:
    """The edges that a backbone built for one size ignores in photos of another, and its patch size; no other
    setting of a recipe matters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create(backbone, 2, geometry=Geometry(*built))
        return blind_edges(model, *size), patch_of(model)


def _check_sight(name: str, built: tuple[int, int], size: tuple[int, int], small: str = "") -> None:
    """Refuses a size whose edges the backbone drops.

    Args:
        name: name of the backbone.
        built: height and width for which the network is built.
        size: height and width of the photos.
        small: prefix of the message if the size is that of the first epochs; empty otherwise.
    """
    height, width = size
    blind, patch = _seen(name, built, size)
    if not blind.matters:
        return
    edges = [quantity(pixels, word) for pixels, word in ((blind.rows, "row"), (blind.columns, "column")) if pixels]
    sizes = []
    for key, side, unseen, step in (("height", height, blind.rows, 0), ("width", width, blind.columns, 1)):
        if unseen:
            fitting = [side - unseen] * (side - unseen >= 16) + ([side - unseen + patch[step]] if patch else [])
            sizes.append(" or ".join(f"--set {key}={size}" for size in fitting) or f"another {key}")
    fits = (
        f"Sizes that fit: {', and '.join(sizes)}." if not small else "Choose another small_size, or small_epochs = 0."
    )
    raise ConfigError(
        f"{small}backbone = '{name}' never sees {' and '.join(edges)} at the edges of photos of {height} x {width}"
        + (f": its patches of {patch[0]} x {patch[1]} do not divide them" if patch else "")
        + f". {fits}"
    )


def _with(recipe: Recipe) -> str:
    """The active settings that not every backbone supports, as text."""
    keys = ("pooling", "drop_rate", "drop_path_rate", "small_epochs", "checkpointing")
    settings = [f"{key} = {getattr(recipe, key)}" for key in keys if getattr(recipe, key)]
    return f" with {', '.join(settings)}" if settings else ""


def preprocess_of(recipe: Recipe) -> Preprocess:
    """The recipe's geometry with the mean and std that the backbone's weights were trained with."""
    config = timm.get_pretrained_cfg(recipe.backbone, allow_unregistered=False)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if config is None else (config.mean, config.std)
    return Preprocess(recipe.geometry, tuple(mean), tuple(std))  # type: ignore[arg-type]  # of three each


def load_state(recipe: Recipe, model: nn.Module | None = None) -> State:
    """A recipe's initial weights without the head: timm's names -> tensors; empty for random weights.

    Args:
        recipe: recipe with the backbone and its weights.
        model: the recipe's network, if it has been built already.

    Raises:
        WeightsError: they cannot be obtained, or do not fit the backbone; says what to do.
    """
    if recipe.weights == "none":
        return {}
    if model is None:
        model = create(recipe.backbone, 2, recipe)
    names = list(model.state_dict())
    if recipe.weights == "hub":
        state = from_hub(recipe.backbone, _size(recipe.backbone, recipe))
    elif recipe.weights == "packaged":
        state = from_package(recipe.backbone, names)
    else:
        state = read_weights(Path(recipe.weights), [key for key in names if not _is_head(model, key)])
    _fit(model, state, recipe.weights)
    _check_numbers(state, recipe.weights)
    return {key: tensor.contiguous() for key, tensor in state.items() if not _is_head(model, key)}


def keep_weights(backbone: str, state: State, cache: Path) -> InitialWeights:
    """Writes the state of `load_state` to the cache, once per content; every member of a run starts from this file.

    Raises:
        StoreError: the disk is full.
    """
    if not state:
        return InitialWeights(None, "")
    path = cache / f"{backbone}-{_digest(state)}.safetensors"
    if not _holds(path, state):
        if os.path.lexists(path):
            remove_own_file(path)
        with atomic(path) as temporary:
            save_file(unshared(state), temporary)
    return InitialWeights(path, sha256_of(path))


def _holds(path: Path, state: State) -> bool:
    """Whether a file in the cache holds these tensors: later runs would start from a damaged one."""
    try:
        return path.is_file() and _digest(load_file(path)) == _digest(state)
    except (SafetensorError, OSError):
        return False


def create(
    backbone: str,
    outputs: int,
    recipe: Recipe | None = None,
    weights: InitialWeights | None = None,
    geometry: Geometry | None = None,
    pooling: str = "",
) -> nn.Module:
    """A network with `outputs` outputs.

    Args:
        backbone: a timm model name.
        outputs: number of outputs.
        recipe: recipe with drop rates, pooling and input size; None for a network that only predicts.
        weights: initial weights of the body; the head starts random.
        geometry: input size, if there is no recipe.
        pooling: pooling as in a recipe, if there is no recipe.
    """
    options: dict[str, Any] = {"pretrained": False, "num_classes": outputs, **_size(backbone, geometry or recipe)}
    if recipe is not None:  # only what is set: not every architecture supports both
        rates = {"drop_rate": recipe.drop_rate, "drop_path_rate": recipe.drop_path_rate}
        options |= {name: rate for name, rate in rates.items() if rate}
        pooling = recipe.pooling
    if pooling:
        options["global_pool"] = pooling
    model: Any = timm.create_model(backbone, **options)
    if recipe is not None and recipe.checkpointing:
        model.set_grad_checkpointing(True)
    _calm_head(model)
    if weights is not None and weights.path is not None:
        model.load_state_dict(load_file(weights.path), strict=False)  # fitted in load_state
    return arranged(model)


def freeze_stages(model: Any, stages: int) -> list[nn.Module]:
    """Keeps the first stages as they are: no gradients, and norms that stay in evaluation mode.

    On a CPU this pays: the first stages have the largest maps, so freezing four of nine stages of EfficientNet-Lite0
    trains 1.9 times as many photos a second (docs/experiments.md).

    Returns:
        The modules to keep in evaluation mode while training.

    Raises:
        ConfigError: the backbone has fewer stages, or timm knows none for it.
    """
    if stages == 0:
        return []
    groups: Mapping[int, list[str]] = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    names = sorted(groups)
    if stages >= len(names):
        raise ConfigError(
            f"frozen_stages = {stages}; this backbone has {len(names)} stages, so at most {len(names) - 1}."
        )
    frozen = {parameter for name in names[:stages] for parameter in groups[name]}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return [
        module
        for module in model.modules()
        if (parameters := list(module.parameters(recurse=False)))
        and not any(parameter.requires_grad for parameter in parameters)
    ]


def only_head(model: Any) -> nn.Module:
    """Freezes all of a network but its classifier, and returns that."""
    (head,) = heads_of(model)
    model.requires_grad_(False)
    head.requires_grad_(True)
    return head


def heads_of(model: Any) -> list[nn.Module]:
    """The network's classifiers: one, or two for a distilled one."""
    classifier = model.get_classifier()
    return list(classifier) if isinstance(classifier, tuple) else [classifier]


def _size(backbone: str, size: Geometry | Recipe | None) -> dict[str, Any]:
    """The input size, for architectures that are built for one (transformers with position embeddings)."""
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=False)
    if size is None or config is None or not config.fixed_input_size:
        return {}
    return {"img_size": (size.height, size.width)}


def _calm_head(model: nn.Module) -> None:
    """Starts the head near zero, so that the first answers are even.

    timm draws EfficientNet's head from +-1 / sqrt(outputs): with 3 outputs on 1,280 features the first losses are 3 to 5
    instead of log(3) = 1.1, and their gradients disturb the pretrained body.
    """
    for module in (module for head in heads_of(model) for module in head.modules()):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _is_head(model: Any, key: str) -> bool:
    names = model.pretrained_cfg["classifier"]
    heads = (names,) if isinstance(names, str) else tuple(names or ())
    return any(key.startswith(f"{head}.") for head in heads)


def _fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuses weights that lack a tensor of the body, contain unknown ones, or differ in shape."""
    expected = {key: value for key, value in model.state_dict().items() if not _is_head(model, key)}
    body = {key: value for key, value in state.items() if not _is_head(model, key)}
    differences = [
        f"{key} is missing" for key in expected if key not in body and not key.endswith("num_batches_tracked")
    ]
    differences += [f"{key} is not in the backbone" for key in body if key not in expected]
    differences += [
        f"{key} has shape {tuple(body[key].shape)}, the backbone {tuple(expected[key].shape)}"
        for key in expected
        if key in body and body[key].shape != expected[key].shape
    ]
    if differences:
        raise WeightsError(
            f"weights = '{source}' do not fit the backbone: {'; '.join(differences[:3])}"
            + (f"; and {len(differences) - 3} more differences" if len(differences) > 3 else "")
            + ". Give the weights of exactly this timm model, or another backbone."
        )


def _check_numbers(state: Mapping[str, Tensor], source: str) -> None:
    """Refuses infinite and NaN weights, which training would spread through the network."""
    not_finite = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if not_finite:
        raise WeightsError(
            f"weights = '{source}': {quantity(len(not_finite), 'tensor')} of them ({not_finite[0]} first) hold infinite or NaN "
            "values: the training that wrote them went wrong. Use other weights."
        )


def _digest(state: Mapping[str, Tensor]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

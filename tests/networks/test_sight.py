"""Which pixels a backbone sees: all of them, or it is refused before a training."""

import pytest
import torch
from torch import nn

from orchestrator.core.errors import ConfigError
from orchestrator.data.geometry import Geometry
from orchestrator.networks.backbones import check_backbone, create
from orchestrator.networks.sight import Blind, blind_edges, patch_of
from orchestrator.recipes.load import load_recipes
from orchestrator.recipes.schema import Recipe
from orchestrator.specialists import SPECIALISTS


def recipe(backbone: str, height: int, width: int) -> Recipe:
    changes = {"backbone": backbone, "height": height, "width": width, "weights": "none", "frozen_stages": 0}
    return load_recipes(SPECIALISTS, ["quick"])["age"].model_copy(update=changes | {"drop_rate": 0.0})


class Window(nn.Module):
    """Sees some rows and columns only, through a gate that begins closed."""

    def __init__(self, top: int, bottom: int, left: int, right: int) -> None:
        super().__init__()
        self.seen = (slice(top, bottom), slice(left, right))
        self.gate = nn.Parameter(torch.zeros(3))

    def forward_features(self, photos: torch.Tensor) -> torch.Tensor:
        return (photos[:, :, *self.seen].mean(dim=(2, 3)) * self.gate).sum(dim=1, keepdim=True)


@pytest.mark.parametrize(("window", "blind"), [
    ((0, 60, 0, 40), Blind(0, 0, 0, 0)), ((0, 48, 0, 32), Blind(0, 12, 0, 8)), ((7, 60, 30, 40), Blind(7, 0, 30, 0)),
    ((0, 57, 3, 40), Blind(0, 0, 0, 0)), ((0, 56, 4, 40), Blind(0, 4, 4, 0)), ((59, 60, 39, 40), Blind(59, 0, 39, 0)),
])  # fmt: skip
def test_unseen_edges_are_counted(window: tuple[int, int, int, int], blind: Blind) -> None:
    assert blind_edges(Window(*window), 60, 40) == blind
    assert blind.matters == (max(vars(blind).values()) > 3)


CONVOLUTIONS = [
    "tf_efficientnet_lite0", "test_efficientnet", "test_resnet", "resnet18", "mobilenetv3_small_050", "regnety_002",
    "convnext_atto", "ghostnet_050", "inception_v3", "densenet121", "nf_regnet_b0",
]  # fmt: skip


@pytest.mark.parametrize("backbone", CONVOLUTIONS)
def test_convolutions_see_photos_of_any_size(backbone: str) -> None:
    check_backbone(recipe(backbone, 101, 75))


@pytest.mark.parametrize(("backbone", "height", "width", "message"), [
    ("vit_small_patch32_224", 112, 84,
     "never sees 16 rows and 20 columns at the edges of photos of 112 x 84: its patches of 32 x 32 do "
     "not divide them. Sizes that fit: --set height=96 or --set height=128, and --set width=64 or --set width=96."),
    ("mixer_s32_224", 112, 84, "16 rows and 20 columns"),
    ("vit_tiny_patch16_224", 128, 90,
     "never sees 10 columns at the edges of photos of 128 x 90: its patches of 16 x 16 do not divide "
     "them. Sizes that fit: --set width=80 or --set width=96."),
    ("deit_tiny_distilled_patch16_224", 101, 80, "5 rows"),
])  # fmt: skip
def test_patches_that_do_not_divide_a_photo_are_refused_with_sizes_that_fit(
    backbone: str, height: int, width: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_backbone(recipe(backbone, height, width))
    assert message in str(caught.value)
    seen = blind_edges(create(backbone, 2, geometry=Geometry(128, 96)), 128, 96)
    assert seen == Blind(0, 0, 0, 0)
    check_backbone(recipe(backbone, 128, 96))


def test_small_photos_of_the_first_epochs_are_seen_whole_too() -> None:
    """Behind 20 blocks answers in float32 are equal whatever stands in the last 50 columns; features are not."""
    sized = recipe("convmixer_1024_20_ks9_p14", 112, 112)
    check_backbone(sized)
    with pytest.raises(
        ConfigError, match=r"small_size = 0.6: .* 11 rows and 11 columns at the edges of photos of 67 x 67"
    ):
        check_backbone(sized.model_copy(update={"small_epochs": 1, "small_size": 0.6}))


def test_patches_are_found_where_timm_tells_them() -> None:
    assert patch_of(create("vit_tiny_patch16_224", 2)) == (16, 16)
    assert patch_of(create("test_resnet", 2)) is None


def test_looking_draws_from_no_other_random_stream() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    from orchestrator.networks import backbones

    backbones._seen.cache_clear()
    backbones._seen("test_resnet", (64, 48), (64, 48))
    assert torch.equal(torch.rand(3), wanted)

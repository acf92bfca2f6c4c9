"""Hints name what was nearly meant."""

import pytest

from orchestrator.core.errors import nearest


@pytest.mark.parametrize(("word", "allowed", "told"), [
    ("vit_base", ["gcvit_base", "vit_base_patch16_224", "mvitv2_base"], "vit_base_patch16_224"),
    ("resnet-18", ["resnet18d", "resnet18", "skresnet18"], "resnet18"),
    ("efficientnetb0", ["efficientnet_b8", "efficientnet_b0"], "efficientnet_b0"),
    ("qick", ["quick", "standard"], "quick"),
    ("LR", ["lr", "lr_factor"], "lr"),
    ("vertical", ["lr", "epochs"], ""),
])  # fmt: skip
def test_hints_are_near(word: str, allowed: list[str], told: str) -> None:
    assert nearest(word, allowed) == (f" Did you mean '{told}'?" if told else "")

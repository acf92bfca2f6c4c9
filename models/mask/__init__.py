"""Mask: worn, worn incorrectly, not worn."""

from pathlib import Path

from orchestrator.core.labels import CLASSES
from orchestrator.specialist import Specialist

from .label import mask_class
from .transforms import AUGMENT, GEOMETRY, KEEPS, KEEPS_OF_FACE

__all__ = ["SPECIALIST"]

SPECIALIST = Specialist(
    name="mask",
    classes=CLASSES["mask"],
    columns=("mask",),
    label=mask_class,
    recipes=Path(__file__).parent / "recipes",
    defaults={"sampling": "per_photo", "augment": AUGMENT, **GEOMETRY},
    keeps=KEEPS,
    keeps_of_face=KEEPS_OF_FACE,
)

"""Age bands: under 30, 30 to 59, 60 and over."""

from pathlib import Path

from orchestrator.core.labels import CLASSES
from orchestrator.specialist import Specialist

from .label import SCALE, age_band
from .transforms import AUGMENT, GEOMETRY

__all__ = ["SPECIALIST"]

SPECIALIST = Specialist(
    name="age",
    classes=CLASSES["age"],
    columns=("age",),
    label=age_band,
    recipes=Path(__file__).parent / "recipes",
    defaults={"sampling": "per_person", "draw_by": "mask", "augment": AUGMENT, **GEOMETRY},
    scale=SCALE,
)

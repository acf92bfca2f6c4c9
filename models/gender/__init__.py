"""Gender: male, female, as the contest's table has it."""

from pathlib import Path

from orchestrator.core.labels import CLASSES
from orchestrator.specialist import Specialist

from .label import gender_class
from .transforms import AUGMENT, GEOMETRY

__all__ = ["SPECIALIST"]

SPECIALIST = Specialist(
    name="gender",
    classes=CLASSES["gender"],
    columns=("gender",),
    label=gender_class,
    recipes=Path(__file__).parent / "recipes",
    defaults={"sampling": "per_person", "draw_by": "mask", "augment": AUGMENT, **GEOMETRY},
)

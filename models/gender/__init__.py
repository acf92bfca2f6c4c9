"""Gender: male, female, as the contest's table has it."""

from pathlib import Path

from models.gender.label import gender_class
from models.gender.transforms import AUGMENT, GEOMETRY
from orchestrator.core.labels import CLASSES
from orchestrator.specialist import Specialist

__all__ = ["SPECIALIST"]

SPECIALIST = Specialist(
    name="gender",
    classes=CLASSES["gender"],
    columns=("gender",),
    label=gender_class,
    recipes=Path(__file__).parent / "recipes",
    defaults={"sampling": "per_person", "draw_by": "mask", "augment": AUGMENT, **GEOMETRY},
)

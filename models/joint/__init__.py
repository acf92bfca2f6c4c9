"""One network for all three tasks: a shared backbone and a head for each task; it votes with the specialists."""

from pathlib import Path

from orchestrator.core.labels import CLASSES, JOINT, TASKS
from orchestrator.specialist import Specialist

from .label import label_of
from .transforms import AUGMENT, GEOMETRY, KEEPS, KEEPS_OF_FACE

__all__ = ["SPECIALIST"]

SPECIALIST = Specialist(
    name=JOINT,
    classes=CLASSES[JOINT],
    columns=TASKS,
    label=label_of,
    recipes=Path(__file__).parent / "recipes",
    defaults={"sampling": "per_photo", "augment": AUGMENT, **GEOMETRY},
    keeps=KEEPS,
    keeps_of_face=KEEPS_OF_FACE,
    parts=tuple(len(CLASSES[task]) for task in TASKS),
)

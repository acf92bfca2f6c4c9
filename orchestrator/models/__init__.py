"""Where the specialists' folders are: beside the package in a checkout (`models/`), inside it where a wheel was installed.

An installed copy must not put a package `models` into everybody's way: the name is the most generic of all, and a folder of that
name where somebody works would hide it. So the specialists are imported as `orchestrator.models.TASK`, wherever they lie.
"""

from pathlib import Path

__all__: list[str] = []

_here = Path(__file__).parent
if not (_here / "age").is_dir():
    __path__.append(str(_here.parents[1] / "models"))

"""Where the specialists' folders are: next to the package in a checkout (`models/`), inside it in an installed wheel.

A wheel must not install a top-level package `models`: the name is so generic that it would clash with others, and a
folder of that name in the current folder would hide it. So specialists are imported as `orchestrator.models.TASK`.
"""

from pathlib import Path

__all__: list[str] = []

_here = Path(__file__).parent
if not (_here / "age").is_dir():
    __path__.append(str(_here.parents[1] / "models"))

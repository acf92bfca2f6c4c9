"""Commands as they are printed for people to paste: whole, and quoted for a shell.

Whatever tells somebody to run `orch` asks this module for the words, so that no command that is printed can work on another
workspace than the one that it is about, or break on a blank in a path.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = [
    "DEFAULT_WORKSPACE",
    "DISTRIBUTION",
    "WORKSPACE_VARIABLE",
    "data_words",
    "extra_hint",
    "orch",
    "set_aside",
    "shown",
]

DISTRIBUTION = "specialist-ensemble"
"""What pip calls this package; `orchestrator` is somebody else's there."""

DEFAULT_WORKSPACE = Path("runs")
WORKSPACE_VARIABLE = "ORCH_WORKSPACE"
"""Names another default, for all commands of a shell."""


def orch(*words: object, workspace: Path | None = None) -> str:
    """A command line of `orch` that works when it is pasted.

    Args:
        words: what follows `orch`: commands, options and their values, unquoted. What people fill in stands in capitals: `DIR`.
        workspace: what the command is about; left out of the line where the command would take it by itself. None: the command
            has no workspace.
    """
    parts = ["orch", *map(str, words)]
    if workspace is not None and workspace != Path(os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_WORKSPACE):
        parts += ["--workspace", str(workspace)]
    return shlex.join(parts)


def set_aside(path: Path) -> str:
    """A shell command that takes a damaged file or folder out of the way and loses nothing."""
    return shlex.join(["mv", str(path), f"{path}.damaged"])


def shown(path: Path) -> str:
    """A path as it is printed in a command: relative to this folder where it lies below it, absolute elsewhere."""
    here, whole = Path.cwd(), path.absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def data_words(
    source: Path, columns: Mapping[str, str] | None = None, distinct: bool = False, extra: Sequence[Path] = ()
) -> list[str]:
    """The options that name a data source in a printed command; as `--data`, `--columns` (our name -> theirs) and the like."""
    words = ["--data", shown(source)]
    words += [word for ours, theirs in (columns or {}).items() for word in ("--columns", f"{ours}={theirs}")]
    words += ["--distinct-people"] if distinct else []
    return words + [word for table in extra for word in ("--extra", shown(table))]


def extra_hint(extra: str) -> str:
    """How to install an optional extra of this package, by how the package itself was installed: as a checkout or as a wheel."""
    return (
        f"pip install '{DISTRIBUTION}[{extra}]'" if _is_installed() else f"pip install -e '.[{extra}]' in {_checkout()}"
    )


def _checkout() -> Path:
    return Path(__file__).parents[2]


def _is_installed() -> bool:
    """Whether this is a wheel's copy: in a checkout the project's file stands beside the package."""
    return not (_checkout() / "pyproject.toml").is_file()

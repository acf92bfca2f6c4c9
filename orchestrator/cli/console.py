"""Where words go: results to stdout, talk to stderr, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["counting", "emit", "grid", "out", "print_stages", "say", "share", "talk", "warn"]


def say(text: str) -> None:
    """A line of talk, to stderr."""
    typer.echo(text, err=True)


def warn(text: str) -> None:
    """An error, to stderr, marked where the terminal can."""
    typer.secho("error: ", err=True, nl=False, fg=typer.colors.RED, bold=True)
    typer.echo(text, err=True)


def emit(value: Any) -> None:
    """A JSON value, to stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def out() -> Console:
    """The console of results, stdout. Wide when it is no terminal, so that tables are never cut."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def talk() -> Console:
    """The console of talk and progress, stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def grid(title: str, *columns: str) -> Table:
    """A plain table: the first column left, the others right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    class Plain(Table):
        """A table whose words are printed as they are: a file may be called `IMG[copy].jpg`."""

        def add_row(self, *cells: Any, style: Any = None, end_section: bool = False) -> None:
            words = [Text(cell) if isinstance(cell, str) else cell for cell in cells]
            super().add_row(*words, style=style, end_section=end_section)

    table = Plain(
        title=Text(title, style="bold") if title else None, title_justify="left", title_style="",
        min_width=min(len(title), 80), box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def share(value: float) -> str:
    """A score with four digits."""
    return "-" if value != value else f"{value:.4f}"


def print_stages(title: str, by_name: Mapping[str, Mapping[str, float]], where: Console | None = None) -> None:
    """A table of seconds by stage, with each stage's share; one column per name. To stdout, or to `where`."""
    table = grid(title, "stage", *by_name)
    for stage in dict.fromkeys(stage for stages in by_name.values() for stage in stages):
        cells = []
        for stages in by_name.values():
            seconds, total = stages.get(stage, 0.0), sum(stages.values())
            cells.append(f"{seconds:,.1f}  {100 * seconds / total:3.0f} %" if stage in stages and total else "")
        table.add_row(stage, *cells)
    (where or out()).print(table)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that shows count, rate and time left; nothing when it is no terminal.

    Yields:
        A function of (done, all).
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second, once that is known."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "", style="dim")

    console = talk()
    columns = (SpinnerColumn(), TextColumn(what), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""Commands that are imported only when used, so that `--help` and a mistyped word are fast."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from orchestrator.cli.endings import InterruptError
from orchestrator.core.errors import nearest

__all__ = ["Entry", "LazyGroup"]


@dataclass(frozen=True)
class Entry:
    """A command, or a group of them, as the list of commands shows it.

    Attributes:
        name: the word that is typed; also the default name of its module and function.
        panel: its heading in `--help`.
        about: the first sentence of its help.
        module: its module in `orchestrator.cli`.
        attribute: the module's function or typer.Typer.
    """

    name: str
    panel: str
    about: str
    module: str = ""
    attribute: str = ""

    def load(self) -> Any:
        """Imports the command's module, and returns its click command."""
        target = getattr(
            importlib.import_module(f"orchestrator.cli.{self.module or self.name}"), self.attribute or self.name
        )
        if isinstance(target, typer.Typer):
            group = typer.main.get_group(target)
            group.name = self.name
            group.rich_help_panel = self.panel
            for command in group.commands.values():
                command.help = _flowing(command.help)
            return group
        app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
        app.command(self.name, rich_help_panel=self.panel)(target)
        command = typer.main.get_command(app)
        command.help = _flowing(command.help)
        return command


def _flowing(text: str | None) -> str:
    """A docstring without the source's line breaks in its paragraphs; examples stay as they are."""
    parts = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else part.replace("\n", " ") for part in parts)


class _Loading(MutableMapping[str, Any]):
    """Commands by name, each imported when it is taken."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries, self._loaded = {entry.name: entry for entry in entries}, dict[str, Any]()

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._entries[name].load()
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class LazyGroup(TyperGroup):
    """The group of all commands, from a table of them."""

    entries: ClassVar[Sequence[Entry]] = ()

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "commands": {}})
        self.commands = _Loading(self.entries)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (Typer passes it)
        """The names, in the table's order."""
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands by their entries, without importing them."""
        commands, self.commands = self.commands, {}
        for entry in self.entries:
            stub = TyperCommand(entry.name, help=entry.about, rich_help_panel=entry.panel, callback=None)
            self.commands[entry.name] = stub
        try:
            super().format_help(ctx, formatter)
        finally:
            self.commands = commands

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names.

        Raises:
            UsageError: there is none; the nearest is suggested.
        """
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'.{nearest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; Ctrl-C and an end of input pass through Typer, which would end them with words of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise InterruptError from stop
        except EOFError as error:  # Typer takes a file that ends too soon for an end of input
            raise OSError(f"a file ends before what it should hold ({error})") from error

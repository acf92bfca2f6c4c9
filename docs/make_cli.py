"""Prints docs/cli.md from the commands themselves; a test keeps the file equal to what this prints."""

from __future__ import annotations

import inspect
import sys

import typer

from orchestrator.cli.app import app


def main() -> None:
    """Prints every command's help as Markdown."""
    command = typer.main.get_command(app)
    write = sys.stdout.write
    write("# Commands\n\nMade by `make docs` from the commands' own help; `orch COMMAND --help` prints the same.\n")
    for name, subcommand in _commands("orch", command):
        write(f"\n## `{name}`\n\n")
        text = inspect.cleandoc(subcommand.help or "")
        story, _, examples = text.partition("\b\n")
        write(story.strip() + "\n\n")
        if examples:
            lines = examples.removeprefix("Examples:\n")
            write("```bash\n" + inspect.cleandoc(lines) + "\n```\n\n")
        write("| option | meaning | default |\n|---|---|---|\n")
        for parameter in subcommand.params:
            if parameter.name in ("help", "install_completion", "show_completion"):
                continue
            words = (
                " ".join(f"`{word}`" for word in parameter.opts)
                if parameter.param_type_name == "option"
                else f"`{parameter.name.upper()}`"
            )
            default = "required" if parameter.required else _shown(parameter.default)
            write(f"| {words} | {(getattr(parameter, 'help', '') or '').replace('|', '/')} | {default} |\n")


def _commands(prefix: str, command: object) -> list[tuple[str, object]]:
    """Every command that does something, in the order of registration."""
    commands: list[tuple[str, object]] = []
    for name, subcommand in command.commands.items():
        if hasattr(subcommand, "commands"):
            commands += _commands(f"{prefix} {name}", subcommand)
        else:
            commands.append((f"{prefix} {name}", subcommand))
    return commands


def _shown(default: object) -> str:
    if default is None or default is False or default == [] or default == () or callable(default):
        return ""
    return f"`{default}`"


if __name__ == "__main__":
    main()

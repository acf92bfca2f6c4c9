"""Commands as they are printed."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from orchestrator.cli.app import ENTRIES
from orchestrator.commands import orch, set_aside
from tests.conftest import ROOT


def test_a_command_names_its_workspace_unless_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORCH_WORKSPACE", raising=False)
    assert orch("runs", "list", workspace=Path("runs")) == "orch runs list"
    assert orch("runs", "list", workspace=Path("other place")) == "orch runs list --workspace 'other place'"
    monkeypatch.setenv("ORCH_WORKSPACE", "other place")
    assert orch("runs", "list", workspace=Path("other place")) == "orch runs list"
    assert orch("runs", "list", workspace=Path("runs")) == "orch runs list --workspace runs"


@pytest.mark.parametrize("word", ["a b", "it's", '"', "$HOME", "a;b", "한국", "views=['flip']", "<30", "", "-"])
def test_a_shell_reads_back_every_word(word: str) -> None:
    assert shlex.split(orch("train", "age", "--set", word)) == ["orch", "train", "age", "--set", word]
    assert shlex.split(set_aside(Path("/tmp") / word / "x"))[1] == str(Path("/tmp") / word / "x")


def literal_commands(path: Path) -> list[str]:
    """Where a module spells a command out in a string that is printed: docstrings and the help of options are none."""
    tree = ast.parse(path.read_text())
    silent: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr):
            silent.add(node.body[0].value)
        if isinstance(node, ast.Expr) and isinstance(
            node.value, ast.Constant
        ):  # what follows a constant and explains it
            silent.add(node.value)
        if isinstance(node, ast.keyword) and node.arg == "help":
            silent.update(ast.walk(node.value))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Entry":
            silent.update(ast.walk(node))
    names = "|".join(entry.name for entry in ENTRIES)
    spelt = re.compile(rf"\borch ({names})\b")
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.strip()}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in silent
        if spelt.search(node.value)
    ]


def test_commands_that_are_printed_come_from_one_function() -> None:
    sources = [path for path in sorted((ROOT / "orchestrator").rglob("*.py")) if path.name != "commands.py"]
    assert len(sources) > 100
    found = [line for path in sources for line in literal_commands(path)]
    assert not found, "\n" + "\n".join(found)

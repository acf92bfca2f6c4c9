"""Commands as they are printed."""

import shlex
from pathlib import Path

import pytest

from orchestrator.commands import orch, set_aside


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

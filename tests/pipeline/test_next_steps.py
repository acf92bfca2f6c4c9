"""What to do with a run next is found out without reading the data more often than it takes."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.workspace import Workspace
from orchestrator.data import readers
from orchestrator.pipeline.next_steps import after_training
from orchestrator.specialists import TRAINABLE


def test_the_table_is_read_once_for_all_specialists_that_are_missing(
    people: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in ("gender", "mask"):
        (workspace / "current" / f"{task}.json").unlink()
    real, read = readers.read, list[Path]()

    def counted(source: Path, *more: Any, **named: Any) -> Any:
        read.append(source)
        return real(source, *more, **named)

    monkeypatch.setattr(readers, "read", counted)
    step = after_training(Workspace(workspace).run("age-0001"), TRAINABLE)
    assert "train-all" in step
    assert "--tasks mask,gender" in step
    assert read == [people / "train"]

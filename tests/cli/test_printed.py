"""Commands that are printed are pasted: each is run as it stands, in a workspace with blanks in its name."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done, tiny

Orch = Callable[..., Done]

PRINTED = re.compile(r"`(orch [^`\n]+)`|(?:^|[ (])(orch [a-z][^`\n]*?)(?=   or   |[.;)]?$)", re.MULTILINE)
PLACEHOLDER = re.compile(r"^[A-Z_.,=\[\] ]+$")
CALLED = re.compile(
    r"orch [a-z]+(-[a-z]+)*( (list|show|use|note|compare|track|delete|check|describe|folds|synth|diff|lint|copy))?"
)


def printed_by(done: Done) -> list[list[str]]:
    """The words of every whole command in a command's output; those with something to fill in aside."""
    found = []
    for match in PRINTED.finditer(f"{done.out}\n{done.err}"):
        line = (match[1] or match[2]).strip()
        if CALLED.fullmatch(line):  # a command that is named, and no line of words
            continue
        words = shlex.split(line)[1:]
        if not any(PLACEHOLDER.match(word) for word in words):
            found.append(words)
    return found


def test_what_is_printed_works_as_it_stands(
    orch: Orch, people: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCH_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    place = Path("my runs & more")
    shutil.copytree(trained, place)
    data = Path("my people")
    shutil.copytree(people, data)
    mine = Path("my recipe.toml")
    tour: list[tuple[list[object], int]] = [
        (["runs", "list", "-w", place, "--where", "lrr=1"], 2),
        (["train", "age", "--data", data / "train", "-w", place, "--jobs", 1, *tiny("epochs=1"), "--seed", 1], 0),
        (["train", "age", "--data", data / "train", "-w", place, "--jobs", 1, *tiny("epochs=1"), "--seed", 1], 0),
        (["ensemble", "-w", place], 0),
        (["runs", "compare", "age-0001", "-w", place], 2),
        (["runs", "use", "age-0001", "-w", place], 0),
        (["recipes", "copy", "age", "quick", mine], 0),
        (["runs", "delete", "age-0001", "-y", "-w", place], 2),
    ]
    ran = []
    for words, code in tour:
        done = orch(*words)
        assert done.code == code, done.err
        for printed in printed_by(done):
            line = [*printed, "--yes"] if "delete" in printed[:2] else printed
            again = orch(*line)
            assert again.code == 0, f"{shlex.join(['orch', *line])}\n{again.err}"
            ran.append(line)
    assert len(ran) >= 5, ran
    assert sum("my runs & more" in word for line in ran for word in line) >= 4
    assert not Path("runs").exists()  # no command fell back on the default workspace

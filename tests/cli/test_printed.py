"""Commands that are printed are pasted: each is run as it stands, in a workspace with blanks in its name."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Done, tiny

Orch = Callable[..., Done]

PRINTED = re.compile(r"`(orch [^`\n]+)`|(?:^|[ (])(orch [a-z][^`\n]*?)(?=   or   |[.;)]?$)", re.MULTILINE)
PLACEHOLDER = re.compile(r"^[A-Z_.,=\[\] ]+$")
CALLED = re.compile(
    r"orch [a-z]+(-[a-z]+)*( (list|show|use|note|compare|track|delete|check|describe|folds|synth|diff|lint|copy))?"
)


FILLED = {
    "TASK": "age",
    "PHOTOS": "my people/eval/images",
    "--data DIR": "my people/train",
    "--eval DIR": "my people/eval",
}
"""What a reader fills in."""

MORE = {
    "delete": ["--yes"], "cascade": ["--rate", "0.2"], "pseudo": ["--threshold", "0.5"],
    "train": ["--jobs", "1"], "train-all": ["--jobs", "1"], "resume": ["--jobs", "1"],
}  # fmt: skip
"""Command -> what makes it run by itself, on a few photos and cores."""


def printed_by(done: Done) -> list[list[str]]:
    """The words of every whole command in a command's output, filled in; those aside that ask for more than FILLED has."""
    commands = []
    for match in PRINTED.finditer(f"{done.out}\n{done.err}"):
        line = (match[1] or match[2]).strip()
        if CALLED.fullmatch(line):  # a command that is named, and no line of words
            continue
        bare = shlex.split(line)[1:]
        words = [
            FILLED.get(word) or FILLED.get(f"{before} {word}") or word for before, word in pairwise(["orch", *bare])
        ]
        if not any(PLACEHOLDER.match(word) for word in words):
            commands.append(words)
    return commands


def test_what_is_printed_works_as_it_stands(
    orch: Orch, people: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCH_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    workspace = Path("my runs & more")
    shutil.copytree(trained, workspace)
    data = Path("my people")
    shutil.copytree(people, data)
    mine = Path("my recipe.toml")
    images, labels, space = data / "eval/images", Path("my labels.parquet"), Path("my space.toml")
    space.write_text("lr = [1e-3, 3e-3]\n")
    training = ["--data", data / "train", "-w", workspace, "--jobs", 1]
    quick = [*training, *tiny("epochs=1")]
    tour: list[tuple[list[object], int]] = [
        (["runs", "list", "-w", workspace, "--where", "lrr=1"], 2),
        (["train", "age", *quick, "--seed", 1], 0),
        (["train", "age", *quick, "--seed", 1], 0),
        (["ensemble", "-w", workspace], 0),
        (["runs", "compare", "age-0001", "-w", workspace], 2),
        (["runs", "use", "age-0001", "-w", workspace], 0),
        (["recipes", "copy", "age", "quick", mine], 0),
        (["predict", "-w", workspace], 2),
        (["predict", images, "--cascade", "-w", workspace], 0),
        (["cascade", "-w", workspace], 2),
        (["cascade", images, "--rate", 0.2, "-w", workspace], 0),
        (["tta", "age-0001", "--views", "flip", "--keep", "-w", workspace], 0),
        (["pseudo", "--out", labels, "-w", workspace], 2),
        (["pseudo", images, "--out", labels, "--threshold", 0.5, "-w", workspace], 0),
        (["train", "age", *quick, "--extra", labels, "--seed", 2, "--valid-only"], 0),
        (["sweep", "age", *quick, "--space", space, "--trials", 2, "--folds", 3, "--folds-used", 1], 0),
        (["runs", "delete", "age-0001", "-y", "-w", workspace], 2),
    ]
    if importlib.util.find_spec("optuna") is None:
        tour = [(words, code) for words, code in tour if words[0] != "sweep"]
    ran = []
    for words, code in tour:
        done = orch(*words)
        assert done.code == code, done.err
        for printed in printed_by(done):
            if words[0] == "recipes":  # what it prints trains a recipe of full size, in a workspace of its own
                continue
            name = "delete" if "delete" in printed[:2] else printed[0]
            line = [*printed, *MORE.get(name, [])]
            again = orch(*line)
            assert again.code == 0, f"{shlex.join(['orch', *line])}\n{again.err}"
            ran.append(line)
    assert len(ran) >= 20, ran
    assert {line[0] for line in ran} >= {"train", "ensemble", "ensembles", "predict", "cascade", "pseudo", "runs"}
    assert sum("my runs & more" in word for line in ran for word in line) >= 18
    assert any("--extra" in line for line in ran)
    assert not Path("runs").exists()  # no command fell back on the default workspace

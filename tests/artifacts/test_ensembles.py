"""An ensemble that has lost its record or a table is told with the command that makes it again."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Done

Orch = Callable[..., Done]


def test_an_ensemble_whose_record_is_lost_is_made_again_with_its_tables(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path
) -> None:
    assert orch("ensemble", "-w", workspace).code == 0
    answers = tmp_path / "a b.parquet"
    photos = people / "eval/images"
    assert orch("predict", photos, "--probabilities", answers, "--strategy", "hard", "-w", workspace).code == 0
    assert orch("ensemble", "--with", answers, "-w", workspace).code == 0
    before = json.loads(orch("predict", photos, "--json", "-w", workspace).out)
    (workspace / "soft-0002/ensemble.json").write_text("{")
    done = orch("predict", photos, "--ensemble", "soft-0002", "-w", workspace)
    aside, make = re.findall(r"`((?:mv|orch ensemble) [^`]+)`", done.err)
    subprocess.run(shlex.split(aside), check=True)
    assert orch(*shlex.split(make)[1:]).code == 0
    after = json.loads(orch("predict", photos, "--json", "-w", workspace).out)
    assert [one["probabilities"] for one in after] == [one["probabilities"] for one in before]


@pytest.mark.parametrize("left", ["source", "nothing"])
def test_a_lost_table_is_told_with_a_command_that_works(
    orch: Orch, people: Path, workspace: Path, tmp_path: Path, left: str
) -> None:
    """Where nothing is left of it, the ensemble without it is offered, and called another one."""
    info = pd.read_csv(people / "eval/info.csv").assign(ans=3)
    for name in ("old 1", "old 2"):
        info.assign(ans=3 if name == "old 1" else 5).to_csv(tmp_path / f"{name}.csv", index=False)
    tables = ("--with", tmp_path / "old 1.csv", "--with", tmp_path / "old 2.csv")
    assert orch("ensemble", *tables, "-w", workspace).code == 0
    (workspace / "soft-0001/external-1.parquet").unlink()
    if left == "nothing":
        (tmp_path / "old 1.csv").unlink()
        (tmp_path / "old 2.csv").unlink()  # its copy is whole
    done = orch("predict", people / "eval/images", "-w", workspace)
    assert done.code == 2
    (again,) = re.findall(r"build it again: `(orch ensemble[^`]+)`", done.err)
    assert ("without old 1.csv, of which no copy is left" in done.err) is (left == "nothing")
    built = orch(*shlex.split(again)[1:], "--json")
    assert built.code == 0, built.err
    assert len(json.loads(built.out)["external"]) == (2 if left == "source" else 1)

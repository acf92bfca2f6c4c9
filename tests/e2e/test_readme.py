"""The README's tour, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.cli.app import ENTRIES
from tests.conftest import ROOT


def tour() -> str:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "orch data synth" in block]
    return str(block)


@pytest.mark.slow
def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    orch = tmp_path / "bin" / "orch"
    orch.parent.mkdir()
    lines = [f"#!{sys.executable}", "from orchestrator.cli.app import main", "if __name__ == '__main__':", "    main()"]
    orch.write_text("\n".join(lines) + "\n")
    orch.chmod(0o755)
    assert tour().count("orch ") >= 12
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", tour()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{orch.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(pd.read_csv(tmp_path / "submission.csv")) == 70
    assert {"age-0001", "age-0002", "gender-0001", "mask-0001", "soft-0001", "hard-0001", "soft-0002"} <= {
        path.name for path in (tmp_path / "runs").iterdir()
    }
    assert len(pd.read_csv(tmp_path / "answers.csv")) == 70
    (cascade,) = re.findall(r"^(orch cascade [^#\n]*?) *#", (ROOT / "README.md").read_text(), re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", cascade], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{orch.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("people.png", "answers.png", "runs/soft-0001/scores.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_docs_cli_is_what_the_commands_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/make_cli.py"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == (ROOT / "docs/cli.md").read_text(), "run `make docs`"
    assert done.stdout.count("\n## ") >= 14


def test_the_page_for_an_index_needs_nothing_of_the_checkout() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / project["readme"]).read_text()
    assert "](" not in page  # links and pictures lead nowhere on an index
    assert f"pip install {project['name']}" in page
    commands = {line.split()[1] for line in page.splitlines() if line.startswith("orch ")}
    assert commands <= {entry.name for entry in ENTRIES}
    assert set(re.findall(r"\[(\w+)\]", page)) == set(project["optional-dependencies"]) - {"dev", "peers"}  # users' own


def test_links_in_the_docs_lead_somewhere() -> None:
    checked = 0
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                checked += 1
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
    assert checked > 8


@pytest.mark.slow
def test_the_demo_runs_twice_and_shows_where_everything_is(tmp_path: Path) -> None:
    code = "from orchestrator.cli.app import main; main()"
    command = [sys.executable, "-c", code, "demo", "--people", "24", "--out", str(tmp_path / "demo")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert first.returncode == 0, first.stderr[-3000:]
    for name in ("people.png", "answers.png", "submission.csv", "runs/soft-0001/scores.png"):
        assert (tmp_path / "demo" / name).exists()
        assert Path(name).name in first.stdout
    assert "18-way macro F1 on new people" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert again.returncode == 0
    assert again.stderr.count("is complete already") == 3


def test_the_glossary_names_modules_that_are_there() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    terms = [term for term, _ in rows if term not in ("term", "---")]
    assert len(terms) >= 40
    assert len(terms) == len(set(terms))
    for term, where in rows[1:]:
        for path in re.findall(r"`([^`]+)`", where):
            inside = [ROOT / path] if path.startswith("models/") else [ROOT / "orchestrator" / path]
            assert path == "models/TASK/" or inside[0].exists(), f"{term}: {path}"

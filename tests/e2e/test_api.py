"""The examples of docs/api.md, run as they stand, and what the library promises beside the commands."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import api
from orchestrator.data.preprocessing import decode
from orchestrator.synthetic.people import write_people
from tests.conftest import ROOT

FUNCTIONS = [getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))]


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_examples_run_as_they_stand(tmp_path: Path) -> None:
    write_people(tmp_path / "people", 30, 8, 0)
    assert len(examples()) >= 8
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples())], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "--engine onnxx; allowed: auto, torch, onnx, openvino. Did you mean 'onnx'?" in done.stdout
    assert len((tmp_path / "submission.csv").read_text().splitlines()) == 1 + 8 * 7
    assert re.search(r"^age-0003 1 \d\.\d", done.stdout, re.MULTILINE)  # an event's line


def test_every_function_is_in_the_table_and_described() -> None:
    page = (ROOT / "docs/api.md").read_text()
    assert len(FUNCTIONS) >= 14
    for function in FUNCTIONS:
        assert f"| `{function.__name__}(" in page
        arguments = list(inspect.signature(function).parameters.values())
        described = re.findall(r"^        (\w+): ", (inspect.getdoc(function) and function.__doc__) or "", re.MULTILINE)
        assert [one.name for one in arguments] == [name for name in described if name != "OrchestratorError"]
        positional = [one for one in arguments if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert len(positional) <= 2, function.__name__


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, orchestrator.api; sys.exit(','.join({'torch', 'pandas', 'timm', 'sklearn'} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


def test_paths_may_be_words(people: Path, workspace: Path) -> None:
    built = api.ensemble(workspace=str(workspace))
    photo = sorted((people / "eval" / "images").iterdir())[0]
    found = api.predict([str(photo)], workspace=str(workspace), device="cpu")
    assert found.ensemble == built.record.id
    assert found.answers == api.predict([photo], workspace=workspace, device="cpu").answers


def test_a_predictor_takes_paths_words_bytes_and_pixels(people: Path, workspace: Path) -> None:
    api.ensemble(workspace=workspace)
    photo = sorted((people / "eval" / "images").iterdir())[0]
    predictor = api.load_predictor(workspace=workspace, device="cpu")
    (batch,) = predictor.predict([photo, str(photo), photo.read_bytes(), decode(photo)])
    assert batch.combined is not None
    assert len(set(batch.combined.label.tolist())) == 1
    assert batch.photos[0] == batch.photos[1] == photo

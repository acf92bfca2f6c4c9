"""An installation without any extra: a folder of the packages that pyproject.toml asks for, and of nothing else.

What needs an extra says which and how to install it; all the rest works.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.core.errors import ConfigError, EngineError
from orchestrator.core.extras import EXTRAS, folder_of, import_optional, missing_of, require
from orchestrator.data.preprocessing import DETECTOR
from orchestrator.synthetic.people import write_people
from tests.conftest import ROOT, Done, closure, edit_sealed, tiny

Bare = Callable[..., Done]


def base_packages() -> list[Distribution]:
    """Every distribution that an installation without extras has."""
    return [package for _, package in closure([Requirement("specialist-ensemble")]) if package is not None]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Runs `orch` without any extra."""
    folder = tmp_path_factory.mktemp("bare")
    packages = base_packages()
    names = {canonicalize_name(package.name) for package in packages}
    assert not {"onnx", "onnxruntime", "openvino", "optuna", "mtcnn", "tensorboard", "wandb", "pytest"} & names
    for package in packages:
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            target = Path(str(package.locate_file(top)))
            if target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)

    def run(*words: object) -> Done:
        done = subprocess.run(
            [sys.executable, "-S", "-m", "orchestrator", *map(str, words)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}, cwd=folder.parent,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("engines", ["predict", "{photo}", "--engine", "onnx", "--workspace", "{runs}"]),
        ("engines", ["predict", "{photo}", "--engine", "openvino", "--workspace", "{runs}"]),
        ("engines", ["evaluate", "--data", "{others}", "--engine", "onnx", "--workspace", "{runs}"]),
        ("engines", ["export", "--workspace", "{runs}", "--out", "exported"]),
        ("sweep", ["sweep", "age", "--data", "{data}", "--workspace", "{runs}"]),
        ("face", ["train", "age", "--data", "{data}", "--workspace", "{runs}", "--set", "face=0.3"]),
        (
            "tensorboard",
            ["train-all", "--data", "{data}", "--workspace", "{runs}", "--track=wandbb", "--track=tensorboard"],
        ),
        ("engines", ["cascade", "{photo}", "--engine", "onnx", "--rate", "0.5", "--workspace", "{runs}"]),
        ("sweep", ["sweep", "age", "--data", "{data}", "--workspace", "{runs}", "--stages", "model,loss"]),
        ("face", ["train-all", "--data", "{data}", "--workspace", "{runs}", "--recipe", "{recipe}"]),
        ("face", ["train", "age", "--data", "{data}", "--workspace", "{runs}", "--grid", "face=0,0.3"]),
        ("face", ["bench", "training", "--recipe", "{recipe}", "--out", "bench"]),
        ("alike", ["data", "alike", "--data", "{data}"]),
        ("face", ["data", "faces", "--data", "{data}", "--workspace", "{runs}"]),
        (
            "wandb",
            ["train", "age", "--data", "{data}", "--workspace", "{runs}", "--grid", "lr=1e-3,2e-3", "--track=wandb"],
        ),
        ("mlflow", ["train", "age", "--data", "{data}", "--workspace", "{runs}", "--track", "mlflow"]),
        ("mlflow", ["sweep", "age", "--data", "{data}", "--workspace", "{runs}", "--track", "mlflow"]),
        ("mlflow", ["runs", "track", "age-0001", "--to", "mlflow", "--workspace", "{runs}"]),
        ("wandb", ["runs", "track", "age-0001", "--to", "wandb", "--workspace", "{runs}"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_what_needs_an_extra_says_which(
    bare: Bare, people: Path, trained: Path, tmp_path: Path, extra: str, words: Sequence[str]
) -> None:
    photo, recipe = next((people / "eval" / "images").iterdir()), tmp_path / "faces.toml"
    recipe.write_text((ROOT / "models" / "mask" / "recipes" / "demo.toml").read_text() + "\nface = 0.6\n")
    names = {"photo": photo, "data": people / "train", "runs": trained, "recipe": recipe, "others": people / "train"}
    done = bare(*(word.format_map(names) for word in words))
    assert done.code == 2, done.err + done.out
    assert f"the extra `{extra}`: `pip install -e '{ROOT}[{extra}]'`" in done.err
    assert "Traceback" not in done.err
    assert (
        "--track=wandbb" not in words or "tracker wandbb: allowed: tensorboard, mlflow, wandb." in done.err
    )  # all mistakes at once


@pytest.fixture(scope="module")
def around(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose age run looks for faces, as if trained where the extra is installed, with an ensemble; read only."""
    from orchestrator import api

    workspace = tmp_path_factory.mktemp("around") / "runs"
    shutil.copytree(trained, workspace)
    run = workspace / "age-0001"
    edit_sealed(run / "run.json", recipe={**json.loads((run / "run.json").read_text())["recipe"], "face": 0.3})
    for card in run.glob("fold-*/member.json"):
        preprocess = json.loads(card.read_text())["preprocess"]
        geometry = {**preprocess["geometry"], "face": 0.3, "detector": DETECTOR}
        edit_sealed(card, preprocess={**preprocess, "geometry": geometry})
    api.ensemble(workspace=workspace)
    return workspace


ANSWERS = (
    "the crop of age-0001 around faces needs {missing}, or answer with an ensemble of runs that crop without them."
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "{photos}", "--workspace", "{runs}"], ANSWERS),
        (["evaluate", "--data", "{others}", "--distinct-people", "--workspace", "{runs}"], ANSWERS),
        (["pseudo", "{photos}", "--out", "{out}", "--workspace", "{runs}"], ANSWERS),
        (["cascade", "{photos}", "--rate", "0.5", "--workspace", "{runs}"], ANSWERS),
        (["resume", "age-0001", "--workspace", "{runs}"], "face = 0.3 needs {missing}."),
        (["tta", "age-0001", "--views", "flip", "--workspace", "{runs}"], "a crop around faces needs {missing}."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_run_that_looks_for_faces_needs_and_what_to_do_without(
    bare: Bare, people: Path, around: Path, tmp_path: Path, words: Sequence[str], message: str
) -> None:
    """Nobody can train without faces what is trained, or is to be completed."""
    workspace = Path(shutil.copytree(around, tmp_path / "runs"))
    if words[0] == "resume":
        shutil.rmtree(workspace / "age-0001" / "fold-1")
    write_people(tmp_path / "others", 6, 0, seed=11)
    names = {
        "photos": people / "eval" / "images", "others": tmp_path / "others" / "train", "runs": workspace,
        "out": tmp_path / "labels.csv",
    }  # fmt: skip
    done = bare(*(word.format_map(names) for word in words))
    assert done.code == 2, done.err + done.out
    missing = f"mtcnn, lz4, which come with the extra `face`: `pip install -e '{ROOT}[face]'`"
    assert f"error: {message.format(missing=missing)}\n" in done.err


@pytest.mark.slow
def test_all_the_rest_works(bare: Bare, orch: Callable[..., Done], people: Path, tmp_path: Path) -> None:
    runs, photos = tmp_path / "runs", people / "eval" / "images"
    for words in (
        ["data", "check", "--data", people / "train", "--folds", 3],
        ["train-all", "--data", people / "train", "--workspace", runs, "--folds", 3, "--jobs", 2, *tiny()],
        ["ensemble", "--workspace", runs],
        ["runs", "list", "--workspace", runs],
        ["workspace", "check", "--workspace", runs],
    ):
        done = bare(*words)
        assert done.code == 0, done.err + done.out
    with_none, with_all = (run("predict", photos, "--workspace", runs, "--json") for run in (bare, orch))
    assert with_none.code == with_all.code == 0, with_none.err
    assert json.loads(with_none.out) == json.loads(with_all.out)


def test_every_extra_of_the_project_is_known_by_its_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = packages_distributions()
    for extra, packages in EXTRAS.items():
        brought = {canonicalize_name(Requirement(text).name) for text in project[extra]}
        assert {canonicalize_name(name) for package in packages for name in names[package]} & brought == brought
    assert set(project) - set(EXTRAS) == {"dev", "peers"}


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandberer").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_of(["wandberer", "json"]) == ["wandberer"]
    with pytest.raises(
        ConfigError, match=r"^a song needs wandberer, which comes with the extra `wandb`: `pip .*`, or hum it\.$"
    ):
        require("a song", "wandb", ["wandberer"], "hum it")


def test_a_broken_package_is_told_from_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(
        ConfigError, match=r"^a search needs optuna, which comes with the extra `sweep`: `pip .*'\.?.*\[sweep\]'"
    ):
        import_optional("optuna", "a search", "sweep")
    for folder, text in (("lz4", "raise OSError('libfoo.so: no such file.')"), ("wandb", "def broken(:")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == folder]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        EngineError,
        match=r"^faces needs lz4, which is installed but cannot be imported \(OSError: libfoo\.so: no such file\)\. "
        r"Reinstall it: `pip install --force-reinstall --no-deps 'lz4>=4\.3'`, or go without\.$",
    ):
        import_optional("lz4.frame", "faces", "face", "go without", EngineError)
    with pytest.raises(ConfigError, match=r"wandb, which is installed but cannot be imported \(SyntaxError: "):
        import_optional("wandb", "a tracker", "wandb")


def test_a_module_of_another_package_needs_the_extras_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="needs tensorboard, which comes with the extra `tensorboard`"):
        import_optional("torch.utils.tensorboard", "a tracker", "tensorboard")


def test_a_package_is_found_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mtcnn").mkdir()
    (tmp_path / "mtcnn" / "__init__.py").write_text("raise RuntimeError('TensorFlow')")
    monkeypatch.syspath_prepend(tmp_path)
    assert folder_of("mtcnn", "faces", "face") == tmp_path / "mtcnn"
    monkeypatch.setitem(sys.modules, "mtcnn", None)
    with pytest.raises(
        ConfigError, match=r"^faces needs mtcnn, which comes with the extra `face`: .*, or go without\.$"
    ):
        folder_of("mtcnn", "faces", "face", "go without")
